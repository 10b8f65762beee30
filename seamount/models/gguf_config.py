"""What a GGUF file's metadata say, as the config.json of the same model."""

from collections.abc import Collection, Mapping
from typing import Any

import torch

from seamount.checkpoint import GGUFFile
from seamount.errors import ConfigError, UnknownModelType, UnsupportedField
from seamount.models.parts.rope import Llama3Scaling, RopeSpec

# Group limits that older files leave out, by the number of routed experts: V2's and V3's published values.
_GROUPS = {160: (8, 3), 256: (8, 4)}


class _Metadata:
    """One architecture's keys, with errors that name them."""

    def __init__(self, file: GGUFFile, architecture: str) -> None:
        self.file, self.architecture = file, architecture

    def get(self, key: str, default: Any = None) -> Any:
        return self.file.metadata.get(f"{self.architecture}.{key}", default)

    def need(self, key: str) -> Any:
        value = self.get(key)
        if value is None:
            raise ConfigError(f"{self.file.path} has no {self.architecture}.{key}, which its architecture needs")
        return value


def config_from_gguf(file: GGUFFile) -> dict[str, Any]:
    """The config.json that describes the model in a GGUF file.

    Errors: UnknownModelType for other architectures; ConfigError, UnsupportedField for metadata that cannot be used.
    """
    architecture = file.metadata.get("general.architecture")
    readers = {"llama": _llama, "deepseek2": _deepseek2}
    if architecture not in readers:
        known = ", ".join(readers)
        raise UnknownModelType(f"{file.path}: GGUF architecture {architecture!r} is not implemented; known are {known}")
    metadata, names = _Metadata(file, architecture), set(file.names())
    config = {
        "vocab_size": _vocab_size(file, metadata),
        "hidden_size": metadata.need("embedding_length"),
        "intermediate_size": metadata.need("feed_forward_length"),
        "num_hidden_layers": metadata.need("block_count"),
        "num_attention_heads": metadata.need("attention.head_count"),
        "max_position_embeddings": metadata.need("context_length"),
        "rms_norm_eps": metadata.need("attention.layer_norm_rms_epsilon"),
        "rope_theta": metadata.get("rope.freq_base", 10_000.0),
        "tie_word_embeddings": "output.weight" not in names,
        "hidden_act": "silu",
        "torch_dtype": "bfloat16",
    }
    for name in ("bos_token_id", "eos_token_id"):
        if f"tokenizer.ggml.{name}" in file.metadata:
            config[name] = file.metadata[f"tokenizer.ggml.{name}"]
    return config | readers[architecture](metadata, config, names)


def _vocab_size(file: GGUFFile, metadata: _Metadata) -> int:
    if "token_embd.weight" in file.names():
        return file.shape("token_embd.weight")[0]
    return int(metadata.need("vocab_size"))


def _llama(metadata: _Metadata, config: Mapping[str, Any], names: Collection[str]) -> dict[str, Any]:
    if metadata.get("expert_count"):
        raise UnsupportedField(f"{metadata.file.path}: llama.expert_count (Mixtral's shape) is not implemented")
    heads = config["num_attention_heads"]
    head_dim = metadata.get("attention.key_length") or metadata.get("rope.dimension_count")
    head_dim = head_dim or config["hidden_size"] // heads
    values: dict[str, Any] = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "num_key_value_heads": metadata.get("attention.head_count_kv", heads),
        "head_dim": head_dim,
        "attention_bias": False,
        "mlp_bias": False,
    }
    if "rope_freqs.weight" in names:
        values["rope_scaling"] = _llama3_scaling(metadata, head_dim, config["rope_theta"])
    elif metadata.get("rope.scaling.type") == "linear":
        values["rope_scaling"] = {"rope_type": "linear", "factor": metadata.need("rope.scaling.factor")}
    elif metadata.get("rope.scaling.type", "none") != "none":
        kind = metadata.get("rope.scaling.type")
        raise UnsupportedField(f"{metadata.file.path}: llama.rope.scaling.type {kind!r} is not implemented")
    return values


