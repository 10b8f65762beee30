"""What the shares of a machine's limits are shares of."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from numba import cfunc

from seamount.kernels.cpu import limits
from seamount.kernels.cpu.launch import _KERNEL


@pytest.mark.parametrize(
    ("kernel", "vector"), [(limits._float32_vectors, "<16 x float>"), (limits._int8_vectors, "<16 x i32>")]
)
def test_every_chain_is_worked_out(kernel: Callable[..., None], vector: str) -> None:
    """Chains that begin alike are compiled to one, and its rate is another limit than theirs."""
    lines = cfunc(_KERNEL)(kernel).inspect_llvm().splitlines()
    assert sum(f"phi {vector}" in line for line in lines) >= 8
