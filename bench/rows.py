"""The row product of decoding beside torch's, over the weights of one whole model, against the memory-read limit.

    python bench/rows.py [--rounds 15] [--threads 2]

The weights have the embedded model's shapes; each round goes through all of them once, so that they come from memory.
The last line is one JSON document.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable

import numba
import torch
from torch import Tensor

from seamount import kernels
from seamount.benchmark import processor
from seamount.kernels import reference
from seamount.kernels.cpu.limits import read_limit
from seamount.models import load_spec
from seamount.models.model import Model


def seconds(product: Callable[[Tensor, Tensor], Tensor], weights: list[Tensor], rounds: int) -> list[float]:
    """Seconds for all products, of each round but the first."""
    rows = [torch.randn(1, weight.shape[1]).to(weight.dtype) for weight in weights]
    taken = []
    for _ in range(rounds + 1):
        started = time.perf_counter()
        for row, weight in zip(rows, weights, strict=True):
            product(row, weight)
        taken.append(time.perf_counter() - started)
    return taken[1:]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    numba.set_num_threads(arguments.threads)
    with torch.device("meta"):
        shapes = [parameter.shape for parameter in Model(load_spec("embedded"), {}).parameters() if parameter.ndim == 2]
    weights = [torch.randn(shape).bfloat16() for shape in shapes]
    nbytes, limit = sum(weight.nbytes for weight in weights), read_limit()
    cases = {}
    print(f"{'product':<10}{'ms':>8}{'lowest':>8}{'GB/s':>8}{'share of limit':>16}")
    with torch.inference_mode():
        for name, product in (("ours", kernels.linear), ("torch", reference.linear)):
            taken = seconds(product, weights, arguments.rounds)
            median = statistics.median(taken)
            cases[name] = {"median": median, "lowest": min(taken), "share_of_limit": nbytes / median / limit}
            share = cases[name]["share_of_limit"]
            print(f"{name:<10}{median * 1e3:>8.1f}{min(taken) * 1e3:>8.1f}{nbytes / median / 1e9:>8.1f}{share:>16.1%}")
    ratio = cases["torch"]["median"] / cases["ours"]["median"]
    print(f"ratio {ratio:.2f}, limit {limit / 1e9:.1f} GB/s")
    document = {"bench": "rows", "processor": processor(), "threads": arguments.threads, "torch": torch.__version__}
    print(json.dumps(document | {"bytes": nbytes, "read_limit": limit, "seconds": cases, "ratio": ratio}))


if __name__ == "__main__":
    main()
