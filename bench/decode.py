"""Decode speed of the embedded model beside transformers, in alternating rounds of one run.

    python bench/decode.py [--rounds 5] [--tokens 64] [--threads 2]

Both sides read the same GGUF file, compute in the same dtype on as many threads, continue the same prompt greedily and
are timed from their first new token to their last. `limit` is what memory alone would allow: the bytes of the weights
that one token needs, against the rate at which as many threads read a buffer larger than any cache. Needs the `test`
extra. The last line is one JSON document.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import transformers

import seamount
from seamount.benchmark import processor
from seamount.checkpoint import locate
from seamount.kernels.cpu.limits import read_limit
from seamount.models import Model, cost

PROMPT = (
    "A seamount is a mountain that rises from the sea floor without reaching the surface. Most are old volcanoes. "
    "Currents that meet one are turned upwards, and"
)


class _Arrivals:
    """Takes the place of a streamer in transformers, and notes when each new token comes."""

    def __init__(self) -> None:
        self.times: list[float] = []

    def put(self, _: Any) -> None:
        self.times.append(time.perf_counter())

    def end(self) -> None:
        # The first arrival is the prompt's.
        del self.times[0]


def ours(model: Model, prompt: list[int], count: int) -> tuple[float, list[int]]:
    """Seconds per token, and the tokens."""
    cache, tokens, times = model.new_cache(len(prompt) + count), [], []
    step = prompt
    for _ in range(count):
        tokens.append(int(model.step(step, cache).argmax()))
        times.append(time.perf_counter())
        step = tokens[-1:]
    return (times[-1] - times[0]) / (count - 1), tokens


def theirs(model: Any, prompt: list[int], count: int) -> tuple[float, list[int]]:
    """Seconds per token, and the tokens."""
    arrivals, prompt_BT = _Arrivals(), torch.tensor([prompt])
    with torch.inference_mode():
        output_BT = model.generate(
            prompt_BT,
            attention_mask=torch.ones_like(prompt_BT),
            min_new_tokens=count,
            max_new_tokens=count,
            do_sample=False,
            streamer=arrivals,
        )
    assert len(arrivals.times) == count, f"transformers gave {len(arrivals.times)} tokens, not {count}"
    return (arrivals.times[-1] - arrivals.times[0]) / (count - 1), output_BT[0, len(prompt) :].tolist()


def compare(sides: dict[str, Callable[[], tuple[float, list[int]]]], rounds: int) -> dict[str, Any]:
    """Tokens per second of each side: median, lowest and highest; the first round warms up and does not count."""
    rates: dict[str, list[float]] = {name: [] for name in sides}
    tokens: dict[str, list[int]] = {}
    for number in range(rounds + 1):
        for name, decode in sides.items():
            seconds, tokens[name] = decode()
            if number:
                rates[name].append(1 / seconds)
    found: dict[str, Any] = {
        name: {"median": statistics.median(each), "lowest": min(each), "highest": max(each)}
        for name, each in rates.items()
    }
    first, second = tokens.values()
    found["equal_tokens"] = sum(one == other for one, other in zip(first, second, strict=True))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    path = locate("embedded").path
    source = {"gguf_file": path.name} if path.is_file() else {}
    folder = path.parent if path.is_file() else path
    reference = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, **source).eval()
    cases = []
    header = f"{'dtype':<10}{'ours tok/s':>24}{'transformers tok/s':>26}{'ratio':>7}{'GB/s':>7}{'limit':>7}{'share':>7}"
    print(header, flush=True)
    for dtype in (torch.float32, torch.bfloat16):
        model = seamount.load("embedded", dtype=dtype)
        assert model.tokenizer is not None, "the embedded model has a tokenizer"
        prompt = model.tokenizer.encode(PROMPT)
        reference = reference.to(dtype)
        limit = read_limit()
        case = compare(
            {
                "ours": partial(ours, model, prompt, arguments.tokens),
                "transformers": partial(theirs, reference, prompt, arguments.tokens),
            },
            arguments.rounds,
        )
        weight_bytes = cost.parameters(model.spec).active * dtype.itemsize
        read = case["ours"]["median"] * weight_bytes
        case |= {
            "dtype": str(dtype).removeprefix("torch."),
            "ratio": case["ours"]["median"] / case["transformers"]["median"],
            "weight_bytes_per_token": weight_bytes,
            "read_bytes_per_second": read,
            "read_limit_bytes_per_second": limit,
            "share_of_limit": read / limit,
        }
        cases.append(case)
        shown = ["{median:.1f} ({lowest:.1f}-{highest:.1f})".format(**case[side]) for side in ("ours", "transformers")]
        print(
            f"{case['dtype']:<10}{shown[0]:>24}{shown[1]:>26}{case['ratio']:>7.2f}{read / 1e9:>7.1f}"
            f"{limit / 1e9:>7.1f}{case['share_of_limit']:>7.1%}",
            flush=True,
        )
    document = {
        "bench": "decode",
        "model": "embedded",
        "processor": processor(),
        "threads": arguments.threads,
        "rounds": arguments.rounds,
        "new_tokens": arguments.tokens,
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "seamount": seamount.__version__,
        "cases": cases,
    }
    print(json.dumps(document))


if __name__ == "__main__":
    main()
