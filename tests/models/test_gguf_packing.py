"""A GGUF's Q4_0, Q4_1 and Q8_0 weights used as they are: every number kept, in models that run as one compiled step."""

import itertools
import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from test_gguf_models import common, deepseek2_metadata, deepseek2_tensors, llama_tensors, write
from toys import LLAMA, V2, V3, published

import seamount
from seamount.errors import ConfigError
from seamount.kernels.group_packing import GROUP_FORMATS
from seamount.kernels.packing import unpack
from seamount.models import Model, initialise, loading
from seamount.models.packed import packed_slots, packed_weights
from seamount.models.parts.batch import Batch
from seamount.models.program import supports

# Every matrix's inputs are whole groups of 32.
DENSE = LLAMA | {"hidden_size": 64, "intermediate_size": 96}
LATENT = {"hidden_size": 64, "intermediate_size": 96, "moe_intermediate_size": 32, "kv_lora_rank": 32}
LATENT |= {"qk_nope_head_dim": 32, "v_head_dim": 16}
CASES = ("q4_0", "q4_1", "q8_0", "v2", "v3 split", "mixed")


def checkpoint(case: str, path: Path) -> Path:
    """A GGUF of a toy model: a dense one in one type, or a mixture of types."""
    if case.startswith("v"):
        split = case.endswith("split")
        config: dict[str, Any] = (V3 | LATENT | {"q_lora_rank": 32}) if split else V2 | LATENT
        tensors = deepseek2_tensors(published(config).state_dict(), config, split=split)
        types = {name: "Q8_0" if "shexp" in name or "kv" in name else "Q4_0" for name in tensors}
        types |= {"output.weight": "Q8_0", "token_embd.weight": "Q8_0"}
        types = {name: kind for name, kind in types.items() if tensors[name].ndim > 1 and "ffn_gate_inp" not in name}
        return write(path, "deepseek2", deepseek2_metadata(config, split=split), tensors, types)
    tensors = llama_tensors(published(DENSE).state_dict(), DENSE)
    types = {name: case.upper() for name, tensor in tensors.items() if tensor.ndim == 2}
    if case == "mixed":
        types = {name: "Q4_1" if "attn" in name or "down" in name else "Q8_0" for name in types}
        types["blk.0.attn_v.weight"] = "Q8_0"  # fused with two of another type
        types["blk.1.attn_output.weight"] = "Q5_0"
        del types["output.weight"]
    return write(path, "llama", common(DENSE) | {"attention.head_count_kv": 2}, tensors, types)


