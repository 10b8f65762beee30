"""Threads that work through a layer together: one parallel region, barriers between the phases, work taken by counter.

A team is 192 bytes that start as zeros: the phase's number, the threads that have arrived, and the next unit of work,
each in a cache line of its own. Work is taken rather than dealt out, because on a shared machine cores are not equal.
"""

from typing import Any

from llvmlite import ir
from numba import types

from seamount.kernels.cpu.compiling import inlined
from seamount.kernels.cpu.instructions import I64, address, at, call, instruction
from seamount.kernels.cpu.target import TARGET

TEAM_BYTES = 192
_ARRIVED, _NEXT = 64, 128


@instruction(types.int64, address, types.int64)
def fetch_add(builder: Any, place: Any, value: Any) -> Any:
    """Add to an int64 that threads share; what it was before."""
    return builder.atomic_rmw("add", at(builder, place, I64), value, "seq_cst")


@instruction(types.int64, address)
def read_shared(builder: Any, place: Any) -> Any:
    """An int64 that another thread may be writing."""
    return builder.load_atomic(at(builder, place, I64), "acquire", 8)


@instruction(types.void, address, types.int64)
def write_shared(builder: Any, place: Any, value: Any) -> None:
    """An int64 that other threads wait for."""
    builder.store_atomic(value, at(builder, place, I64), "release", 8)


@instruction(types.void)
def relax(builder: Any) -> None:
    """Tell the processor that this thread is waiting."""
    if TARGET.is_x86:
        call(builder, "llvm.x86.sse2.pause", ir.VoidType())


@inlined
def next_unit(team):
    """The number of a unit of work that no other thread has taken in this phase."""
    return fetch_add(team + _NEXT, 1)


@inlined
def barrier(team, threads):
    """Wait for all threads; the phase's work counter starts again from zero."""
    phase = read_shared(team)
    if fetch_add(team + _ARRIVED, 1) == threads - 1:
        write_shared(team + _ARRIVED, 0)
        write_shared(team + _NEXT, 0)
        write_shared(team, phase + 1)
    else:
        while read_shared(team) == phase:
            relax()
