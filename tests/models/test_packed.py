"""Packed models: loading, converting, initialising and saving agree, run, and refuse what does not fit."""

import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from toys import CONFIGS, DEEPSEEK, LLAMA, QWEN2, V2, V3, published, save_published

import seamount
from seamount import kernels
from seamount.checkpoint import open_tensors
from seamount.errors import CheckpointError, ConfigError, CorruptFile, TensorMismatch, UnsupportedField
from seamount.kernels.packing import FORMATS, Format, Packed, pack, unpack
from seamount.models import Model, convert, initialise
from seamount.models.packed import packed_weights

WITH_MTP = V3 | {"num_nextn_predict_layers": 1}
TOKENS = torch.arange(1, 25).view(2, 12) * 3 % 97


def weights(model: Model) -> dict[str, Packed]:
    return dict(packed_weights(model))


def checkpoint(config: dict[str, Any], directory: Path) -> Path:
    save_published(published(config), config, directory)
    return directory


@pytest.mark.parametrize(
    "name", ["llama", "qwen2 tied", "qwen3", "deepseek", "v2 lite", "v2 unequal mscales, biases", "v3 tied, odd sizes"]
)
def test_a_packed_model_is_the_plain_one_but_for_rounding(name: str, tmp_path: Path, monkeypatch: Any) -> None:
    """With exact activations only the rounding of the weights is left."""

    def exact(x_TD: torch.Tensor, weight: Packed) -> torch.Tensor:
        return x_TD.float() @ unpack(weight).flatten(0, -2).T

    plain = seamount.load(checkpoint(CONFIGS[name], tmp_path))
    packed = seamount.load(tmp_path, quantize="int8")
    with torch.inference_mode():
        quantised, wanted = packed.logits(TOKENS), plain.logits(TOKENS)
        monkeypatch.setattr(kernels.reference.packed, "packed_product", exact)
        found = packed.logits(TOKENS)
    exact_T, quantised_T = (
        ((logits - wanted).norm(dim=-1) / wanted.norm(dim=-1)).flatten().sort().values for logits in (found, quantised)
    )
    # A router's choice between two experts that are nearly equal may fall otherwise for a token or two.
    assert exact_T[-4] <= 0.05
    assert 1e-4 < quantised_T[0] <= quantised_T[-4] <= 0.15


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("config", [LLAMA | {"tie_word_embeddings": True}, DEEPSEEK, V2, V3, WITH_MTP])
def test_load_quantised_convert_and_save_agree(config: dict[str, Any], format: Format, tmp_path: Path) -> None:
    if config is WITH_MTP:
        initialise(config, tmp_path / "a")
    else:
        checkpoint(config, tmp_path / "a")
    direct = seamount.load(tmp_path / "a", quantize=format)
    convert(tmp_path / "a", tmp_path / "b", to=format, shard_bytes=20_000)
    assert len(list((tmp_path / "b").glob("model-*.safetensors"))) > 1
    converted = seamount.load(tmp_path / "b")
    seamount.save(direct, tmp_path / "c")
    saved = seamount.load(tmp_path / "c")
    described = json.loads((tmp_path / "b/config.json").read_text())["quantization_config"]
    assert described == {"quant_method": "seamount", "format": format, "version": 1}
    for other in (converted, saved):
        assert weights(other).keys() == weights(direct).keys()
        for name, weight in weights(direct).items():
            assert torch.equal(weight.blocks, weights(other)[name].blocks)
            assert torch.equal(weight.scale, weights(other)[name].scale)
        with torch.inference_mode():
            assert torch.equal(direct.logits(TOKENS), other.logits(TOKENS))
    plain = dict(seamount.load(tmp_path / "a").named_parameters())
    for name, kept in converted.named_parameters():
        assert torch.equal(kept, plain[name])