@pytest.fixture(scope="module")
def paths(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    directory = tmp_path_factory.mktemp("gguf")
    return {case: checkpoint(case, directory / f"{case}.gguf") for case in CASES}


def tokens_of(count: int, seed: int = 0) -> torch.Tensor:
    return torch.randint(97, (count,), generator=torch.Generator().manual_seed(seed))


def whole(model: Model, tokens_T: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        return model.logits(tokens_T[None])[0]


@pytest.mark.parametrize("case", CASES)
def test_every_weight_is_the_files_own(case: str, paths: dict[str, Path], caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "seamount")
    model, decoded = seamount.load(paths[case], quantize="gguf"), seamount.load(paths[case], dtype="float32")
    weights, parameters = dict(packed_weights(model)), dict(decoded.named_parameters())
    formats = {name: weight.format for name, weight in weights.items()}
    for slot in packed_slots(model.spec, parameters, "int8"):
        found, wanted = unpack(weights[slot.name]), slot.view(parameters[slot.parameter])
        if formats[slot.name] in GROUP_FORMATS:
            assert torch.equal(found, wanted), slot.name
        else:
            assert (found - wanted).norm() <= 0.01 * wanted.norm(), slot.name
    if case in GROUP_FORMATS:
        assert set(formats.values()) == {case}
        assert f"packed weights: {len(formats)} {case};" in caplog.text
    elif case == "mixed":
        repacked = {name for name, format in formats.items() if format == "int8"}
        assert repacked == {
            "layers.0.self_attn.qkv_proj.weight",
            "layers.1.self_attn.o_proj.weight",
            "lm_head.weight",
        }
        assert f"3 int8, {2 + 2 + 3} q4_1, 3 q8_0;" in caplog.text
    else:
        latent = {formats[f"layers.1.self_attn.{name}"] for name in ("w_uk", "w_uv")}
        assert latent == ({"int8"} if case == "v3 split" else {"int8", "q8_0"})
        assert formats["layers.1.mlp.experts.gate_up_proj"] == formats["layers.1.mlp.experts.down_proj"] == "q4_0"
        assert formats["layers.1.mlp.shared_experts.down_proj.weight"] == "q8_0"


@pytest.mark.parametrize("case", CASES)
def test_the_step_equals_the_modules_path(case: str, paths: dict[str, Path]) -> None:
    model = seamount.load(paths[case], quantize="gguf")
    modules = seamount.load(paths[case], quantize="gguf", dtype="float32")
    assert supports(model)
    assert not supports(modules)
    tokens_T = tokens_of(37)
    wanted_TW = whole(modules, tokens_T)
    error_T = (whole(model, tokens_T) - wanted_TW).norm(dim=-1) / wanted_TW.norm(dim=-1)
    # The step rounds queries, cached rows and probabilities to bfloat16, which these large weights make much of: int8
    # is as far off. A router's choice between two experts that are nearly equal may fall otherwise.
    assert error_T.median() < 0.06


@pytest.mark.parametrize("case", CASES)
def test_cutting_and_company_change_no_bit(case: str, paths: dict[str, Path]) -> None:
    model = seamount.load(paths[case], quantize="gguf")
    tokens_T = tokens_of(75, seed=2)
    expected_TW = whole(model, tokens_T)
    cache, parts = model.new_cache(75), []
    for start, stop in itertools.pairwise((0, 1, 3, 7, 12, 28, 45, 75)):
        batch = Batch.following(stop - start, cache, model.device)
        parts.append(model.logits_at(tokens_T[start:stop], batch, range(stop - start)))
    assert torch.equal(torch.cat(parts), expected_TW)
    others = [tokens_of(length, seed=length) for length in (1, 20, 6)]
    together = model.logits_at(
        torch.cat([*others, tokens_T[:9]]), Batch.fresh([1, 20, 6, 9], model.device), range(27, 36)
    )
    assert torch.equal(together, whole(model, tokens_T[:9]))


def test_what_is_no_gguf_or_cannot_be_written_is_refused(paths: dict[str, Path], tmp_path: Path) -> None:
    initialise(DENSE, tmp_path / "plain")
    with pytest.raises(ConfigError, match=r"quantize = 'gguf'.*no GGUF file.*int4 or int8"):
        seamount.load(tmp_path / "plain", quantize="gguf")
    initialise(DENSE, tmp_path / "packed", quantize="int8")
    with pytest.raises(ConfigError, match="holds int8 weights already"):
        seamount.load(tmp_path / "packed", quantize="gguf")
    tensors = llama_tensors(published(DENSE).state_dict(), DENSE)
    plain = write(tmp_path / "f32.gguf", "llama", common(DENSE) | {"attention.head_count_kv": 2}, tensors, {})
    with pytest.raises(ConfigError, match=r"holds F32 and none of Q4_0.*int4 or int8"):
        seamount.load(plain, quantize="gguf")
    with pytest.raises(ConfigError, match="device meta"):
        seamount.load(paths["q4_0"], quantize="gguf", device="meta")
    model = seamount.load(paths["q4_0"], quantize="gguf")
    with pytest.raises(ConfigError, match=r"keep the \.gguf file"):
        seamount.save(model, tmp_path / "saved")
    assert not (tmp_path / "saved").exists()


@pytest.mark.parametrize(
    ("case", "path", "is_packed"),
    [("q4_1", "amx", True), ("v3 split", "avx2", True), ("mixed", "amx", False), ("q4_1", "portable", False)],
)
def test_auto_takes_files_that_are_wholly_of_these_types_where_that_is_fast(
    case: str, path: str, is_packed: bool, paths: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loading, "TARGET", replace(loading.TARGET, path=path))
    model = seamount.load(paths[case], quantize="auto")
    assert bool(list(packed_weights(model))) == is_packed


def test_auto_leaves_other_checkpoints_as_they_are(tmp_path: Path) -> None:
    published(DENSE).save_pretrained(tmp_path)
    assert not list(packed_weights(seamount.load(tmp_path, quantize="auto")))
