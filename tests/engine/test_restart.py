"""Rows on disk: after a restart, a kill or damage an answer is that of a cold run, bit for bit."""

from __future__ import annotations

import random
import subprocess
import sys
from pathlib import Path

import pytest
from tiny_models import KINDS, checkpoint, load, pool_engine
from workloads import Answer, Ask, alone

from seamount.engine import Engine, SamplingParams
from seamount.models import Model

PARAMS = SamplingParams(max_tokens=40, seed=4, logprobs=2, ignore_eos=True)
FIRST = Ask(tuple(3 * i % 260 for i in range(150)), PARAMS, 0, None)


def next_turn(answer: Answer) -> Ask:
    """What a chat asks next."""
    return Ask((*FIRST.prompt, *(token for _, token, _, _ in answer[0][0]), 1, 2, 3), PARAMS, 0, None)


def cold(model: Model) -> Engine:
    """An engine without a disk."""
    return pool_engine(model, 40)


@pytest.mark.parametrize("kind", KINDS)
def test_a_restart_changes_no_answer_and_keeps_the_rows(tmp_path: Path, kind: str) -> None:
    shape, format = kind.split()
    directory = checkpoint(tmp_path / "model", shape)
    with pool_engine(load(directory, format), 40, cache_directory=tmp_path / "pages") as engine:
        ask = next_turn(alone(engine, FIRST))
    fresh = load(directory, format)
    with pool_engine(fresh, 40, cache_directory=tmp_path / "pages") as again:
        assert alone(again, ask) == alone(cold(fresh), ask)
        # Two pages of the prompt, and one that decode finished.
        assert again.metrics.disk_hit_tokens == again.metrics.hit_tokens == 128
        assert alone(again, FIRST) == alone(cold(fresh), FIRST)


def test_decoded_rows_come_back_from_disk(tmp_path: Path) -> None:
    model = load(checkpoint(tmp_path / "model", "mla-moe"), "int8")
    long = SamplingParams(max_tokens=140, seed=4, logprobs=2, ignore_eos=True)
    with pool_engine(model, 40, cache_directory=tmp_path / "pages", drafts="ngram") as engine:
        ask = next_turn(alone(engine, Ask(FIRST.prompt, long, 0, None)))
    with pool_engine(model, 40, cache_directory=tmp_path / "pages") as again:
        assert alone(again, ask) == alone(cold(model), ask)
        assert again.metrics.disk_hit_tokens == 256


def test_damaged_pages_are_computed_again(tmp_path: Path) -> None:
    model = load(checkpoint(tmp_path / "model", "mla"), "int8")
    expected = alone(cold(model), FIRST)
    chance = random.Random(1)
    for number in range(6):
        with pool_engine(model, 40, cache_directory=tmp_path / "pages") as engine:
            assert alone(engine, FIRST) == expected
            if number:
                assert engine.metrics.disk_hit_tokens < 128
        files = sorted((tmp_path / "pages").rglob("*.page"))
        assert len(files) >= 2
        for path in files:
            content = bytearray(path.read_bytes())
            if number == 5:
                del content[-1:]
            else:
                content[chance.randrange(len(content))] ^= 1 << chance.randrange(8)
            path.write_bytes(content)


def test_models_share_nothing(tmp_path: Path) -> None:
    directory = checkpoint(tmp_path / "model", "gqa")
    other = checkpoint(tmp_path / "other", "gqa", seed=2)
    for model in (
        load(directory, "bfloat16"),
        load(directory, "int8"),
        load(directory, "float32"),
        load(other, "int8"),
        load(other, "bfloat16"),
    ):
        with pool_engine(model, 40, cache_directory=tmp_path / "pages") as engine:
            assert alone(engine, FIRST) == alone(cold(model), FIRST)
            assert engine.metrics.hit_tokens == 0


CHILD = """
import sys
from pathlib import Path
sys.path.insert(0, {tests!r})
from tiny_models import load, pool_engine
from test_restart import FIRST, PARAMS
engine = pool_engine(load(Path({directory!r}), "int8"), 8, cache_directory={pages!r})
number = 0
while True:
    for prompt in (list(FIRST.prompt), [number % 260] * 150):
        engine.generate([prompt], PARAMS)
    number += 1
    print(number, flush=True)
"""


def test_a_killed_process_leaves_a_directory_that_can_be_used(tmp_path: Path) -> None:
    directory, pages = checkpoint(tmp_path / "model", "mla-moe"), tmp_path / "pages"
    code = CHILD.format(tests=str(Path(__file__).parent), directory=str(directory), pages=str(pages))
    model = load(directory, "int8")
    asks = [FIRST, *(Ask((number,) * 150, PARAMS, 0, None) for number in range(10))]
    expected = [alone(cold(model), ask) for ask in asks]
    for rounds in (3, 10):
        child = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
        assert child.stdout is not None
        for _ in range(rounds):
            assert child.stdout.readline(), "the child ended by itself"
        child.kill()
        child.wait()
        child.stdout.close()
        with pool_engine(model, 8, cache_directory=pages) as engine:
            assert [alone(engine, ask) for ask in asks] == expected
            assert engine.metrics.disk_hit_tokens >= 128
            assert engine._tier is not None
            assert engine._tier.statistics.corrupt == 0
            engine.check()