def test_each_kind_of_weight_is_packed_as_it_should_be(tmp_path: Path) -> None:
    initialise(WITH_MTP, tmp_path / "a")
    plain, packed = seamount.load(tmp_path / "a", dtype="float32"), seamount.load(tmp_path / "a", quantize="int4")
    found = weights(packed)
    shapes = {name: (weight.format, *weight.shape) for name, weight in found.items() if "layers.1." in name}
    H, N, V, C, D, F, E = 4, 14, 10, 24, 48, 20, 8
    attention, mlp = "layers.1.self_attn.", "layers.1.mlp."
    assert shapes == {
        f"{attention}q_a_proj.weight": ("int4", 20, D),
        f"{attention}q_b_proj.weight": ("int4", H * (N + 8), 20),
        f"{attention}kv_a_proj_with_mqa.weight": ("int4", C + 8, D),
        f"{attention}w_uk": ("int8", H, C, N),
        f"{attention}w_uv": ("int8", H, V, C),
        f"{attention}o_proj.weight": ("int4", D, H * V),
        f"{mlp}experts.gate_up_proj": ("int4", E, 2, F, D),
        f"{mlp}experts.down_proj": ("int4", E, D, F),
        f"{mlp}shared_experts.gate_up_proj.weight": ("int4", 2, 2 * F, D),
        f"{mlp}shared_experts.down_proj.weight": ("int4", D, 2 * F),
    }
    assert found["lm_head.weight"].format == "int8"
    assert {"mtp.0.eh_proj.weight", "mtp.0.block.self_attn.w_uv"} <= found.keys()
    kept = {name for name, _ in packed.named_parameters()}
    assert not kept & found.keys()
    assert kept == {
        name
        for name, _ in plain.named_parameters()
        if "norm" in name or "mlp.gate." in name or name == "embed_tokens.weight"
    }
    gate_up = plain.layers[1].mlp.experts.gate_up_proj.unflatten(1, (2, -1))
    assert torch.equal(found[f"{mlp}experts.gate_up_proj"].blocks, pack(gate_up, "int4").blocks)
    kv_b = plain.layers[1].self_attn.kv_b_proj.weight.unflatten(0, (H, -1))
    assert torch.equal(found[f"{attention}w_uk"].blocks, pack(kv_b[:, :N].transpose(1, 2), "int8").blocks)
    assert [len(logits) for logits in packed.mtp_logits(TOKENS)] == [2]


@pytest.mark.parametrize("config", [QWEN2, V2])
def test_cached_steps_of_a_packed_model_agree_with_the_whole(config: dict[str, Any], tmp_path: Path) -> None:
    model = seamount.load(checkpoint(config, tmp_path), quantize="int4")
    cache = model.new_cache(12)
    with torch.inference_mode():
        whole = model.logits(TOKENS[:1])[0]
        for position, token in enumerate(TOKENS[0].tolist()):
            assert torch.allclose(model.step([token], cache), whole[position], rtol=0.05, atol=0.05)


def test_expanded_attention_of_a_packed_model_is_the_oracle_still(tmp_path: Path, monkeypatch: Any) -> None:
    model = seamount.load(checkpoint(V2, tmp_path), quantize="int8")
    monkeypatch.setattr(kernels, "packed_heads", lambda x, w: torch.einsum("thk,hnk->thn", x, unpack(w)))
    with torch.inference_mode():
        absorbed = model.logits(TOKENS)
        for layer in model.layers:
            layer.self_attn.form = "expanded"
        # The other products quantise activations that differ in the last bits, so a code here and there differs.
        assert (model.logits(TOKENS) - absorbed).norm() <= 0.01 * absorbed.norm()


def test_fp8_checkpoints_convert(tmp_path: Path) -> None:
    quantisation = {"quant_method": "fp8", "fmt": "e4m3", "weight_block_size": [128, 128]}
    initialise(V3 | {"hidden_size": 200, "quantization_config": quantisation}, tmp_path / "fp8", seed=3)
    convert(tmp_path / "fp8", tmp_path / "int8", to="int8")
    decoded, packed = seamount.load(tmp_path / "fp8"), seamount.load(tmp_path / "int8")
    down = decoded.layers[2].mlp.experts.down_proj
    assert torch.equal(weights(packed)["layers.2.mlp.experts.down_proj"].blocks, pack(down, "int8").blocks)


def test_a_packed_checkpoint_is_mapped_and_aligned(tmp_path: Path) -> None:
    initialise(V3, tmp_path, quantize="int4", seed=1)
    model = seamount.load(tmp_path)
    for weight in weights(model).values():
        assert weight.blocks.data_ptr() % 64 == 0
        assert weight.scale.data_ptr() % 64 == 0
    if os.path.exists("/proc/self/maps"):
        address = weights(model)["layers.1.mlp.experts.down_proj"].blocks.data_ptr()
        with open("/proc/self/maps") as maps:
            lines = [line.split() for line in maps]
        inside = [line for line in lines if int(line[0].split("-")[0], 16) <= address < int(line[0].split("-")[1], 16)]
        assert inside[0][-1] == str(tmp_path / "model.safetensors")


def test_packed_initialisation_depends_on_the_seed_alone(tmp_path: Path) -> None:
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        initialise("tiny-v3", tmp_path / name, seed=seed, quantize="int4")
    a, b, c = (weights(seamount.load(tmp_path / name)) for name in "abc")
    name = next(name for name in a if name.endswith("experts.down_proj"))
    assert torch.equal(a[name].blocks, b[name].blocks)
    assert not torch.equal(a[name].blocks, c[name].blocks)
    assert float(unpack(a[name]).std()) == pytest.approx(0.02, rel=0.1)
    with pytest.raises(ConfigError, match="'int3' is not one of int4, int8"):
        initialise("tiny-v3", tmp_path / "d", quantize="int3")


