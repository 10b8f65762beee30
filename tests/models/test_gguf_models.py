"""GGUF files of the llama and deepseek2 architectures, written with the gguf package, against the same weights in
Hugging Face layout."""

from dataclasses import replace
from pathlib import Path

import gguf
import numpy as np
import pytest
import torch
from toys import LLAMA, LLAMA3, V2, V3, YARN, published, save_published

import seamount
from seamount.errors import UnknownModelType, UnsupportedField
from seamount.models import Model, load_spec
from seamount.models.spec import MLASpec

V2_YARN = V2 | {"rope_scaling": YARN | {"mscale": 0.707, "mscale_all_dim": 0.707}}


def write(
    path: Path, architecture: str, metadata: dict, tensors: dict[str, torch.Tensor], types: dict[str, str] | None = None
) -> Path:
    writer = gguf.GGUFWriter(path, architecture)
    for key, value in metadata.items():
        kind = {bool: writer.add_bool, int: writer.add_uint32, float: writer.add_float32, str: writer.add_string}
        kind[type(value)](f"{architecture}.{key}", value)
    for name, tensor in tensors.items():
        array = np.ascontiguousarray(tensor.float().numpy())
        if types and name in types:
            kind = gguf.GGMLQuantizationType[types[name]]
            writer.add_tensor(name, gguf.quants.quantize(array, kind), raw_dtype=kind)
        else:
            writer.add_tensor(name, array)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def common(config: dict) -> dict:
    return {
        "block_count": config["num_hidden_layers"],
        "context_length": config["max_position_embeddings"],
        "embedding_length": config["hidden_size"],
        "feed_forward_length": config["intermediate_size"],
        "attention.head_count": config["num_attention_heads"],
        "attention.layer_norm_rms_epsilon": config["rms_norm_eps"],
        "rope.freq_base": config.get("rope_theta", 10000.0),
    }


