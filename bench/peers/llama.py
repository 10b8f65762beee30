"""llama.cpp on one GGUF file, through the functions of its C interface.

    .peers/llama/bin/python bench/peers/llama.py --model FILE.gguf [--threads 2] [--cases prefill decode ...]

Runs in the environment that `make peers` builds, which holds llama-cpp-python and neither torch nor Seamount. Tokens
are random, the logits of every decoded token are computed and none are looked at while time is taken.

prefill   --prefill-tokens in one micro-batch, logits of the last
decode    one sequence, a token at a time, after --prompt-tokens
context   the same after --context-tokens; only a part of them is computed and its cache rows are repeated, since
          computing them all takes minutes: the time of a step depends on how many rows there are, not on what they hold
streams   --streams sequences, a token each at a time; tokens per second are the sum
answers   the same with their prompts: --stream-steps tokens each, the first of which comes with the prompt

Every case is tried with flash attention and without, and measured with the faster. The last line is one JSON document.
"""

import argparse
import ctypes
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import llama_cpp as api
import numpy as np
from cache_rows import repeated
from measuring import fastest, finish, memory, report, summary

_FLASH = {"on": api.LLAMA_FLASH_ATTN_TYPE_ENABLED, "off": api.LLAMA_FLASH_ATTN_TYPE_DISABLED}
_MICRO_BATCH = 512


class Entry(NamedTuple):
    """One token of a batch."""

    position: int
    sequence: int = 0
    is_wanted: bool = True


class Context:
    """A context with its own cache, freed on leaving the block."""

    def __init__(self, model: Any, threads: int, flash: str, tokens: int, sequences: int = 1) -> None:
        self.vocabulary = api.llama_vocab_n_tokens(api.llama_model_get_vocab(model))
        self._random = np.random.default_rng(0)
        settings = api.llama_context_default_params()
        settings.n_ctx = sequences * tokens
        settings.n_batch = settings.n_ubatch = _MICRO_BATCH
        settings.n_seq_max = sequences
        settings.n_threads = settings.n_threads_batch = threads
        settings.flash_attn_type = _FLASH[flash]
        self._context = api.llama_init_from_model(model, settings)
        if not self._context:
            raise RuntimeError(f"llama.cpp gives no context of {tokens} tokens with flash attention {flash}")
        self._batch = api.llama_batch_init(_MICRO_BATCH, 0, 1)

    def __enter__(self) -> "Context":
        return self

    def __exit__(self, *_: object) -> None:
        api.llama_batch_free(self._batch)
        api.llama_free(self._context)

    def clear(self) -> None:
        """Forget every token."""
        api.llama_memory_clear(api.llama_get_memory(self._context), False)

    def decode(self, entries: list[Entry]) -> None:
        """Random tokens at those places, in one batch; waits for the result."""
        batch = self._batch
        batch.n_tokens = len(entries)
        for number, token in enumerate(self._random.integers(0, self.vocabulary, len(entries)).tolist()):
            entry = entries[number]
            batch.token[number] = token
            batch.pos[number] = entry.position
            batch.n_seq_id[number] = 1
            batch.seq_id[number][0] = entry.sequence
            batch.logits[number] = entry.is_wanted
        status = api.llama_decode(self._context, batch)
        if status:
            raise RuntimeError(f"llama_decode answers {status} for {len(entries)} tokens")
        api.llama_synchronize(self._context)

    def prefill(self, count: int, sequence: int = 0, start: int = 0) -> None:
        """Tokens of one sequence; the last one's logits."""
        for first in range(start, start + count, _MICRO_BATCH):
            last = min(first + _MICRO_BATCH, start + count) - 1
            self.decode([Entry(position, sequence, position == last) for position in range(first, last + 1)])

    def prompts(self, count: int, sequences: int) -> None:
        """Prompts of all sequences, in micro-batches that hold several; the last token's logits of each."""
        entries = [Entry(place, number, place == count - 1) for number in range(sequences) for place in range(count)]
        for first in range(0, len(entries), _MICRO_BATCH):
            self.decode(entries[first : first + _MICRO_BATCH])

    def fill(self, count: int, computed: int) -> None:
        """The first sequence's cache as after `count` tokens, the rows of `computed` ones repeated."""
        self.prefill(min(computed, count))
        if computed < count:
            size = api.llama_state_seq_get_size(self._context, 0)
            state = (ctypes.c_uint8 * size)()
            assert api.llama_state_seq_get_data(self._context, state, size, 0) == size, "the state has the size it said"
            longer = repeated(bytes(state), count)
            buffer = (ctypes.c_uint8 * len(longer)).from_buffer(longer)
            if not api.llama_state_seq_set_data(self._context, buffer, len(longer), 0):
                raise RuntimeError(f"llama.cpp does not take a cache of {count} repeated rows")
        last = api.llama_memory_seq_pos_max(api.llama_get_memory(self._context), 0)
        assert last == count - 1, f"the cache ends at position {last}, not {count - 1}"

    def forget(self, position: int) -> None:
        """Drop the first sequence's tokens from `position` on."""
        assert api.llama_memory_seq_rm(api.llama_get_memory(self._context), 0, position, -1), "the end can be dropped"

    def check(self) -> None:
        """Raise if the last token's logits are not all finite, or all equal."""
        logits = np.ctypeslib.as_array(api.llama_get_logits_ith(self._context, -1), (self.vocabulary,))
        if not np.isfinite(logits).all() or logits.min() == logits.max():
            raise RuntimeError("llama.cpp computes logits that are not finite or all equal")