def test_what_cannot_be_packed_again_or_run_elsewhere_is_refused(tmp_path: Path) -> None:
    initialise(LLAMA, tmp_path / "packed", quantize="int4")
    assert weights(seamount.load(tmp_path / "packed", quantize="int4"))
    with pytest.raises(ConfigError, match="holds int4 weights already"):
        seamount.load(tmp_path / "packed", quantize="int8")
    with pytest.raises(ConfigError, match="holds int4 weights already"):
        convert(tmp_path / "packed", tmp_path / "b", to="int8")
    with pytest.raises(ConfigError, match="device meta"):
        seamount.load(tmp_path / "packed", device="meta")
    initialise(LLAMA, tmp_path / "plain")
    with pytest.raises(ConfigError, match="'int3' is not one of"):
        seamount.load(tmp_path / "plain", quantize="int3")
    with pytest.raises(ConfigError, match="choose another directory"):
        convert(tmp_path / "plain", tmp_path / "plain", to="int8", overwrite=True)
    with pytest.raises(CheckpointError, match="already holds"):
        convert(tmp_path / "plain", tmp_path / "packed", to="int8")


def test_foreign_and_damaged_packed_checkpoints_are_refused_by_name(tmp_path: Path) -> None:
    initialise(LLAMA, tmp_path, quantize="int4")
    config = json.loads((tmp_path / "config.json").read_text())
    tensors = load_file(tmp_path / "model.safetensors")
    name = "layers.0.self_attn.o_proj.weight"

    def with_method(**changes: Any) -> None:
        quantisation = config["quantization_config"] | changes
        (tmp_path / "config.json").write_text(json.dumps(config | {"quantization_config": quantisation}))

    def with_tensors(changes: dict[str, torch.Tensor]) -> None:
        save_file(tensors | changes, tmp_path / "model.safetensors")

    for changes, words in (
        ({"version": 2}, "version = 2"),
        ({"format": "int5"}, "format = 'int5'"),
        ({"group": 3}, "group = 3"),
        ({"quant_method": "awq"}, "awq"),
    ):
        with_method(**changes)
        with pytest.raises(UnsupportedField, match=words):
            seamount.load(tmp_path)
    with_method(format="int8")
    with pytest.raises(TensorMismatch, match=rf"wrong shape: {name}\.blocks is"):
        seamount.load(tmp_path)
    with_method()
    with_tensors({f"{name}.scale": tensors[f"{name}.scale"].half()})
    with pytest.raises(CheckpointError, match=r"scale of an int4 weight.*float32.*float16"):
        seamount.load(tmp_path)
    with_tensors({f"{name}.scale": tensors[f"{name}.scale"] / 0})
    with pytest.raises(CorruptFile, match=rf"{name}: a scale is not a finite number"):
        seamount.load(tmp_path)
    with_tensors({"stray": torch.zeros(1)})
    with pytest.raises(TensorMismatch, match="surplus: stray"):
        seamount.load(tmp_path)


def test_a_second_copy_that_differs_from_a_packed_weight_is_refused(tmp_path: Path) -> None:
    initialise(WITH_MTP, tmp_path)
    seamount.load(tmp_path, quantize="int8")
    tensors = load_file(tmp_path / "model.safetensors")
    tensors["model.layers.3.shared_head.head.weight"][0, 0] += 1
    save_file(tensors, tmp_path / "model.safetensors")
    with pytest.raises(TensorMismatch, match=r"shared_head\.head\.weight should be a copy of lm_head\.weight"):
        seamount.load(tmp_path, quantize="int8")


def test_an_interrupted_conversion_leaves_no_checkpoint(tmp_path: Path) -> None:
    initialise(LLAMA, tmp_path / "plain")

    def interrupt(done: int, total: int) -> None:
        if done > total / 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        convert(tmp_path / "plain", tmp_path / "packed", to="int8", shard_bytes=10_000, progress=interrupt)
    assert list((tmp_path / "packed").iterdir()) == []
    seen: list[tuple[int, int]] = []
    convert(tmp_path / "plain", tmp_path / "packed", to="int8", progress=lambda *both: seen.append(both))
    assert seen[-1][0] == seen[-1][1]
    with open_tensors(tmp_path / "packed") as source:
        assert source.dtype("layers.0.mlp.down_proj.weight.blocks") is torch.uint8