def _llama3_scaling(metadata: _Metadata, head_dim: int, theta: float) -> dict[str, Any]:
    """Llama 3's scaling, which GGUF stores as one divisor per pair: recognised by its published values."""
    stored = metadata.file.read("rope_freqs.weight", torch.float32)
    plain = RopeSpec(head_dim, theta).inverse_frequencies
    for factor in (8.0, 32.0):
        scaling = Llama3Scaling(factor, 1.0, 4.0, 8192)
        divisor = plain / RopeSpec(head_dim, theta, scaling=scaling).inverse_frequencies
        if stored.shape == divisor.shape and torch.allclose(stored, divisor, rtol=1e-3):
            return {
                "rope_type": "llama3",
                "factor": factor,
                "low_freq_factor": 1.0,
                "high_freq_factor": 4.0,
                "original_max_position_embeddings": 8192,
            }
    raise UnsupportedField(
        f"{metadata.file.path}: rope_freqs.weight is not Llama 3's published scaling; use the safetensors checkpoint"
    )


def _deepseek2(metadata: _Metadata, config: Mapping[str, Any], names: Collection[str]) -> dict[str, Any]:
    rope_dim = metadata.need("rope.dimension_count")
    # Since llama.cpp caches latents, key_length is the cached row's and the head's own lengths have names of their own.
    key = metadata.get("attention.key_length_mla") or metadata.need("attention.key_length")
    value = metadata.get("attention.value_length_mla") or metadata.need("attention.value_length")
    is_v3 = metadata.get("expert_gating_func", 1) == 2
    values: dict[str, Any] = {
        "architectures": ["DeepseekV3ForCausalLM" if is_v3 else "DeepseekV2ForCausalLM"],
        "model_type": "deepseek_v3" if is_v3 else "deepseek_v2",
        "num_key_value_heads": config["num_attention_heads"],
        "q_lora_rank": metadata.get("attention.q_lora_rank"),
        "kv_lora_rank": metadata.need("attention.kv_lora_rank"),
        "qk_nope_head_dim": key - rope_dim,
        "qk_rope_head_dim": rope_dim,
        "v_head_dim": value,
        "attention_bias": False,
    }
    if metadata.get("rope.scaling.type") == "yarn":
        # The file holds 0.1 mscale_all_dim; both mscales are equal in every published V2 and V3 config that has them.
        mscale = round(10 * metadata.get("rope.scaling.yarn_log_multiplier", 0.0), 4) or None
        values["rope_scaling"] = {
            "type": "yarn",
            "factor": metadata.need("rope.scaling.factor"),
            "original_max_position_embeddings": metadata.need("rope.scaling.original_context_length"),
            "beta_fast": 32,
            "beta_slow": 1,
            "mscale": mscale,
            "mscale_all_dim": mscale,
        }
    if metadata.get("expert_count"):
        values |= _experts(metadata, is_v3=is_v3)
    return values


def _experts(metadata: _Metadata, *, is_v3: bool) -> dict[str, Any]:
    count = metadata.need("expert_count")
    default_groups, default_kept = _GROUPS.get(count, (1, 1))
    groups = metadata.get("expert_group_count", default_groups)
    method = "noaux_tc" if is_v3 else "group_limited_greedy" if groups > 1 else "greedy"
    return {
        "n_routed_experts": count,
        "num_experts_per_tok": metadata.need("expert_used_count"),
        "moe_intermediate_size": metadata.need("expert_feed_forward_length"),
        "n_shared_experts": metadata.get("expert_shared_count", 0) or None,
        "first_k_dense_replace": metadata.get("leading_dense_block_count", 0),
        "moe_layer_freq": 1,
        "n_group": groups,
        "topk_group": metadata.get("expert_group_used_count", default_kept),
        "topk_method": method,
        "scoring_func": "sigmoid" if is_v3 else "softmax",
        "norm_topk_prob": bool(metadata.get("expert_weights_norm", is_v3)),
        "routed_scaling_factor": metadata.get("expert_weights_scale", 1.0),
    }
