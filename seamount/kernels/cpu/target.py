"""Which instructions the kernels may use: decided once, before anything is compiled.

A processor that lacks an instruction kills the process, so nothing is tried out: LLVM names the features, and for the
AMX tiles Linux must also grant their use.
"""

import ctypes
import platform
from dataclasses import dataclass

import llvmlite.binding as llvm
import numba

from seamount.device import forced_cpu
from seamount.errors import ConfigError

# What each path needs of the processor, and the processor that stands for it where the path is forced.
_NEEDS = {
    "amx": ({"amx-int8", "amx-bf16", "avx512vnni", "avx512bw", "avx512vl"}, "sapphirerapids"),
    "avx512": ({"avx512vnni", "avx512bw", "avx512vl", "fma"}, "icelake-server"),
    "avxvnni": ({"avxvnni", "avx2", "fma"}, "alderlake"),
    "avx2": ({"avx2", "fma"}, "haswell"),
    "portable": (set(), "x86-64"),
}


@dataclass(frozen=True)
class Target:
    """One path of the kernels: amx, avx512 (with VNNI), avxvnni, avx2, or portable."""

    path: str
    is_x86: bool

    @property
    def has_amx(self) -> bool:
        """Tiles of int8 and bfloat16."""
        return self.path == "amx"

    @property
    def has_avx512(self) -> bool:
        """Byte shuffles on 64 bytes."""
        return self.path in ("amx", "avx512")

    @property
    def has_vnni512(self) -> bool:
        """Dot products of four bytes, sixteen at once."""
        return self.has_avx512

    @property
    def has_vnni256(self) -> bool:
        """Dot products of four bytes, eight at once."""
        return self.path == "avxvnni"

    @property
    def has_avx2(self) -> bool:
        """Byte shuffles on 32 bytes."""
        return self.path in ("avxvnni", "avx2")


def _amx_is_granted() -> bool:
    """Ask Linux for the tiles' state (18): arch_prctl(ARCH_REQ_XCOMP_PERM), for all threads of this process."""
    if platform.system() != "Linux":
        return False
    return ctypes.CDLL(None, use_errno=True).syscall(158, 0x1023, 18) == 0


def available_paths() -> list[str]:
    """The paths that this machine can run, best first."""
    if platform.machine().lower() not in ("x86_64", "amd64"):
        return ["portable"]
    features = {name for name, present in llvm.get_host_cpu_features().items() if present}
    paths = [path for path, (needs, _) in _NEEDS.items() if needs <= features]
    return [path for path in paths if path != "amx" or _amx_is_granted()]


def _choose() -> Target:
    is_x86 = platform.machine().lower() in ("x86_64", "amd64")
    available, forced = available_paths(), forced_cpu()
    if forced is None:
        return Target(available[0], is_x86)
    if forced not in available:
        raise ConfigError(f"SEAMOUNT_CPU={forced!r}: this machine runs {', '.join(available)}")
    if is_x86:
        numba.config.CPU_NAME, numba.config.CPU_FEATURES = _NEEDS[forced][1], ""
    return Target(forced, is_x86)


TARGET = _choose()