def prefill(context: Context, arguments: argparse.Namespace) -> Callable[[], float]:
    """Seconds for the prompt."""

    def measure() -> float:
        context.clear()
        return _seconds(lambda: context.prefill(arguments.prefill_tokens))

    return measure


def decode(context: Context, arguments: argparse.Namespace) -> Callable[[], float]:
    """Seconds for all steps of one sequence."""

    def measure() -> float:
        context.clear()
        context.prefill(arguments.prompt_tokens)
        return _seconds(lambda: _steps(context, arguments.prompt_tokens, arguments.decode_tokens, 1))

    return measure


def long_context(context: Context, arguments: argparse.Namespace) -> Callable[[], float]:
    """Seconds for all steps of one sequence after a filled cache."""
    context.fill(arguments.context_tokens, arguments.context_computed)

    def measure() -> float:
        context.forget(arguments.context_tokens)
        return _seconds(lambda: _steps(context, arguments.context_tokens, arguments.context_steps, 1))

    return measure


def streams(context: Context, arguments: argparse.Namespace) -> Callable[[], float]:
    """Seconds for all steps of all sequences."""

    def measure() -> float:
        context.clear()
        for sequence in range(arguments.streams):
            context.prefill(arguments.prompt_tokens, sequence)
        return _seconds(lambda: _steps(context, arguments.prompt_tokens, arguments.stream_steps, arguments.streams))

    return measure


def answers(context: Context, arguments: argparse.Namespace) -> Callable[[], float]:
    """Seconds for all prompts and all answers."""

    def work() -> None:
        context.prompts(arguments.prompt_tokens, arguments.streams)
        _steps(context, arguments.prompt_tokens, arguments.stream_steps - 1, arguments.streams)

    def measure() -> float:
        context.clear()
        return _seconds(work)

    return measure


def _steps(context: Context, start: int, count: int, sequences: int) -> None:
    for position in range(start, start + count):
        context.decode([Entry(position, sequence) for sequence in range(sequences)])


