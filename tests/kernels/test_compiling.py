"""Compiled code of several processes is linked by name, so every name must mean one function."""

import importlib
import pkgutil
from typing import Any

import pytest
from numba.core.dispatcher import Dispatcher

import seamount.kernels.cpu as cpu
from seamount.kernels.cpu.compiling import inlined, inner, inner_for


def dispatchers() -> dict[int, Dispatcher]:
    """Every function of the kernels that modules name or close over, by identity."""
    found: dict[int, Dispatcher] = {}
    waiting = [
        value
        for module in pkgutil.iter_modules(cpu.__path__)
        for value in vars(importlib.import_module(f"{cpu.__name__}.{module.name}")).values()
    ]
    while waiting:
        value = waiting.pop()
        if isinstance(value, Dispatcher) and id(value) not in found:
            found[id(value)] = value
            waiting += [cell.cell_contents for cell in value.py_func.__closure__ or ()]
    return found


def test_no_two_kernel_functions_share_a_name() -> None:
    names = [(each.py_func.__module__, each.py_func.__qualname__) for each in dispatchers().values()]
    assert len(names) > 100
    assert sorted(names) == sorted(set(names))


@pytest.mark.parametrize("compiled", [inner, inlined])
def test_a_function_made_in_a_function_needs_a_name(compiled: Any) -> None:
    def make(number: int) -> None:
        @inner_for(str(number))
        def add(value: int) -> int:
            return value + number

        assert add.py_func.__qualname__ == f"add_{number}"

    make(1)
    with pytest.raises(ValueError, match="use `inner_for`"):
        compiled(lambda value: value)
