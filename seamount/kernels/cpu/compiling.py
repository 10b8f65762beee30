"""How the kernels' functions are compiled. Entry points go through launch.py; the rest
needs no wrappers for Python and C, which cost as much as the functions."""

from collections.abc import Callable
from functools import partial
from typing import Any

from numba import njit


def _compiled(function: Callable[..., Any], part: str, **options: Any) -> Any:
    """Code that was compiled in other processes is linked by name, so a name must mean one function.

    numba tells closures of one name apart by a number that is another one in each process.
    Errors: ValueError for a closure without a part of its own.
    """
    if part:
        function.__qualname__ = f"{function.__name__}_{part}"
    elif "<locals>" in function.__qualname__:
        raise ValueError(f"{function.__qualname__} is made in a function: use `inner_for` or `inlined_for`")
    return njit(no_cpython_wrapper=True, no_cfunc_wrapper=True, **options)(function)


def inner(function: Callable[..., Any], part: str = "") -> Any:
    """For what other kernels call; a big function says `apart()` to stay one of its own."""
    return _compiled(function, part, nogil=True)


def inlined(function: Callable[..., Any], part: str = "") -> Any:
    """For what is copied into its callers."""
    return _compiled(function, part, forceinline=True)


def inner_for(part: str) -> Callable[[Callable[..., Any]], Any]:
    """`inner` for one that is made several times: `part` makes its name another one each time."""
    return partial(inner, part=part)


def inlined_for(part: str) -> Callable[[Callable[..., Any]], Any]:
    """`inlined` in the same way."""
    return partial(inlined, part=part)
