"""What a benchmark says of the machine and of the versions that it ran on: no names of hosts, no paths."""

from __future__ import annotations

import platform
import subprocess
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numba
import torch

from seamount.kernels.cpu.limits import Limits

_ROOT = Path(__file__).resolve().parents[2]


def described(limits: Limits) -> dict[str, Any]:
    """Processor, limits, versions, and the commit if the source is a checkout."""
    return {
        "processor": processor(),
        "limits": asdict(limits),
        "versions": {"python": platform.python_version(), "torch": torch.__version__, "numba": numba.__version__},
        "commit": _commit(),
    }


def processor() -> str:
    """The processor's model, where the system tells."""
    information = Path("/proc/cpuinfo")
    if information.exists():
        for line in information.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def resident() -> int | None:
    """Bytes of this process's own that are in memory, mapped files not counted; None where the system does not tell."""
    status = Path("/proc/self/status")
    if not status.exists():
        return None
    lines = dict(line.split(":", 1) for line in status.read_text(encoding="ascii").splitlines())
    return int(lines["RssAnon"].split()[0]) * 1024


def _commit() -> str | None:
    # A directory further up may be a checkout of something else.
    if not (_ROOT / ".git").exists():
        return None
    command = ["git", "-C", str(_ROOT), "describe", "--always", "--dirty", "--abbrev=12"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None
