"""Published sizes and cache figures, from the presets."""

import pytest
import torch

from seamount.errors import ModelNotFound
from seamount.models import cost, load_spec, presets

# Billions: all parameters, and per token without the input embedding's look-up; totals as published, active ones to
# one digit more than V2-Lite's 2.4, V2's 21 and V3's 37.
PUBLISHED = {
    "deepseek-llm-67b": (67.4, 66.6),
    "deepseek-moe-16b": (16.4, 2.62),
    "deepseek-v2-lite": (15.7, 2.45),
    "deepseek-v2": (235.7, 20.9),
    "deepseek-v3": (671.0, 36.6),
    "r1-distill-llama-8b": (8.03, 7.5),
    "r1-distill-qwen-1.5b": (1.78, 1.54),
}


@pytest.mark.parametrize("name", sorted(PUBLISHED))
def test_published_sizes(name):
    counted = cost.parameters(load_spec(name))
    total, active = PUBLISHED[name]
    assert counted.total / 1e9 == pytest.approx(total, rel=0.005)
    assert counted.active / 1e9 == pytest.approx(active, rel=0.005)


def test_embeddings_are_counted_as_stated():
    lite = cost.parameters(load_spec("deepseek-v2-lite"))
    one_matrix = 102400 * 2048
    assert lite.active_with_embedding - lite.active == one_matrix
    assert lite.active - lite.active_in_layers == one_matrix
    assert lite.active_with_embedding / 1e9 == pytest.approx(2.66, abs=0.005)


def test_mtp_is_kept_apart():
    v3 = cost.parameters(load_spec("deepseek-v3"))
    assert v3.mtp / 1e9 == pytest.approx(11.6, abs=0.05)
    assert cost.parameters(load_spec("deepseek-v2")).mtp == 0


def test_parts_of_a_tiny_model_by_hand():
    counted = cost.parameters(load_spec("tiny-v3"))
    D, F, M, E, K, layers, dense = 64, 160, 32, 16, 4, 4, 2
    assert counted.total_by_part["embedding"] == counted.total_by_part["head"] == 512 * D
    assert counted.total_by_part["dense_feed_forward"] == dense * 3 * D * F
    assert counted.total_by_part["routed_experts"] == (layers - dense) * E * 3 * D * M
    assert counted.active_by_part["routed_experts"] == (layers - dense) * K * 3 * D * M
    assert counted.total_by_part["shared_experts"] == (layers - dense) * 3 * D * M
    assert counted.total_by_part["router"] == (layers - dense) * (E * D + E)
    assert counted.total_by_part["norms"] == layers * (2 * D + 48 + 32) + D


def test_cache_of_v2():
    v2 = load_spec("deepseek-v2")
    assert cost.kv_numbers_per_token(v2) == 34_560
    assert cost.kv_bytes_per_token(v2, torch.bfloat16) == 69_120
    assert cost.mha_kv_numbers_per_token(v2) == 60 * 128 * 256
    assert cost.kv_ratio(v2) == pytest.approx(0.0176, abs=5e-5)
    assert cost.kv_reduction_from_67b(v2) == pytest.approx(0.933, abs=5e-4)


def test_67b_is_the_point_of_comparison():
    assert cost.kv_numbers_per_token(load_spec("deepseek-llm-67b")) == cost.DEEPSEEK_67B_KV_NUMBERS == 194_560


@pytest.mark.parametrize("name", presets.names())
def test_every_preset_is_a_shape(name):
    spec = load_spec(name)
    assert cost.parameters(spec).active <= cost.parameters(spec).total
    assert 0 < cost.kv_ratio(spec) <= 1


def test_unknown_preset_is_named():
    with pytest.raises(ModelNotFound, match=r"deepseek-v4.*deepseek-v3"):
        presets.config("deepseek-v4")
