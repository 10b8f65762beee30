"""The operations on a CPU, compiled by numba from Python when first needed and kept on disk.

target.py     which instructions this machine has
vector.py     vector instructions as functions; tiles.py: AMX's
team.py       threads and barriers
products.py   packed weights by int8 activations; rowwise.py: norm, quantisation, SiLU; attention.py; experts.py
layers.py     whole layers in one parallel region
"""

import hashlib
from pathlib import Path

import numba
import torch  # noqa: F401  first, so that numba's threads and torch's come from one OpenMP

from seamount.device import cache_directory


def _source_hash() -> str:
    """numba's cache watches a kernel's own file only, and these files use each other."""
    digest = hashlib.sha256()
    for path in sorted(Path(__file__).parent.rglob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


numba.config.CACHE_DIR = str(cache_directory() / f"kernels-{_source_hash()}")
