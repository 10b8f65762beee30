"""From a checkpoint to a model: config, names, and then each tensor straight into its place."""

import logging
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from seamount.checkpoint import GGUFFile, Located, TensorSource, locate, open_tensors, read_config
from seamount.errors import ConfigError, ModelNotFound, TensorMismatch
from seamount.models import presets
from seamount.models.families import family_config
from seamount.models.gguf_config import config_from_gguf
from seamount.models.gguf_names import gguf
from seamount.models.model import Model
from seamount.models.names import FLOAT32, Slot, hugging_face
from seamount.models.spec import ModelSpec
from seamount.tokenizer import Tokenizer

Progress = Callable[[int, int], None]  # bytes read so far, bytes in all

_DTYPES: dict[object, torch.dtype] = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
# Old Llama checkpoints store the rotary frequencies, GGUF files Llama 3's divisors: both follow from the config.
_DERIVED = re.compile(r"(model\.layers\.\d+\.self_attn\.rotary_emb\.inv_freq|rope_freqs\.weight)")
_log = logging.getLogger("seamount")


def load(
    model: str | Path,
    *,
    dtype: torch.dtype | str | None = None,
    device: torch.device | str = "cpu",
    progress: Progress | None = None,
) -> Model:
    """The model of a directory, a .gguf file, a hub id, or "embedded", with its weights and its tokenizer.

    `dtype` defaults to the config's, else to the stored one; for GGUF files, which are decoded, to bfloat16.
    Errors: ModelNotFound, ConfigError, CheckpointError (TensorMismatch lists every tensor at fault), TokenizerError.
    Cost: the model's own size in memory, plus a few per cent while it is read.
    """
    located = _locate(model)
    with open_tensors(located) as source:
        config = _config(located, source)
        spec = family_config(config, source=str(located.path)).spec()
        if isinstance(source, GGUFFile):
            slots = list(gguf(spec, set(source.names())))
        else:
            config, spec = _without_absent_mtp(config, spec, source)
            slots = list(hugging_face(spec))
        with torch.device("meta"):
            built = Model(spec, config)
        _check(built, slots, source, str(located.path))
        built.tokenizer = _tokenizer(located, source)
        chosen = dtype or config.get("dtype") or config.get("torch_dtype") or source.dtype(slots[0].source)
        _materialise(built, checked_dtype(chosen), torch.device(device))
        _fill(built, slots, source, progress)
    return built.eval()


def load_spec(model: str | Path) -> ModelSpec:
    """The shape alone, without a weight being read; also of a preset such as "deepseek-v3".

    Errors: as `load`, as far as the config goes.
    """
    if model in presets.names():
        return family_config(presets.config(str(model)), source=f"the preset {model}").spec()
    located = locate(model)
    if located.kind == "directory":
        return family_config(read_config(located), source=str(located.path)).spec()
    with open_tensors(located) as source:
        return family_config(_config(located, source), source=str(located.path)).spec()


def _locate(model: str | Path) -> Located:
    try:
        return locate(model)
    except ModelNotFound:
        if model in presets.names():
            raise ModelNotFound(
                f"{model!r} is a preset: a shape without weights. `seamount init {model} DIRECTORY` writes random "
                "ones; published ones are loaded from a directory or a hub id"
            ) from None
        raise


def _config(located: Located, source: TensorSource) -> dict[str, Any]:
    return config_from_gguf(source) if isinstance(source, GGUFFile) else read_config(located)


def _without_absent_mtp(
    config: dict[str, Any], spec: ModelSpec, source: TensorSource
) -> tuple[dict[str, Any], ModelSpec]:
    """Config and shape without the MTP layers that the config counts and the checkpoint leaves out, as many do."""
    first = f"model.layers.{len(spec.layers)}."
    if not spec.mtp_layers or any(name.startswith(first) for name in source.names()):
        return config, spec
    _log.warning(
        "config.json counts %d MTP layers and the checkpoint holds none: loaded without them", len(spec.mtp_layers)
    )
    config = config | {"num_nextn_predict_layers": 0}
    return config, family_config(config, source="config.json").spec()


def _check(model: Model, slots: Iterable[Slot], source: TensorSource, where: str) -> None:
    """Compare names and shapes, all of them, before anything is read."""
    parameters, stored, faults = dict(model.named_parameters()), set(source.names()), []
    for slot in slots:
        shape = slot.shape(parameters[slot.target])
        if slot.source not in stored:
            if not slot.is_copy:
                faults.append(f"missing: {slot.source} {list(shape)}")
        elif source.shape(slot.source) != shape:
            faults.append(f"wrong shape: {slot.source} is {list(source.shape(slot.source))}, not {list(shape)}")
        stored.discard(slot.source)
    faults += [f"surplus: {name}" for name in sorted(stored) if not _DERIVED.fullmatch(name)]
    if faults:
        lines = "\n  ".join(faults)
        raise TensorMismatch(f"{where} does not hold the tensors that its config describes:\n  {lines}")


def checked_dtype(dtype: object) -> torch.dtype:
    """The dtype of that name, or that dtype itself, if weights can be held in it.

    Errors: ConfigError naming what is allowed.
    """
    known = _DTYPES | {kind: kind for kind in _DTYPES.values()}
    if dtype not in known:
        raise ConfigError(f"dtype {dtype!r} is not one of {', '.join(map(str, _DTYPES))}")
    return known[dtype]


def _materialise(model: nn.Module, dtype: torch.dtype, device: torch.device) -> None:
    """Give every parameter of a model on the meta device memory of its own, not yet filled."""
    for module in model.modules():
        for name, parameter in list(module.named_parameters(recurse=False)):
            kept = torch.float32 if name in FLOAT32 else dtype
            empty = torch.empty(parameter.shape, dtype=kept, device=device)
            setattr(module, name, nn.Parameter(empty, requires_grad=parameter.requires_grad))


@torch.no_grad()
def _fill(model: Model, slots: Iterable[Slot], source: TensorSource, progress: Progress | None) -> None:
    parameters, done, total = dict(model.named_parameters()), 0, source.nbytes
    present = set(source.names())
    for slot in slots:
        if slot.source not in present:
            continue
        place = slot.view(parameters[slot.target])
        if slot.is_copy:
            _compare(slot, place, source)
        elif slot.is_flattened or place.device.type != "cpu":
            place.copy_(source.read(slot.source).reshape(place.shape))
        else:
            source.read_into(slot.source, place)
        done += source.dtype(slot.source).itemsize * place.numel()
        if progress:
            progress(done, total)


def _compare(slot: Slot, place: Tensor, source: TensorSource) -> None:
    if not torch.equal(source.read(slot.source).to(place.dtype).to(place.device), place):
        raise TensorMismatch(f"{slot.source} should be a copy of {slot.target}, and differs from it")


def _tokenizer(located: Located, source: TensorSource) -> Tokenizer | None:
    if isinstance(source, GGUFFile):
        return Tokenizer.from_gguf(source.metadata) if "tokenizer.ggml.tokens" in source.metadata else None
    return Tokenizer.from_directory(located.path) if (located.path / "tokenizer.json").exists() else None
