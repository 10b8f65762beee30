"""The engine beside transformers and llama.cpp: clients that ask at once, the first token, a long prompt.

    make peers
    python bench/peers.py [--model embedded] [--quantize int4] [--clients 1 4 16]

Every side runs in a process of its own, by turns, with the same lengths, as many threads and random tokens, greedily.
Cases: a prompt of 512 tokens; the first token of a prompt of 128; so many clients at once, each with a prompt of 128
and an answer of 32 tokens: tokens per second are the answers' in sum, over the time of the prompts too. Without
`make peers` llama.cpp is left out. transformers computes in float32, its faster format here (bench/decode.py). The
last line is one JSON document; a ratio above 1 says that Seamount is faster.
"""

import argparse
import json
import random
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numba
import torch
from cpu import last_line, together

import seamount
from seamount.benchmark import Subject, described
from seamount.benchmark.subject import spread
from seamount.benchmark.workload import answer_all, random_prompt
from seamount.checkpoint import locate
from seamount.engine import SamplingParams
from seamount.kernels.cpu.limits import limits

ROOT = Path(__file__).resolve().parents[1]


def run_ours(arguments: argparse.Namespace) -> dict[str, Any]:
    """All cases under the engine, in this process."""
    model = seamount.load(arguments.model, quantize=arguments.quantize or None)
    subject, source = Subject(model, limits()), random.Random(0)

    def seconds(clients: int, prompt: int, answer: int) -> float:
        prompts = [random_prompt(source, prompt, subject.vocab_size) for _ in range(clients)]
        started = time.perf_counter()
        answer_all(subject.engine, prompts, SamplingParams(max_tokens=answer, temperature=0.0, ignore_eos=True))
        return time.perf_counter() - started

    long, prompt, answer = arguments.prefill_tokens, arguments.prompt_tokens, arguments.answer_tokens
    asked = {"prefill": (1, long, 1, long), "first": (1, prompt, 1, prompt)}
    asked |= {f"clients {clients}": (clients, prompt, answer, clients * answer) for clients in arguments.clients}
    cases = {}
    for name, (clients, of_prompt, of_answer, tokens) in asked.items():
        cases[name] = spread([tokens / seconds(clients, of_prompt, of_answer) for _ in range(arguments.rounds + 1)][1:])
    return described(subject.limits) | {"cases": cases, "memory": subject.memory}


def run_llama(arguments: argparse.Namespace, python: Path, path: Path) -> dict[str, Any]:
    """All cases in llama.cpp, a process for each: its contexts are made for one shape."""
    command = [str(python), str(ROOT / "bench/peers/llama.py"), "--model", str(path), "--json", "--flash", "on"]
    command += ["--threads", str(arguments.threads), "--rounds", str(arguments.rounds)]
    command += ["--prompt-tokens", str(arguments.prompt_tokens), "--stream-steps", str(arguments.answer_tokens)]
    asked = {
        "prefill": ["--cases", "prefill", "--prefill-tokens", str(arguments.prefill_tokens)],
        "first": ["--cases", "prefill", "--prefill-tokens", str(arguments.prompt_tokens)],
    }
    asked |= {f"clients {count}": ["--cases", "answers", "--streams", str(count)] for count in arguments.clients}
    documents = {name: last_line(command + options) for name, options in asked.items()}
    cases = {name: next(iter(document["cases"].values())) for name, document in documents.items()}
    last = list(documents.values())[-1]
    return {"version": last["version"], "memory": last["memory"], "cases": cases}


def compare(arguments: argparse.Namespace) -> dict[str, Any]:
    """All sides by turns, then a line a case."""
    path = locate(arguments.model).path
    names = ["prefill", "first", *(f"clients {clients}" for clients in arguments.clients)]
    numbers = {
        "--threads": arguments.threads, "--rounds": arguments.rounds, "--prefill-tokens": arguments.prefill_tokens,
        "--prompt-tokens": arguments.prompt_tokens, "--answer-tokens": arguments.answer_tokens,
    }  # fmt: skip
    common = [word for name, number in numbers.items() for word in (name, str(number))]
    common += ["--clients", *map(str, arguments.clients)]
    ours = [sys.executable, __file__, "--alone", "--model", arguments.model, "--quantize", arguments.quantize, *common]
    theirs = [sys.executable, str(ROOT / "bench/peers/generate_peer.py"), str(path), "--json", *common]
    sides: dict[str, Callable[[], dict[str, Any]]] = {"seamount": lambda: last_line(ours)}
    python, gguf = arguments.peers / "llama" / "bin" / "python", arguments.gguf or path
    if python.exists() and gguf.suffix == ".gguf":
        sides["llama.cpp"] = lambda: run_llama(arguments, python, gguf)
    else:
        print("llama.cpp is left out: `make peers` builds it, and --gguf names its model", file=sys.stderr)
    sides["transformers"] = lambda: last_line(theirs)
    runs: dict[str, list[dict[str, Any]]] = {name: [] for name in sides}
    for _ in range(arguments.turns):
        for name, run in sides.items():
            print(f"measuring {name}", file=sys.stderr, flush=True)
            runs[name].append(run())
    found = {name: together(each, names) for name, each in runs.items()}
    rates = {side: {name: found[side]["cases"][name]["tokens_per_second"] for name in names} for side in found}
    others = [side for side in found if side != "seamount"]
    ratios = {side: {name: rates["seamount"][name] / rates[side][name] for name in names} for side in others}
    print(f"{'tokens/s':<12}{'seamount':>10}" + "".join(f"{side:>15}{'ratio':>8}" for side in others))
    for name in names:
        line = f"{name:<12}{rates['seamount'][name]:10.1f}"
        print(line + "".join(f"{rates[side][name]:15.1f}{ratios[side][name]:8.2f}" for side in others))
    last = runs["seamount"][-1]
    document = {key: last[key] for key in ("processor", "limits", "versions", "commit")}
    document["versions"] |= {side: runs[side][-1]["version"] for side in others}
    document |= {
        "bench": "peers", "model": arguments.model, "quantize": arguments.quantize, "options": numbers,
        "first_token_seconds": {side: arguments.prompt_tokens / rates[side]["first"] for side in found},
    }  # fmt: skip
    return document | {"sides": found, "ratios": ratios}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="embedded", help="a directory, a GGUF file, or embedded")
    parser.add_argument("--quantize", default="int4", help='how Seamount packs it; "" leaves it as it is')
    parser.add_argument("--gguf", type=Path, help="llama.cpp's model; by default the same file")
    parser.add_argument("--peers", type=Path, default=ROOT / ".peers", help="where `make peers` has put them")
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 4, 16])
    parser.add_argument("--prefill-tokens", type=int, default=512)
    parser.add_argument("--prompt-tokens", type=int, default=128)
    parser.add_argument("--answer-tokens", type=int, default=32)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--turns", type=int, default=2)
    parser.add_argument("--alone", action="store_true", help="Seamount's side only, as JSON")
    arguments = parser.parse_args()
    numba.set_num_threads(arguments.threads)
    torch.set_num_threads(arguments.threads)
    print(json.dumps(run_ours(arguments) if arguments.alone else compare(arguments)), flush=True)


if __name__ == "__main__":
    main()