def _seconds(work: Callable[[], None]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


Case = tuple[Callable[[Context, argparse.Namespace], Callable[[], float]], int, int, int]


def cases(arguments: argparse.Namespace) -> dict[str, Case]:
    """What measures each case, the tokens of a sequence, the sequences, and the tokens that are timed."""
    prompt, steps, long = arguments.prompt_tokens, arguments.decode_tokens, arguments.context_steps
    count, each = arguments.streams, arguments.stream_steps
    return {
        "prefill": (prefill, arguments.prefill_tokens, 1, arguments.prefill_tokens),
        "decode": (decode, prompt + steps, 1, steps),
        "context": (long_context, arguments.context_tokens + long, 1, long),
        "streams": (streams, prompt + each, count, count * each),
        "answers": (answers, prompt + each, count, count * each),
    }


def measured(model: Any, case: Case, arguments: argparse.Namespace) -> dict[str, Any]:
    """Tokens per second of one case: a trial of each setting, then the rounds with the faster."""
    make, length, sequences, tokens = case

    def trial(flash: str) -> float:
        with Context(model, arguments.threads, flash, length, sequences) as context:
            return tokens / make(context, arguments)()

    settings = ("on", "off") if arguments.flash == "faster" else (arguments.flash,)
    flash, trials = fastest(settings, trial)
    with Context(model, arguments.threads, flash, length, sequences) as context:
        measure = make(context, arguments)
        rates = [tokens / measure() for _ in range(arguments.rounds)]
        context.check()
    return summary(rates, tokens) | {"sequences": sequences, "flash_attention": flash, "trials": trials}


def described(case: dict[str, Any], name: str, arguments: argparse.Namespace) -> dict[str, Any]:
    """The case with what its cache held."""
    if name != "context":
        return case
    computed = min(arguments.context_computed, arguments.context_tokens)
    filled = f"{computed} computed tokens"
    if computed < arguments.context_tokens:
        filled += f"; their cache rows repeated to {arguments.context_tokens}"
    return case | {"context_tokens": arguments.context_tokens, "filled_with": filled}


class Log:
    """llama.cpp's own lines; it keeps a pointer into this object, which must live as long as the process."""

    def __init__(self) -> None:
        self._parts: list[str] = []
        self._callback = api.llama_log_callback(self._take)
        api.llama_log_set(self._callback, ctypes.c_void_p(0))

    def _take(self, level: int, text: bytes, data: object) -> None:
        self._parts.append(text.decode(errors="replace"))

    def lines(self) -> list[str]:
        """All of them so far."""
        return [line.strip() for line in "".join(self._parts).splitlines()]


def load(path: Path, log: Log, *, is_mapped: bool) -> Any:
    """The model. Errors: RuntimeError with llama.cpp's last lines."""
    api.llama_backend_init()
    settings = api.llama_model_default_params()
    settings.load_mode = api.LLAMA_LOAD_MODE_MMAP if is_mapped else api.LLAMA_LOAD_MODE_NONE
    model = api.llama_model_load_from_file(str(path).encode(), settings)
    if not model:
        raise RuntimeError(f"llama.cpp does not load {path}: {' / '.join(log.lines()[-3:])}")
    return model


def parsed() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--cases", nargs="+", choices=("prefill", "decode", "context", "streams", "answers"))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--flash", choices=("faster", "on", "off"), default="faster", help="flash attention")
    parser.add_argument("--prefill-tokens", type=int, default=512)
    parser.add_argument("--prompt-tokens", type=int, default=8)
    parser.add_argument("--decode-tokens", type=int, default=64)
    parser.add_argument("--context-tokens", type=int, default=4096)
    parser.add_argument("--context-computed", type=int, default=512)
    parser.add_argument("--context-steps", type=int, default=16)
    parser.add_argument("--streams", type=int, default=16)
    parser.add_argument("--stream-steps", type=int, default=32)
    parser.add_argument("--no-mmap", dest="mmap", action="store_false", help="read the file instead of mapping it")
    parser.add_argument("--json", action="store_true", help="print the last line alone")
    return parser.parse_args()


def main() -> None:
    arguments, log = parsed(), Log()
    started = time.perf_counter()
    model = load(arguments.model, log, is_mapped=arguments.mmap)
    load_seconds, after_load, found = time.perf_counter() - started, memory(), {}
    for name, case in cases(arguments).items():
        if arguments.cases and name not in arguments.cases:
            continue
        found[name] = described(measured(model, case, arguments), name, arguments)
        report(name, found[name], is_quiet=arguments.json)
    document = {
        "peer": "llama.cpp",
        "version": f"llama-cpp-python {api.__version__}",
        "system": api.llama_print_system_info().decode(),
        "threads": arguments.threads,
        "file_bytes": arguments.model.stat().st_size,
        "memory_mapped": arguments.mmap,
        "load_seconds": load_seconds,
        "weight_buffers": [line for line in log.lines() if "model buffer size" in line],
        "after_load": after_load,
        "memory": memory(),
        "cases": found,
    }
    finish(document)


if __name__ == "__main__":
    main()
