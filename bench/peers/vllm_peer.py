"""vLLM's CPU build in bfloat16 on a checkpoint directory.

    .peers/vllm/bin/python bench/peers/vllm_peer.py DIRECTORY [--load-format dummy] [--threads 2]

Runs in the environment that `make peers` builds for it. With `--load-format dummy` the directory needs no more than a
config.json, and the weights are vLLM's own random ones. Tokens are random; a step's time is the difference between
generating many tokens and one. The last line is one JSON document.
"""

import argparse
import os
import random
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

from measuring import finish, memory, report, summary

_CACHE_GIB = 1


def start(arguments: argparse.Namespace) -> Any:
    """The engine, inside this process so that its memory is this process's."""
    os.environ |= {
        "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
        "VLLM_CPU_KVCACHE_SPACE": str(_CACHE_GIB),
        "VLLM_CPU_OMP_THREADS_BIND": f"0-{arguments.threads - 1}" if arguments.threads > 1 else "0",
        "VLLM_CPU_NUM_OF_RESERVED_CPU": "0",
        "VLLM_NO_USAGE_STATS": "1",
        "VLLM_LOGGING_LEVEL": "WARNING",
        "HF_HUB_OFFLINE": "1",
    }
    # The variables above are read while vLLM is imported.
    from vllm import LLM

    return LLM(
        str(arguments.directory),
        dtype="bfloat16",
        load_format=arguments.load_format,
        skip_tokenizer_init=True,
        max_model_len=max(arguments.prefill_tokens, arguments.prompt_tokens + arguments.decode_tokens) + 64,
        max_num_seqs=arguments.streams,
        max_num_batched_tokens=max(arguments.prefill_tokens, 512) + 64,
        enable_prefix_caching=False,
        disable_log_stats=True,
    )


def generate(engine: Any, vocabulary: int, sequences: int, prompt: int, count: int) -> float:
    """Seconds until all sequences have `count` new tokens."""
    from vllm import SamplingParams

    prompts = [{"prompt_token_ids": [random.randrange(vocabulary) for _ in range(prompt)]} for _ in range(sequences)]
    sampling = SamplingParams(temperature=0.0, max_tokens=count, min_tokens=count, ignore_eos=True, detokenize=False)
    started = time.perf_counter()
    outputs = engine.generate(prompts, sampling, use_tqdm=False)
    seconds = time.perf_counter() - started
    assert all(len(output.outputs[0].token_ids) == count for output in outputs), "every sequence has its tokens"
    return seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("directory", type=Path)
    parser.add_argument("--load-format", choices=("auto", "dummy"), default="auto")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--cases", nargs="+", choices=("prefill", "decode", "streams"))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--prefill-tokens", type=int, default=512)
    parser.add_argument("--prompt-tokens", type=int, default=8)
    parser.add_argument("--decode-tokens", type=int, default=16)
    parser.add_argument("--streams", type=int, default=16)
    parser.add_argument("--stream-steps", type=int, default=8)
    parser.add_argument("--json", action="store_true", help="print the last line alone")
    arguments = parser.parse_args()
    engine = start(arguments)
    vocabulary = engine.llm_engine.model_config.get_vocab_size()
    prompt, steps = arguments.prompt_tokens, arguments.decode_tokens
    count, each = arguments.streams, arguments.stream_steps

    def decode(sequences: int, steps: int) -> float:
        first = generate(engine, vocabulary, sequences, prompt, 1)
        return generate(engine, vocabulary, sequences, prompt, 1 + steps) - first

    cases: dict[str, tuple[Callable[[], float], int]] = {
        "prefill": (
            lambda: generate(engine, vocabulary, 1, arguments.prefill_tokens, 1),
            arguments.prefill_tokens,
        ),
        "decode": (lambda: decode(1, steps), steps),
        "streams": (lambda: decode(count, each), count * each),
    }
    found = {}
    for name, (case, tokens) in cases.items():
        if not arguments.cases or name in arguments.cases:
            case()
            found[name] = summary([tokens / case() for _ in range(arguments.rounds)], tokens)
            report(name, found[name], is_quiet=arguments.json)
    finish(
        {
            "peer": "vllm-cpu",
            "version": version("vllm-cpu"),
            "torch": version("torch"),
            "dtype": "bfloat16",
            "load_format": arguments.load_format,
            "threads": arguments.threads,
            "cache_bytes": _CACHE_GIB << 30,
            "memory": memory(),
            "cases": found,
        }
    )


if __name__ == "__main__":
    main()
