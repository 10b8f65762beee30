"""What this machine and this process are."""

import os
import sys
import time
from pathlib import Path

_IMPORTED_AT = time.monotonic()


def process_age_seconds() -> float:
    """Seconds since this process started; where the system does not tell, since this module was imported.

    Units: exact to one clock tick (mostly 10 ms) on Linux.
    """
    if sys.platform != "linux":
        return time.monotonic() - _IMPORTED_AT
    # The command name, second field, may itself hold spaces and brackets; the 22nd field is the start after boot.
    fields = Path("/proc/self/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
    started_at = int(fields[22 - 3]) / os.sysconf("SC_CLK_TCK")
    return time.clock_gettime(time.CLOCK_BOOTTIME) - started_at


def forced_cpu() -> str | None:
    """The path of the CPU kernels that SEAMOUNT_CPU asks for, to test or compare; None: the best one is taken."""
    return os.environ.get("SEAMOUNT_CPU") or None


def cache_directory() -> Path:
    """Where what can be made again is kept: SEAMOUNT_CACHE, else `seamount` in the user's cache directory."""
    if chosen := os.environ.get("SEAMOUNT_CACHE"):
        return Path(chosen)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "seamount"
