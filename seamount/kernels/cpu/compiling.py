"""How the kernels' functions are compiled. Entry points go through launch.py; the rest
needs no wrappers for Python and C, which cost as much as the functions."""

from numba import njit

# Called by other kernels; a big one says `apart()` to stay a function of its own.
inner = njit(no_cpython_wrapper=True, no_cfunc_wrapper=True, nogil=True)
# Copied into its callers.
inlined = njit(forceinline=True, no_cpython_wrapper=True, no_cfunc_wrapper=True)
