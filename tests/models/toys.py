"""Toy configs of every family, in several variants each, and the transformers models that they describe."""

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

YARN = {"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32, "beta_fast": 32, "beta_slow": 1}
LLAMA3 = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}
BASE = {
    "vocab_size": 97,
    "hidden_size": 48,
    "intermediate_size": 76,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "max_position_embeddings": 128,
    "rms_norm_eps": 1e-6,
    "hidden_act": "silu",
}
LLAMA = BASE | {"model_type": "llama", "num_key_value_heads": 2}
QWEN2 = BASE | {"model_type": "qwen2", "num_key_value_heads": 2, "use_sliding_window": False}
QWEN3 = BASE | {"model_type": "qwen3", "num_key_value_heads": 2, "head_dim": 10, "use_sliding_window": False}
EXPERTS = {
    "n_routed_experts": 8,
    "num_experts_per_tok": 3,
    "moe_intermediate_size": 20,
    "n_shared_experts": 2,
    "first_k_dense_replace": 1,
}
MLA = {"kv_lora_rank": 24, "qk_nope_head_dim": 14, "qk_rope_head_dim": 8, "v_head_dim": 10, "num_key_value_heads": 4}
V2 = BASE | EXPERTS | MLA | {"model_type": "deepseek_v2", "q_lora_rank": None, "topk_method": "greedy"}
V3 = (
    BASE
    | EXPERTS
    | MLA
    | {
        "model_type": "deepseek_v3",
        "q_lora_rank": 20,
        "n_group": 4,
        "topk_group": 2,
        "num_nextn_predict_layers": 0,
        "norm_topk_prob": True,
        "routed_scaling_factor": 2.5,
    }
)
DEEPSEEK = BASE | EXPERTS | {"model_type": "deepseek", "num_key_value_heads": 4, "norm_topk_prob": False}

CONFIGS: dict[str, dict[str, Any]] = {
    "llama": LLAMA,
    "llama multi-head, tied": LLAMA | {"num_key_value_heads": 4, "tie_word_embeddings": True},
    "llama multi-query, biases": LLAMA | {"num_key_value_heads": 1, "attention_bias": True},
    "llama odd head, coder's linear rope": LLAMA
    | {"head_dim": 18, "rope_theta": 100000.0, "rope_scaling": {"type": "linear", "factor": 4.0}},
    "llama distilled, llama3 rope": LLAMA | {"rope_theta": 500000.0, "rope_scaling": LLAMA3},
    "llama yarn": LLAMA | {"rope_scaling": YARN},
    "qwen2": QWEN2,
    "qwen2 tied": QWEN2 | {"tie_word_embeddings": True},
    "qwen3": QWEN3,
    "qwen3 tied, yarn": QWEN3 | {"tie_word_embeddings": True, "rope_scaling": YARN},
    "deepseek": DEEPSEEK,
    "deepseek one shared expert": DEEPSEEK | {"n_shared_experts": 1, "num_experts_per_tok": 2},
    "v2 lite": V2,
    "v2 q_lora, groups, yarn": V2
    | {
        "q_lora_rank": 20,
        "topk_method": "group_limited_greedy",
        "n_group": 4,
        "topk_group": 2,
        "routed_scaling_factor": 16.0,
        "rope_scaling": YARN | {"mscale": 0.707, "mscale_all_dim": 0.707},
    },
    "v2 yarn without mscale": V2 | {"rope_scaling": YARN},
    "v2 unequal mscales, biases": V2
    | {"q_lora_rank": 20, "attention_bias": True, "rope_scaling": YARN | {"mscale": 1.0, "mscale_all_dim": 0.5}},
    "v3": V3,
    "v3 one group, no q_lora": V3 | {"n_group": 1, "topk_group": 1, "q_lora_rank": None},
    "v3 yarn, not normalised": V3
    | {"norm_topk_prob": False, "rope_scaling": YARN | {"mscale": 1.0, "mscale_all_dim": 1.0}},
    "v3 tied, odd sizes": V3 | {"tie_word_embeddings": True, "kv_lora_rank": 17, "v_head_dim": 9, "vocab_size": 101},
}


def randomise(model: torch.nn.Module, seed: int = 0) -> None:
    """Weights large enough that every part of the model shows in the logits."""
    generator = torch.Generator().manual_seed(seed)
    for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
        if "inv_freq" in name:
            continue
        noise = torch.randn(tensor.shape, generator=generator)
        tensor.data.copy_(1 + 0.1 * noise if "norm" in name else 0.15 * noise)


def published(config: dict[str, Any]) -> torch.nn.Module:
    """The transformers model of a config, with random weights; `deepseek` has none and is put together from two."""
    from transformers import AutoConfig, AutoModelForCausalLM, DeepseekV2Config, LlamaConfig
    from transformers.models.deepseek_v2.modeling_deepseek_v2 import DeepseekV2Moe

    values = {name: value for name, value in config.items() if name != "model_type"}
    if config["model_type"] == "deepseek":
        model = AutoModelForCausalLM.from_config(LlamaConfig(**values))
        experts = DeepseekV2Config(**values | {"topk_method": "greedy", "routed_scaling_factor": 1.0})
        experts._experts_implementation = "eager"
        for layer in model.model.layers[config["first_k_dense_replace"] :]:
            layer.mlp = DeepseekV2Moe(experts)
    else:
        kind = AutoConfig.for_model(config["model_type"], **values)
        model = AutoModelForCausalLM.from_config(kind, attn_implementation="eager")
    randomise(model)
    return model.float().eval()


def save_published(model: torch.nn.Module, config: dict[str, Any], directory: Path) -> None:
    """Write a model from `published` as a checkpoint with the config as it is given, in the published names."""
    directory.mkdir(parents=True, exist_ok=True)
    tensors: dict[str, torch.Tensor] = {}
    for name, tensor in model.state_dict().items():
        if name.endswith("experts.gate_up_proj"):
            prefix = name.removesuffix("gate_up_proj")
            for number, both in enumerate(tensor):
                tensors[f"{prefix}{number}.gate_proj.weight"], tensors[f"{prefix}{number}.up_proj.weight"] = both.chunk(
                    2
                )
        elif name.endswith("experts.down_proj"):
            for number, down in enumerate(tensor):
                tensors[f"{name.removesuffix('down_proj')}{number}.down_proj.weight"] = down
        elif not (name == "lm_head.weight" and config.get("tie_word_embeddings")):
            tensors[name] = tensor
    save_file({name: tensor.clone().contiguous() for name, tensor in tensors.items()}, directory / "model.safetensors")
    (directory / "config.json").write_text(json.dumps(config | {"torch_dtype": "float32"}))
