"""What a benchmark says of the machine that it ran on."""

import platform
from pathlib import Path


def processor() -> str:
    """The processor's model, where the system tells."""
    information = Path("/proc/cpuinfo")
    if information.exists():
        for line in information.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
