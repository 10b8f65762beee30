"""Threads that work through a layer together: one parallel region, barriers between the phases, work taken by counter.

A team is 192 bytes that start as zeros: the phase's number, the threads that have arrived, and the next unit of work,
each in a cache line of its own. Work is taken rather than dealt out, because on a shared machine cores are not equal.
Who waits spins, for phases are shorter than a sleep; and after some microseconds gives the core to whoever wants it,
which may be the thread that is waited for.
"""

import os
from typing import Any

from llvmlite import ir
from numba import types

from seamount.kernels.cpu.compiling import inlined, inner
from seamount.kernels.cpu.instructions import I32, I64, address, at, call, instruction
from seamount.kernels.cpu.target import TARGET

TEAM_BYTES = 192
_ARRIVED, _NEXT = 64, 128
_PATIENCE = 200  # turns of a waiting loop, of 0.02 to 0.07 us, before each offer of the core to others


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


@instruction(types.void)
def give_way(builder: Any) -> None:
    """Let another thread run on this core, if one waits for it."""
    if os.name == "posix":
        call(builder, "sched_yield", I32)


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
        _wait(team, phase)


@inner
def _wait(team, phase):
    """Until the phase is over."""
    turns = 0
    while read_shared(team) == phase:
        relax()
        turns += 1
        if turns % _PATIENCE == 0:
            give_way()
