"""The memory that a loaded engine takes, as the system counts it, stays below the budget that it was given."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from toy_model import toy_tokenizer

from seamount.models import initialise

WIDER = {"vocab_size": 8192, "num_hidden_layers": 8}
WIDER_LATENT = {**WIDER, "kv_lora_rank": 320}
MIB = 1 << 20

CHILD = """
import json, sys
from pathlib import Path
sys.path.insert(0, {tests!r})
from test_memory_budget import load_and_measure
print(json.dumps(load_and_measure(**json.loads(sys.argv[1]))))
"""


def status(field: str) -> int:
    """A number of bytes that the system keeps about this process."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{field}:"))


def load_and_measure(directory: str, memory: int, options: dict, load: dict) -> dict[str, int]:
    """Peak growth of this process under load, from the moment before the engine is made."""
    import seamount
    from seamount.engine import Engine, SamplingParams

    model = seamount.load(directory, **load)

    def work(engine: Engine, streams: int, length: int) -> None:
        for number in range(streams):
            engine.add(
                [(number * 7 + i * 3) % 8000 for i in range(length)],
                SamplingParams(
                    max_tokens=24,
                    seed=number,
                    n=(1, 1, 9)[number % 3],
                    logprobs=(None, 20)[number % 2],
                    prompt_logprobs=(None, None, None, 20)[number % 4],
                    repetition_penalty=1.1,
                    ignore_eos=True,
                ),
                # As a server does: what was handed out is its caller's, and counts no more.
                lambda item: None,
            )
        while engine.has_work:
            engine.step()

    # What is compiled or imported with the first step is not the engine's.
    warm = Engine(model, memory=memory, max_running=2, step_tokens=4, drafts="ngram")
    work(warm, 4, 9)
    warm.close()
    del warm
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # the peak begins anew
    before = status("VmRSS")
    with Engine(model, memory=memory, **options) as engine:
        work(engine, 24, 500)
        pages = engine.metrics.pages * engine.metrics.page_bytes
        return {
            "growth": status("VmHWM") - before,
            "pages": pages,
            "preemptions": engine.metrics.preemptions,
            "evictions": engine.metrics.evictions,
        }


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="only Linux tells a process's peak")
@pytest.mark.parametrize(
    ("preset", "load", "disk"),
    [
        ("tiny-llama", {"quantize": "int8"}, False),
        ("tiny-v2-lite", {"quantize": "int8"}, True),
        ("tiny-llama", {"dtype": "bfloat16"}, False),
    ],
)
def test_the_peak_stays_below_the_budget(tmp_path: Path, preset: str, load: dict, disk: bool) -> None:
    initialise(preset, tmp_path / "model", seed=1, overrides=WIDER_LATENT if preset == "tiny-v2-lite" else WIDER)
    toy_tokenizer(tmp_path / "model", more=7800)
    memory = 64 * MIB
    options = {"drafts": "ngram", "cache_directory": str(tmp_path / "pages") if disk else None}
    arguments = {"directory": str(tmp_path / "model"), "memory": memory, "options": options, "load": load}
    code = CHILD.format(tests=str(Path(__file__).parent))
    result = subprocess.run(
        [sys.executable, "-c", code, json.dumps(arguments)], capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
    measured = json.loads(result.stdout.splitlines()[-1])
    # Most pages were in use, so that this is about what the engine takes at most.
    assert measured["pages"] / 2 < measured["growth"] < memory, measured
