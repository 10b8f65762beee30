"""Running a kernel on all threads: one compiled loop calls any kernel by its address.

A kernel is a function of (arguments, phase, worker, workers), where `arguments` is the address of int64 numbers. numba
compiles a parallel function again for every loop in it, with all that it calls; so there is a single parallel function,
and kernels are compiled on their own. Between phases all workers wait for each other.
"""

import logging
import threading
from array import array
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numba
import numpy as np
from llvmlite import ir
from numba import cfunc, njit, prange, types
from numba.extending import intrinsic

from seamount.kernels.cpu.instructions import I64, instruction, read
from seamount.kernels.cpu.team import fetch_add, read_shared, relax

# Where there is no OpenMP, numba's own thread pool ends the process if two threads enter it at once.
one_at_a_time = threading.Lock()

_log = logging.getLogger("seamount")
_PATIENCE = 1 << 28  # turns of a waiting loop: some seconds, for a machine that is busy
_KERNEL = types.void(types.int64, types.int64, types.int64, types.int64)


@intrinsic
def call_kernel(context: Any, place: Any, arguments: Any, phase: Any, worker: Any, workers: Any) -> Any:
    """Call the kernel at an address, from compiled code."""

    def generate(context: Any, builder: ir.IRBuilder, signature: Any, values: Any) -> Any:
        kind = ir.FunctionType(ir.VoidType(), [I64] * 4).as_pointer()
        builder.call(builder.inttoptr(values[0], kind), values[1:])
        return context.get_dummy_value()

    return types.void(*[types.int64] * 5), generate


@njit(parallel={"fusion": False}, nogil=True, cache=True)
def _launch(place, arguments, phases, workers):
    for phase in range(phases):
        if workers == 1:
            call_kernel(place, arguments, phase, 0, 1)
        else:
            for number in prange(workers):
                call_kernel(place, arguments, phase, np.int64(number), workers)


@cache
def _compiled(kernel: Callable[..., None]) -> Any:
    return cfunc(_KERNEL, cache=True)(kernel)


@cache
def kernel_address(kernel: Callable[..., None]) -> int:
    """Where a kernel's compiled code begins; compiles it, or reads it from disk, when first asked."""
    return int(_compiled(kernel).address)


def is_kept(kernel: Callable[..., None]) -> bool:
    """Whether a kernel stands compiled on disk, so that its first call does not wait."""
    name = f"{kernel.__module__.rpartition('.')[2]}.{kernel.__qualname__}-"
    return any(Path(numba.config.CACHE_DIR).rglob(f"{name}*.nbi"))


def launch(kernel: Callable[..., None], arguments: Sequence[int], *, phases: int = 1, workers: int = 1) -> None:
    """Run every phase of a kernel on so many workers; compiled when first needed."""
    numbers = array("q", arguments)
    place = kernel_address(kernel)
    with one_at_a_time:
        _launch(place, numbers.buffer_info()[0], phases, workers)


def all_workers() -> int:
    """As many as numba has threads for."""
    return int(numba.get_num_threads())


def _meet(arguments, phase, worker, workers):
    """Say that this worker is here, and wait for the others, but not for ever."""
    here, met = argument(arguments, 0), argument(arguments, 0) + 64
    fetch_add(here, 1)
    for _ in range(_PATIENCE):
        if read_shared(here) == workers:
            fetch_add(met, 1)
            return
        relax()


@cache
def meeting_workers(workers: int) -> int:
    """So many workers if they run at the same time, as barriers need, else 1: OMP_THREAD_LIMIT and OMP_DYNAMIC."""
    if workers == 1:
        return 1
    counts = np.zeros(16, np.int64)
    launch(_meet, [counts.ctypes.data], workers=workers)
    if counts[8] == workers:
        return workers
    _log.warning("OpenMP does not run %d threads at once here: packed models run on one", workers)
    return 1


@instruction(types.int64, types.int64, types.int64)
def argument(builder: Any, arguments: Any, number: Any) -> Any:
    """One of the numbers that a kernel was given."""
    return read(builder, builder.add(arguments, builder.mul(number, I64(8))), I64)
