"""What loading refuses, and how; what saving keeps."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from toys import CONFIGS, LLAMA, QWEN2, V2, V3, published, save_published

import seamount
from seamount.checkpoint import encode_fp8, open_tensors
from seamount.errors import (
    CheckpointError,
    ConfigError,
    CorruptFile,
    ModelNotFound,
    SeamountError,
    TensorMismatch,
    UnknownModelType,
    UnsupportedField,
)
from seamount.models import initialise, load_spec
from seamount.models.families import FAMILIES, family_config


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    save_published(published(V3), V3, tmp_path / "v3")
    return tmp_path / "v3"


def edit_config(directory: Path, **changes: Any) -> None:
    path = directory / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def edit_tensors(directory: Path, change: Any) -> None:
    tensors = load_file(directory / "model.safetensors")
    change(tensors)
    save_file(tensors, directory / "model.safetensors")


@pytest.mark.parametrize("name", CONFIGS)
def test_save_of_load_is_identical(name: str, tmp_path: Path) -> None:
    save_published(published(CONFIGS[name]), CONFIGS[name], tmp_path / "a")
    seamount.save(seamount.load(tmp_path / "a"), tmp_path / "b")
    with open_tensors(tmp_path / "a") as first, open_tensors(tmp_path / "b") as second:
        assert sorted(first.names()) == sorted(second.names())
        for tensor in first.names():
            assert first.dtype(tensor) == second.dtype(tensor)
            assert torch.equal(first.read(tensor), second.read(tensor))
    assert json.loads((tmp_path / "b/config.json").read_text()) == json.loads((tmp_path / "a/config.json").read_text())


def test_one_error_lists_all_tensors_at_fault(checkpoint: Path) -> None:
    def damage(tensors: dict) -> None:
        del tensors["model.norm.weight"]
        del tensors["model.layers.1.mlp.experts.3.up_proj.weight"]
        tensors["model.layers.0.self_attn.o_proj.weight"] = torch.zeros(3, 5)
        tensors["model.layers.7.stray.weight"] = torch.zeros(1)

    edit_tensors(checkpoint, damage)
    with pytest.raises(TensorMismatch) as error:
        seamount.load(checkpoint)
    text = str(error.value)
    assert "missing: model.norm.weight [48]" in text
    assert "missing: model.layers.1.mlp.experts.3.up_proj.weight [20, 48]" in text
    assert "wrong shape: model.layers.0.self_attn.o_proj.weight is [3, 5], not [48, 40]" in text
    assert "surplus: model.layers.7.stray.weight" in text


def test_frequencies_in_old_checkpoints_are_passed_over(checkpoint: Path) -> None:
    name = "model.layers.0.self_attn.rotary_emb.inv_freq"
    edit_tensors(checkpoint, lambda tensors: tensors.update({name: torch.zeros(4)}))
    seamount.load(checkpoint)


def test_a_second_copy_that_differs_is_refused(tmp_path: Path) -> None:
    config = LLAMA | {"tie_word_embeddings": True}
    save_published(published(config), config, tmp_path)
    edit_tensors(tmp_path, lambda t: t.update({"lm_head.weight": t["model.embed_tokens.weight"].clone()}))
    seamount.load(tmp_path)
    edit_tensors(tmp_path, lambda t: t["lm_head.weight"].add_(1))
    with pytest.raises(TensorMismatch, match=r"lm_head\.weight should be a copy"):
        seamount.load(tmp_path)


@pytest.mark.parametrize(
    ("config", "changes", "kind", "words"),
    [
        (LLAMA, {"model_type": "mamba"}, UnknownModelType, "'mamba'.*deepseek_v3"),
        (LLAMA, {"model_type": None}, UnknownModelType, "None"),
        (LLAMA, {"hidden_act": "gelu"}, UnsupportedField, "hidden_act = 'gelu'"),
        (LLAMA, {"rope_scaling": {"type": "dynamic", "factor": 2.0}}, UnsupportedField, "dynamic"),
        (LLAMA, {"rope_scaling": {"type": "linear", "factor": 2.0, "x": 1}}, UnsupportedField, r"rope_scaling.*x = 1"),
        (LLAMA, {"logit_scale": 0.5}, UnsupportedField, "logit_scale = 0.5"),
        (LLAMA, {"mlp_bias": True}, UnsupportedField, "mlp_bias = True"),
        (LLAMA, {"quantization_config": {"quant_method": "awq", "bits": 4}}, UnsupportedField, "awq"),
        (QWEN2, {"use_sliding_window": True}, UnsupportedField, "use_sliding_window = True"),
        (QWEN2, {"layer_types": ["sliding_attention"]}, UnsupportedField, "sliding_attention"),
        (V2, {"use_mla": False}, UnsupportedField, "use_mla"),
        (V2, {"topk_method": "noaux_tc"}, UnsupportedField, "topk_method"),
        (V3, {"scoring_func": "softmax"}, UnsupportedField, "scoring_func"),
        (V3, {"moe_layer_freq": 2}, UnsupportedField, "moe_layer_freq = 2"),
        (V3, {"index_topk": 2048}, UnsupportedField, "index_topk = 2048"),
        (V3, {"topk_group": 9}, ConfigError, "topk_group"),
        (V3, {"num_experts_per_tok": 9}, ConfigError, "num_experts_per_tok"),
        (LLAMA, {"hidden_size": -1}, ConfigError, "hidden_size = -1"),
        (LLAMA, {"hidden_size": "big"}, ConfigError, "hidden_size = 'big'"),
        (LLAMA, {"num_hidden_layers": 10**12}, ConfigError, "num_hidden_layers"),
        (LLAMA, {"num_key_value_heads": 3}, ConfigError, "multiple of 3"),
    ],
)
def test_configs_that_cannot_be_honoured_are_refused_by_field(
    config: dict, changes: dict, kind: type, words: str
) -> None:
    with pytest.raises(kind, match=words) as error:
        family_config(config | changes, source="x/config.json")
    assert "x/config.json" in str(error.value)


def test_a_missing_field_is_named() -> None:
    with pytest.raises(ConfigError, match="kv_lora_rank: required, and missing"):
        family_config({name: value for name, value in V2.items() if name != "kv_lora_rank"}, source="x")


def test_fields_without_effect_are_passed_over() -> None:
    harmless = {"architectures": ["X"], "auto_map": {"AutoModel": "evil.py"}, "pretraining_tp": 2, "new_switch": False}
    assert family_config(V3 | harmless, source="x").spec() == family_config(V3, source="x").spec()


def test_both_ways_to_write_rope_agree() -> None:
    old = family_config(LLAMA | {"rope_theta": 5e5, "rope_scaling": {"type": "linear", "factor": 4.0}}, source="x")
    parameters = {"rope_type": "linear", "factor": 4.0, "rope_theta": 5e5}
    assert family_config(LLAMA | {"rope_parameters": parameters}, source="x").spec() == old.spec()


def test_fp8_checkpoints_are_decoded(tmp_path: Path) -> None:
    initialise(V3 | {"hidden_size": 200, "kv_lora_rank": 130}, tmp_path / "plain", seed=3)
    quantisation = {"quant_method": "fp8", "fmt": "e4m3", "weight_block_size": [128, 128]}
    initialise(
        V3 | {"hidden_size": 200, "kv_lora_rank": 130, "quantization_config": quantisation}, tmp_path / "fp8", seed=3
    )
    plain, fp8 = seamount.load(tmp_path / "plain"), seamount.load(tmp_path / "fp8")
    name = "self_attn.kv_b_proj.weight"
    exact, rounded = (model.layers[0].get_parameter(name).float() for model in (plain, fp8))
    assert not torch.equal(exact, rounded)
    # E4M3 keeps three bits behind the leading one, so it rounds by at most 1/16; bfloat16 adds a little.
    assert ((exact - rounded).abs() <= exact.abs() / 15 + exact.abs().max() / 448).all()
    code, _ = encode_fp8(exact)
    assert code.dtype == torch.float8_e4m3fn
    assert torch.equal(plain.embed_tokens.weight, fp8.embed_tokens.weight)
    seamount.save(fp8, tmp_path / "saved")
    assert "quantization_config" not in json.loads((tmp_path / "saved/config.json").read_text())
    assert torch.equal(seamount.load(tmp_path / "saved").layers[0].get_parameter(name).float(), rounded)


def test_initialise_depends_on_the_seed_alone_and_refuses_unknown_fields(tmp_path: Path) -> None:
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        initialise("tiny-v3", tmp_path / name, seed=seed, overrides={"num_hidden_layers": 2})
    a, b, c = (dict(seamount.load(tmp_path / name).named_parameters()) for name in "abc")
    assert all(torch.equal(a[name], b[name]) for name in a)
    assert not torch.equal(a["embed_tokens.weight"], c["embed_tokens.weight"])
    assert a["embed_tokens.weight"].float().std().item() == pytest.approx(
        load_spec(tmp_path / "a").initializer_range, rel=0.05
    )
    with pytest.raises(ConfigError, match="'num_layers' is no field"):
        initialise("tiny-v3", tmp_path / "d", overrides={"num_layers": 2})
    with pytest.raises(ConfigError, match="hidden_size"):
        initialise("tiny-v3", tmp_path / "d", overrides={"hidden_size": 0})
    with pytest.raises(CheckpointError, match="already holds"):
        initialise("tiny-v3", tmp_path / "a")


@pytest.mark.parametrize("stored", [torch.float32, torch.bfloat16])
def test_without_a_dtype_in_the_config_the_stored_one_is_kept(stored: torch.dtype, checkpoint: Path) -> None:
    edit_tensors(checkpoint, lambda t: t.update({name: tensor.to(stored) for name, tensor in t.items()}))
    edit_config(checkpoint, torch_dtype=None)
    assert seamount.load(checkpoint).dtype == stored
    assert seamount.load(checkpoint, dtype="float16").dtype == torch.float16


def test_names_that_are_no_model() -> None:
    with pytest.raises(ModelNotFound, match="seamount init deepseek-v3"):
        seamount.load("deepseek-v3")
    with pytest.raises(ModelNotFound, match="nowhere"):
        seamount.load("nowhere")
    assert set(FAMILIES) == {"llama", "qwen2", "qwen3", "deepseek", "deepseek_v2", "deepseek_v3"}


def test_damaged_files_give_named_errors(checkpoint: Path) -> None:
    with pytest.raises(ConfigError, match="dtype 'int7'"):
        seamount.load(checkpoint, dtype="int7")
    with pytest.raises(ConfigError, match=r"torch\.int8"):
        seamount.load(checkpoint, dtype=torch.int8)
    with pytest.raises(ConfigError, match="dtype 'float7'"):
        initialise("tiny-v3", checkpoint.parent / "other", overrides={"torch_dtype": "float7"})
    edit_config(checkpoint, rms_norm_eps="?")
    with pytest.raises(ConfigError, match="rms_norm_eps"):
        seamount.load(checkpoint)
    (checkpoint / "config.json").write_text("{")
    with pytest.raises(SeamountError, match=r"config\.json"):
        seamount.load(checkpoint)
    weights = checkpoint / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    (checkpoint / "config.json").write_text(json.dumps(V3))
    with pytest.raises(CorruptFile):
        seamount.load(checkpoint)
