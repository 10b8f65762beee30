"""`seamount inspect`: a model's shape, sizes and cache, without reading its weights."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from seamount.cli.options import DtypeOption, JsonOption, ModelArgument
from seamount.cli.output import print_json

if TYPE_CHECKING:
    import torch

    from seamount.models import ModelSpec


def inspect(model: ModelArgument, dtype: DtypeOption = None, json: JsonOption = False) -> None:
    """Show a model's layers, parameters and cache; MODEL may also be a preset's name. Reads no weights."""
    # Imported here because torch and rich cost time that other verbs' --help must not pay.
    import torch

    from seamount.models import load_spec

    spec = load_spec(model)
    cache_dtype = torch.bfloat16 if dtype is None else getattr(torch, dtype.value)
    figures = measure(spec, cache_dtype)
    if json:
        print_json({"model": model, **figures})
    else:
        from seamount.cli.picture import draw

        draw(model, spec, figures)


def measure(spec: ModelSpec, cache_dtype: torch.dtype) -> dict[str, Any]:
    """Every figure that `inspect` shows.

    Units: `_bytes` with the cache in `cache_dtype`; all else counts numbers, or is a ratio.
    """
    from seamount.models import cost

    counted = cost.parameters(spec)
    return {
        "model_type": spec.model_type,
        "layers": len(spec.layers),
        "hidden_size": spec.hidden_size,
        "vocab_size": spec.vocab_size,
        "context_length": spec.context_length,
        "parameters": counted.total,
        "mtp_parameters": counted.mtp,
        "active_parameters": counted.active,
        "active_parameters_with_embedding": counted.active_with_embedding,
        "active_parameters_in_layers": counted.active_in_layers,
        "parts": {
            part: {"parameters": counted.total_by_part[part], "active_parameters": counted.active_by_part[part]}
            for part in cost.PARTS
        },
        "kv_dtype": str(cache_dtype).removeprefix("torch."),
        "kv_numbers_per_token": cost.kv_numbers_per_token(spec),
        "kv_bytes_per_token": cost.kv_bytes_per_token(spec, cache_dtype),
        "mha_kv_bytes_per_token": cost.mha_kv_numbers_per_token(spec) * cache_dtype.itemsize,
        "kv_ratio": cost.kv_ratio(spec),
        "kv_ratio_to_deepseek_67b": cost.kv_numbers_per_token(spec) / cost.DEEPSEEK_67B_KV_NUMBERS,
        "kv_reduction_from_deepseek_67b_at_6_bits": cost.kv_reduction_from_67b(spec),
    }
