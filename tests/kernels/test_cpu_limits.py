"""What the shares of a machine's limits are shares of."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from numba import cfunc

from seamount.kernels.cpu import limits
from seamount.kernels.cpu.launch import _KERNEL
from seamount.kernels.cpu.target import TARGET


@pytest.mark.parametrize(
    ("kernel", "operation"), [(limits._float32_vectors, "llvm.fma"), (limits._int8_vectors, "vpdpbusd")]
)
def test_every_chain_is_worked_out(kernel: Callable[..., None], operation: str) -> None:
    """Chains that were alike were once compiled to one: that gave limits several times too low or too high."""
    if operation == "vpdpbusd" and not TARGET.has_vnni512:
        pytest.skip("this path has no such instruction")
    lines = cfunc(_KERNEL)(kernel).inspect_llvm().splitlines()
    assert sum("call" in line and operation in line for line in lines) >= 8
