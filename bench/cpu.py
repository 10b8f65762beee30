"""Speed of packed models on this CPU beside llama.cpp, each case with its share of this machine's measured limit.

    make peers
    seamount init deepseek-v2-lite /data/v2-lite --quantize int4
    python bench/peers/random_gguf.py deepseek-v2-lite /data/v2-lite.gguf
    python bench/cpu.py --model /data/v2-lite --gguf /data/v2-lite.gguf

Both sides run in processes of their own, by turns, so that neither holds memory while the other is measured. Cases:
prefill of 512 tokens, decode of one stream at a short context and behind 4,096 tokens, 16 streams in sum; resident
memory at the end. Both compute the logits of every decoded token, and nobody looks at them while time is taken.
`--model embedded` measures the embedded model packed as int4, against its own GGUF file.

A decode step must read the weights that it uses and the cached rows; for 16 streams, the experts that even
routing would touch. Prefill must do two operations for each active weight. The limits are measured before each case.
The last line is one JSON document.
"""

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numba
import torch

import seamount
from seamount.benchmark import Work, processor
from seamount.checkpoint import locate
from seamount.kernels.cpu.limits import int8_limit, read_limit
from seamount.kernels.packing import Packed
from seamount.models import Model
from seamount.models.packed import packed_weights
from seamount.models.parts.batch import Batch
from seamount.models.parts.pages import PageLayout, new_caches

ROOT = Path(__file__).resolve().parents[1]
CASES = ("prefill", "decode", "context", "streams")
PREFILL, CONTEXT, STREAMS, PROMPT = 512, 4096, 16, 8


def resident() -> dict[str, int]:
    """Bytes of this process in memory, by kind (Linux)."""
    kinds = {"VmRSS": "resident", "RssAnon": "resident_anonymous", "RssFile": "resident_file"}
    lines = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines())
    return {name: int(lines[key].split()[0]) * 1024 for key, name in kinds.items()}


class Ours:
    """The cases on a packed model, under the simple loop: `Model.logits_at`."""

    def __init__(self, model: Model, layout: PageLayout) -> None:
        self.model, self.layout, self._work = model, layout, Work(model)
        self._random = torch.Generator().manual_seed(0)

    def _tokens(self, count: int) -> torch.Tensor:
        return torch.randint(0, self.model.spec.vocab_size, (count,), generator=self._random)

    def _filled(self, count: int, room: int) -> Any:
        """A cache that holds so many tokens."""
        cache = new_caches(self.layout, [count + room], self.model.device)[0]
        self._fill(cache, count)
        return cache

    def _fill(self, cache: Any, count: int) -> None:
        for start in range(0, count, PREFILL):
            size = min(PREFILL, count - start)
            self.model.logits_at(self._tokens(size), Batch.following(size, cache, self.model.device), [])

    def prefill(self, rounds: int) -> tuple[list[float], int]:
        """512 tokens, logits of the last."""
        rates = []
        for _ in range(rounds + 1):
            (cache,), tokens_T = new_caches(self.layout, [PREFILL], self.model.device), self._tokens(PREFILL)
            started = time.perf_counter()
            self.model.logits_at(tokens_T, Batch.following(PREFILL, cache, self.model.device), [PREFILL - 1])
            rates.append(PREFILL / (time.perf_counter() - started))
        return rates[1:], 0

    def decode(self, rounds: int) -> tuple[list[float], int]:
        """One stream behind a short prompt."""
        return self._decode(PROMPT, 32, rounds)

    def context(self, rounds: int) -> tuple[list[float], int]:
        """One stream behind 4,096 tokens, all of them computed."""
        return self._decode(CONTEXT, 16, rounds)

    def _decode(self, context: int, steps: int, rounds: int) -> tuple[list[float], int]:
        cache, rates = self._filled(context, steps * (rounds + 1)), []
        for _ in range(rounds + 1):
            started = time.perf_counter()
            for _ in range(steps):
                self.model.step(self._tokens(1).tolist(), cache)
            rates.append(steps / (time.perf_counter() - started))
        return rates[1:], cache.length

    def streams(self, rounds: int) -> tuple[list[float], int]:
        """16 streams behind short prompts, in sum."""
        steps, rates = 16, []
        room = [PROMPT + steps * (rounds + 1)] * STREAMS
        caches = new_caches(self.layout, room, self.model.device)
        for cache in caches:
            self._fill(cache, PROMPT)
        for _ in range(rounds + 1):
            started = time.perf_counter()
            for _ in range(steps):
                batch = Batch.of((1,) * STREAMS, caches, self.model.device)
                self.model.logits_at(self._tokens(STREAMS), batch, range(STREAMS))
            rates.append(STREAMS * steps / (time.perf_counter() - started))
        return rates[1:], caches[0].length

    def measure(self, name: str, rounds: int) -> dict[str, Any]:
        """One case: rate, spread, and its share of the limit."""
        limit = (int8_limit if name == "prefill" else read_limit)()
        rates, length = getattr(self, name)(rounds)
        rate = statistics.median(rates)
        if name == "prefill":
            used = rate * self._work.token_operations
        else:
            count = STREAMS if name == "streams" else 1
            rows = count * length * sum(self.layout.row_bytes)
            used = rate / count * (self._work.weight_bytes(count) + rows)
        return {
            "tokens_per_second": rate, "lowest": min(rates), "highest": max(rates), "rounds": rates, "used": used,
            "limit": limit, "share": used / limit,
        }  # fmt: skip


