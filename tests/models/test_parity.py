"""Every family against transformers at toy size: logits, gradients, and checkpoints in both directions."""

from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy
from toys import CONFIGS, DEEPSEEK, V2, published, save_published

import seamount

TOLERANCE = 1e-4  # of the logits' standard deviation


def tokens_of(config: dict, T: int = 41) -> Tensor:
    return torch.randint(config["vocab_size"], (2, T), generator=torch.Generator().manual_seed(1))


def assert_close(ours: Tensor, theirs: Tensor) -> None:
    assert torch.isfinite(theirs).all()
    assert theirs.std() > 0.1
    assert (ours - theirs).abs().max() <= TOLERANCE * theirs.std()


@pytest.mark.parametrize("name", CONFIGS)
def test_logits_and_gradients_are_those_of_transformers(name: str, tmp_path: Path) -> None:
    config = CONFIGS[name]
    theirs = published(config)
    save_published(theirs, config, tmp_path / "weights")
    ours = seamount.load(tmp_path / "weights")
    tokens_BT = tokens_of(config)
    logits = {}
    for key, model, call in (("ours", ours, ours.logits), ("theirs", theirs, lambda tokens: theirs(tokens).logits)):
        logits[key] = call(tokens_BT)
        loss = cross_entropy(logits[key][:, :-1].flatten(0, 1), tokens_BT[:, 1:].flatten())
        model.zero_grad()
        loss.backward()
    assert_close(logits["ours"], logits["theirs"])

    # A checkpoint of their gradients, loaded like any other, puts each gradient where ours is.
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter.copy_(parameter.grad if parameter.grad is not None else torch.zeros_like(parameter))
    save_published(theirs, config, tmp_path / "gradients")
    expected = dict(seamount.load(tmp_path / "gradients").named_parameters())
    for key, parameter in ours.named_parameters():
        if parameter.requires_grad:
            error = (parameter.grad - expected[key]).abs().max()
            assert error <= 1e-4 * expected[key].abs().max().clamp(min=1e-3), key


@pytest.mark.parametrize("name", [name for name in CONFIGS if not name.startswith("deepseek")])
def test_transformers_reads_what_we_save(name: str, tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM

    config = CONFIGS[name]
    save_published(published(config), config, tmp_path / "theirs")
    ours = seamount.load(tmp_path / "theirs")
    seamount.save(ours, tmp_path / "ours")
    theirs = AutoModelForCausalLM.from_pretrained(tmp_path / "ours", dtype=torch.float32).eval()
    tokens_BT = tokens_of(config)
    with torch.no_grad():
        assert_close(ours.logits(tokens_BT), theirs(tokens_BT).logits)


@pytest.mark.parametrize("name", ["llama multi-head, tied", "qwen3", "v2 lite", "v3"])
def test_we_read_what_transformers_saves(name: str, tmp_path: Path) -> None:
    theirs = published(CONFIGS[name])
    theirs.save_pretrained(tmp_path)
    ours = seamount.load(tmp_path)
    tokens_BT = tokens_of(CONFIGS[name])
    with torch.no_grad():
        assert_close(ours.logits(tokens_BT), theirs(tokens_BT).logits)


@pytest.mark.parametrize("config", [V2 | {"norm_topk_prob": True, "routed_scaling_factor": 7.0}, DEEPSEEK])
def test_router_weights_by_the_formula(config: dict, tmp_path: Path) -> None:
    """transformers ignores V2's norm_topk_prob, so the published rule is written out here."""
    config = config | {"norm_topk_prob": True}
    save_published(published(config), config, tmp_path)
    router = seamount.load(tmp_path).layers[1].mlp.gate
    x_TD = torch.randn(11, config["hidden_size"])
    expert_TK, weight_TK = router(x_TD)
    score_TE = (x_TD @ router.weight.T).softmax(-1)
    best = score_TE.sort(dim=-1, descending=True)
    assert torch.equal(expert_TK, best.indices[:, : config["num_experts_per_tok"]])
    kept = best.values[:, : config["num_experts_per_tok"]]
    # Normalised weights sum to one: the scaling factor is left out.
    torch.testing.assert_close(weight_TK, kept / kept.sum(-1, keepdim=True))
