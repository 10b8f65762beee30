"""Milliseconds to draw the tokens of a step, beside those that reading its logits once would take.

    python bench/sampler.py [--rounds 40] [--threads 2] [--vocabulary 49152]

The last line is one JSON document.
"""

import argparse
import json
import statistics
import time
from typing import Any

import numba
import torch

from seamount.benchmark import processor
from seamount.engine import SamplingParams
from seamount.engine.sampler import Row, SampleState, draw
from seamount.kernels.cpu.limits import read_limit

CASES: dict[str, dict[str, Any]] = {
    "greedy": {"temperature": 0},
    "temperature": {},
    "top_p": {"top_p": 0.95},
    "top_k": {"top_k": 20, "top_p": 0.95},
    "penalties": {"frequency_penalty": 0.5},
    "logprobs": {"logprobs": 5},
}


def seconds(logits_nW: torch.Tensor, params: SamplingParams, rounds: int) -> list[float]:
    """Of each draw but the first; every answer has 100 tokens already."""
    states = [SampleState(params, [1], sample_index) for sample_index in range(len(logits_nW))]
    for state in states:
        for token in range(100):
            state.push(token * 7)
    taken = []
    for position in range(100, 101 + rounds):
        started = time.perf_counter()
        draw(logits_nW, [Row(state, position) for state in states], logits_nW.shape[1])
        taken.append(time.perf_counter() - started)
    return taken[1:]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--vocabulary", type=int, default=49_152)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    numba.set_num_threads(arguments.threads)
    limit, cases = read_limit(), {}
    print(f"{'rows':>4} {'case':<12}{'ms':>8}{'lowest':>8}{'share of limit':>16}")
    for rows in (1, 16, 64):
        # Peaked as a model's: normal ones, and a few far above.
        logits_nW = torch.randn(rows, arguments.vocabulary, generator=torch.Generator().manual_seed(0)) * 2.5
        logits_nW[:, ::5000] += 12
        for name, options in CASES.items():
            taken = seconds(logits_nW, SamplingParams(seed=1, **options), arguments.rounds)
            median, share = statistics.median(taken), logits_nW.nbytes / limit / statistics.median(taken)
            cases[f"{name} {rows}"] = {"median": median, "lowest": min(taken), "share_of_limit": share}
            print(f"{rows:>4} {name:<12}{median * 1e3:>8.3f}{min(taken) * 1e3:>8.3f}{share:>16.1%}")
    document = {"bench": "sampler", "processor": processor(), "threads": arguments.threads, "read_limit": limit}
    print(json.dumps(document | {"vocabulary": arguments.vocabulary, "seconds": cases}))


if __name__ == "__main__":
    main()