def run_ours(arguments: argparse.Namespace) -> dict[str, Any]:
    """All cases of our side, in this process."""
    started = time.perf_counter()
    model = seamount.load(arguments.model, quantize=arguments.quantize)
    loaded = time.perf_counter() - started
    assert any(isinstance(weight, Packed) for _, weight in packed_weights(model)), f"{arguments.model} is not packed"
    side = Ours(model, model.compressed_layout if arguments.compressed_rows else model.page_layout)
    with torch.inference_mode():
        cases = {name: side.measure(name, arguments.rounds) for name in arguments.cases}
    packed = sum(weight.nbytes for _, weight in packed_weights(model))
    return {"load_seconds": loaded, "packed_bytes": packed, "memory": resident(), "cases": cases}


def last_line(command: list[str]) -> dict[str, Any]:
    """The JSON document that a command ends with."""
    result = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return dict(json.loads(result.stdout.splitlines()[-1]))


def together(runs: list[dict[str, Any]], names: list[str]) -> dict[str, Any]:
    """Several runs of one side as one: medians over all rounds of all runs."""
    cases = {}
    for name in names:
        each = [run["cases"][name] for run in runs]
        rates = [rate for case in each for rate in case["rounds"]]
        cases[name] = {"tokens_per_second": statistics.median(rates), "lowest": min(rates), "highest": max(rates)}
        if "share" in each[0]:
            cases[name]["share"] = statistics.median(case["share"] for case in each)
            cases[name]["limit"] = statistics.median(case["limit"] for case in each)
    last = {key: runs[-1][key] for key in ("memory", "packed_bytes", "load_seconds") if key in runs[-1]}
    return last | {"cases": cases}


def compare(arguments: argparse.Namespace) -> dict[str, Any]:
    """Both sides by turns, then a line a case."""
    names = list(arguments.cases)
    common = ["--threads", str(arguments.threads), "--rounds", str(arguments.rounds), "--cases", *names]
    ours = [sys.executable, __file__, "--alone", "--model", arguments.model, *common]
    if arguments.quantize:
        ours += ["--quantize", arguments.quantize]
    if arguments.compressed_rows:
        ours.append("--compressed-rows")
    sides: dict[str, Callable[[], dict[str, Any]]] = {"ours": lambda: last_line(ours)}
    peer = arguments.peers / "llama" / "bin" / "python"
    if arguments.gguf and peer.exists():
        script = str(ROOT / "bench" / "peers" / "llama.py")
        llama = [str(peer), script, "--model", arguments.gguf, "--flash", arguments.flash, "--json", *common]
        sides["llama.cpp"] = lambda: last_line(llama)
    else:
        print("llama.cpp is left out: `make peers` builds it, and --gguf names its model", file=sys.stderr)
    runs: dict[str, list[dict[str, Any]]] = {name: [] for name in sides}
    for _ in range(arguments.turns):
        for name, run in sides.items():
            print(f"measuring {name}", file=sys.stderr, flush=True)
            runs[name].append(run())
    found: dict[str, Any] = {name: together(each, names) for name, each in runs.items()}
    print(f"{'case':<9}{'tok/s':>9}{'spread':>16}{'limit':>9}{'share':>7}{'llama.cpp':>11}{'ratio':>7}")
    for name in names:
        case, unit = found["ours"]["cases"][name], "T/s" if name == "prefill" else "GB/s"
        scale = 1e12 if name == "prefill" else 1e9
        line = f"{name:<9}{case['tokens_per_second']:9.1f}{case['lowest']:8.1f}-{case['highest']:<7.1f}"
        line += f"{case['limit'] / scale:6.1f} {unit:<4}{case['share']:5.0%}"
        if "llama.cpp" in found:
            rate = found["llama.cpp"]["cases"][name]["tokens_per_second"]
            case["ratio"] = case["tokens_per_second"] / rate
            line += f"{rate:11.1f}{case['ratio']:7.2f}"
        print(line)
    for name, side in found.items():
        print(f"resident memory of {name}: {side['memory']['resident'] / 1e9:.2f} GB")
    versions = {"torch": torch.__version__, "numba": numba.__version__}
    return {
        "processor": processor(), "threads": arguments.threads, "versions": versions, "model": arguments.name,
    } | found  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="embedded", help="a packed directory, or embedded")
    parser.add_argument("--quantize", help="for a model that is not packed; for embedded int4, or gguf: as its file is")
    parser.add_argument("--compressed-rows", action="store_true", help="cached rows of our side as int8 with scales")
    parser.add_argument("--name", default="", help="how the result calls the model")
    parser.add_argument("--gguf", help="llama.cpp's model; for embedded its own file")
    parser.add_argument("--peers", type=Path, default=ROOT / ".peers")
    parser.add_argument("--flash", default="on", choices=("faster", "on", "off"), help="llama.cpp's flash attention")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--turns", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--cases", nargs="+", choices=CASES, default=CASES)
    parser.add_argument("--alone", action="store_true", help="our side only, as JSON")
    arguments = parser.parse_args()
    numba.set_num_threads(arguments.threads)
    torch.set_num_threads(arguments.threads)
    if arguments.model == "embedded":
        arguments.gguf = arguments.gguf or str(locate("embedded").path)
        arguments.quantize = arguments.quantize or "int4"
    arguments.name = arguments.name or Path(arguments.model).name
    print(json.dumps(run_ours(arguments) if arguments.alone else compare(arguments)), flush=True)


if __name__ == "__main__":
    main()