def top(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {
        "token_embd.weight": state["model.embed_tokens.weight"],
        "output_norm.weight": state["model.norm.weight"],
        "output.weight": state["lm_head.weight"],
    }


def paired(weight: torch.Tensor, heads: int) -> torch.Tensor:
    """llama.cpp's order of a head's rows: the two channels of a rotary pair side by side."""
    return weight.view(heads, 2, -1, weight.shape[-1]).swapaxes(1, 2).reshape(weight.shape)


def llama_tensors(state: dict[str, torch.Tensor], config: dict) -> dict[str, torch.Tensor]:
    tensors = top(state)
    for number in range(config["num_hidden_layers"]):
        theirs, ours = f"model.layers.{number}.", f"blk.{number}."
        tensors[f"{ours}attn_norm.weight"] = state[f"{theirs}input_layernorm.weight"]
        tensors[f"{ours}ffn_norm.weight"] = state[f"{theirs}post_attention_layernorm.weight"]
        attention = f"{theirs}self_attn."
        tensors[f"{ours}attn_q.weight"] = paired(state[f"{attention}q_proj.weight"], config["num_attention_heads"])
        tensors[f"{ours}attn_k.weight"] = paired(state[f"{attention}k_proj.weight"], config["num_key_value_heads"])
        tensors[f"{ours}attn_v.weight"] = state[f"{attention}v_proj.weight"]
        tensors[f"{ours}attn_output.weight"] = state[f"{attention}o_proj.weight"]
        for name in ("gate", "up", "down"):
            tensors[f"{ours}ffn_{name}.weight"] = state[f"{theirs}mlp.{name}_proj.weight"]
    return tensors


def deepseek2_tensors(state: dict[str, torch.Tensor], config: dict, *, split: bool) -> dict[str, torch.Tensor]:
    tensors = top(state)
    H, N = config["num_attention_heads"], config["qk_nope_head_dim"]
    renamed = {"q_proj": "attn_q", "q_a_proj": "attn_q_a", "q_a_layernorm": "attn_q_a_norm", "q_b_proj": "attn_q_b"}
    renamed |= {"kv_a_proj_with_mqa": "attn_kv_a_mqa", "kv_a_layernorm": "attn_kv_a_norm", "o_proj": "attn_output"}
    for number in range(config["num_hidden_layers"]):
        theirs, ours = f"model.layers.{number}.", f"blk.{number}."
        tensors[f"{ours}attn_norm.weight"] = state[f"{theirs}input_layernorm.weight"]
        tensors[f"{ours}ffn_norm.weight"] = state[f"{theirs}post_attention_layernorm.weight"]
        for old, new in renamed.items():
            if f"{theirs}self_attn.{old}.weight" in state:
                tensors[f"{ours}{new}.weight"] = state[f"{theirs}self_attn.{old}.weight"]
        kv_b = state[f"{theirs}self_attn.kv_b_proj.weight"]
        if split:
            halves = kv_b.unflatten(0, (H, -1))
            tensors[f"{ours}attn_k_b.weight"] = halves[:, :N].transpose(1, 2)
            tensors[f"{ours}attn_v_b.weight"] = halves[:, N:]
        else:
            tensors[f"{ours}attn_kv_b.weight"] = kv_b
        if number < config["first_k_dense_replace"]:
            for name in ("gate", "up", "down"):
                tensors[f"{ours}ffn_{name}.weight"] = state[f"{theirs}mlp.{name}_proj.weight"]
            continue
        tensors[f"{ours}ffn_gate_inp.weight"] = state[f"{theirs}mlp.gate.weight"]
        if f"{theirs}mlp.gate.e_score_correction_bias" in state:
            tensors[f"{ours}exp_probs_b.bias"] = state[f"{theirs}mlp.gate.e_score_correction_bias"]
        gate, up = state[f"{theirs}mlp.experts.gate_up_proj"].chunk(2, dim=1)
        tensors[f"{ours}ffn_gate_exps.weight"], tensors[f"{ours}ffn_up_exps.weight"] = gate, up
        tensors[f"{ours}ffn_down_exps.weight"] = state[f"{theirs}mlp.experts.down_proj"]
        for name in ("gate", "up", "down"):
            tensors[f"{ours}ffn_{name}_shexp.weight"] = state[f"{theirs}mlp.shared_experts.{name}_proj.weight"]
    return tensors


def deepseek2_metadata(config: dict, *, split: bool) -> dict:
    is_v3 = config["model_type"] == "deepseek_v3"
    key, value = config["qk_nope_head_dim"] + config["qk_rope_head_dim"], config["v_head_dim"]
    metadata = common(config) | {
        "attention.kv_lora_rank": config["kv_lora_rank"],
        "rope.dimension_count": config["qk_rope_head_dim"],
        "expert_count": config["n_routed_experts"],
        "expert_used_count": config["num_experts_per_tok"],
        "expert_feed_forward_length": config["moe_intermediate_size"],
        "expert_shared_count": config["n_shared_experts"],
        "expert_weights_scale": config.get("routed_scaling_factor", 1.0),
        "expert_weights_norm": config.get("norm_topk_prob", False),
        "expert_gating_func": 2 if is_v3 else 1,
        "expert_group_count": config.get("n_group", 1),
        "expert_group_used_count": config.get("topk_group", 1),
        "leading_dense_block_count": config["first_k_dense_replace"],
    }
    if split:
        row = config["kv_lora_rank"] + config["qk_rope_head_dim"]
        metadata |= {"attention.key_length": row, "attention.value_length": config["kv_lora_rank"]}
        metadata |= {"attention.key_length_mla": key, "attention.value_length_mla": value}
    else:
        metadata |= {"attention.key_length": key, "attention.value_length": value}
    if config["q_lora_rank"]:
        metadata["attention.q_lora_rank"] = config["q_lora_rank"]
    if "rope_scaling" in config:
        metadata |= {
            "rope.scaling.type": "yarn",
            "rope.scaling.factor": config["rope_scaling"]["factor"],
            "rope.scaling.original_context_length": config["rope_scaling"]["original_max_position_embeddings"],
            "rope.scaling.yarn_log_multiplier": 0.1 * config["rope_scaling"]["mscale_all_dim"],
        }
    return metadata


def assert_same(first: Model, second: Model) -> None:
    tokens_BT = torch.randint(97, (2, 33), generator=torch.Generator().manual_seed(4))
    with torch.no_grad():
        assert torch.equal(first.logits(tokens_BT), second.logits(tokens_BT))


@pytest.mark.parametrize("scaling", [None, "linear", "llama3"])
def test_llama(scaling: str | None, tmp_path: Path) -> None:
    choices = {
        "linear": {"type": "linear", "factor": 4.0},
        "llama3": LLAMA3 | {"original_max_position_embeddings": 8192},
    }
    config = LLAMA | ({"rope_scaling": choices[scaling], "rope_theta": 500000.0} if scaling else {})
    theirs = published(config)
    save_published(theirs, config, tmp_path / "directory")
    metadata = common(config) | {"attention.head_count_kv": config["num_key_value_heads"]}
    tensors = llama_tensors(theirs.state_dict(), config)
    if scaling == "linear":
        metadata |= {"rope.scaling.type": "linear", "rope.scaling.factor": 4.0}
    if scaling == "llama3":
        rope = load_spec(tmp_path / "directory").layers[0].attention.rope
        tensors["rope_freqs.weight"] = replace(rope, scaling=None).inverse_frequencies / rope.inverse_frequencies
    model = seamount.load(write(tmp_path / "m.gguf", "llama", metadata, tensors), dtype="float32")
    assert_same(model, seamount.load(tmp_path / "directory"))
    seamount.save(model, tmp_path / "saved")
    assert_same(model, seamount.load(tmp_path / "saved"))


@pytest.mark.parametrize("split", [False, True])
@pytest.mark.parametrize("config", [V2, V2_YARN | {"q_lora_rank": 20}, V3], ids=["v2 lite", "v2", "v3"])
def test_deepseek2(config: dict, split: bool, tmp_path: Path) -> None:
    theirs = published(config)
    save_published(theirs, config, tmp_path / "directory")
    tensors = deepseek2_tensors(theirs.state_dict(), config, split=split)
    path = write(tmp_path / "m.gguf", "deepseek2", deepseek2_metadata(config, split=split), tensors)
    model = seamount.load(path, dtype="float32")
    assert isinstance(model.spec.layers[0].attention, MLASpec)
    assert_same(model, seamount.load(tmp_path / "directory"))
    seamount.save(model, tmp_path / "saved")
    assert_same(model, seamount.load(tmp_path / "saved"))


def test_what_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UnknownModelType, match=r"'rwkv7'.*llama, deepseek2"):
        seamount.load(write(tmp_path / "a.gguf", "rwkv7", {}, {"x": torch.zeros(1)}))
    tensors = llama_tensors(published(LLAMA).state_dict(), LLAMA)
    metadata = common(LLAMA) | {"attention.head_count_kv": 2}
    with pytest.raises(UnsupportedField, match=r"rope\.scaling\.type 'longrope'"):
        seamount.load(write(tmp_path / "b.gguf", "llama", metadata | {"rope.scaling.type": "longrope"}, tensors))
    with pytest.raises(UnsupportedField, match="rope_freqs"):
        seamount.load(write(tmp_path / "c.gguf", "llama", metadata, tensors | {"rope_freqs.weight": torch.ones(6) * 3}))
    with pytest.raises(UnsupportedField, match="expert_count"):
        seamount.load(write(tmp_path / "d.gguf", "llama", metadata | {"expert_count": 8}, tensors))
