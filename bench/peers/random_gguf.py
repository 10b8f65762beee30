"""Random weights of a Seamount preset as a GGUF file in Q4_0, for llama.cpp to be measured on.

    python bench/peers/random_gguf.py deepseek-v2-lite FILE.gguf [--layers 9] [--kv-b BF16] [--seed 0]

Blocks are drawn as they are stored, so nothing is quantised and the file may be larger than memory: 8.3 GiB,
tensor by tensor. Matrices are Q4_0, norms and routers float32. The two halves of kv_b are BF16 unless `--kv-b` says
otherwise: llama.cpp lays quantised ones out for AMX, and then aborts since it has no product for them there. The
vocabulary is llama.cpp's empty one, token numbers without texts. The weights' deviation is 0.02.
"""

import argparse
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from gguf import GGMLQuantizationType, GGUFWriter, LlamaFileType, RopeScalingType
from numpy.typing import NDArray

from seamount.models import presets

DEVIATION = 0.02
_BLOCK, _BLOCK_BYTES = {"Q4_0": 32, "Q8_0": 32}, {"Q4_0": 18, "Q8_0": 34}

# Name, shape with the rows' length last, kind.
Tensor = tuple[str, tuple[int, ...], str]


def tensors(config: dict[str, Any], kv_b: str) -> Iterator[Tensor]:
    """Every tensor of the file in its order; kinds are F32 (a router), ones (a norm), Q4_0 and `kv_b`'s."""
    D, W = config["hidden_size"], config["vocab_size"]
    yield "token_embd.weight", (W, D), "Q4_0"
    for number in range(config["num_hidden_layers"]):
        prefix = f"blk.{number}."
        yield from _attention(prefix, config, kv_b)
        yield f"{prefix}attn_norm.weight", (D,), "ones"
        yield f"{prefix}ffn_norm.weight", (D,), "ones"
        if number < config["first_k_dense_replace"]:
            yield from _feed_forward(prefix, "", D, config["intermediate_size"])
        else:
            yield from _mixture(prefix, config)
    yield "output_norm.weight", (D,), "ones"
    yield "output.weight", (W, D), "Q4_0"


def _attention(prefix: str, config: dict[str, Any], kv_b: str) -> Iterator[Tensor]:
    D, H, C, V = (config[name] for name in ("hidden_size", "num_attention_heads", "kv_lora_rank", "v_head_dim"))
    N, R, rank = config["qk_nope_head_dim"], config["qk_rope_head_dim"], config["q_lora_rank"]
    if rank:
        yield f"{prefix}attn_q_a.weight", (rank, D), "Q4_0"
        yield f"{prefix}attn_q_a_norm.weight", (rank,), "ones"
        yield f"{prefix}attn_q_b.weight", (H * (N + R), rank), "Q4_0"
    else:
        yield f"{prefix}attn_q.weight", (H * (N + R), D), "Q4_0"
    yield f"{prefix}attn_kv_a_mqa.weight", (C + R, D), "Q4_0"
    yield f"{prefix}attn_kv_a_norm.weight", (C,), "ones"
    yield f"{prefix}attn_k_b.weight", (H, C, N), kv_b
    yield f"{prefix}attn_v_b.weight", (H, V, C), kv_b
    yield f"{prefix}attn_output.weight", (D, H * V), "Q4_0"


def _mixture(prefix: str, config: dict[str, Any]) -> Iterator[Tensor]:
    D, E, F = config["hidden_size"], config["n_routed_experts"], config["moe_intermediate_size"]
    yield f"{prefix}ffn_gate_inp.weight", (E, D), "F32"
    for name, rows, columns in (("gate", F, D), ("up", F, D), ("down", D, F)):
        yield f"{prefix}ffn_{name}_exps.weight", (E, rows, columns), "Q4_0"
    yield from _feed_forward(prefix, "_shexp", D, config["n_shared_experts"] * F)


def _feed_forward(prefix: str, suffix: str, D: int, F: int) -> Iterator[Tensor]:
    for name, rows, columns in (("gate", F, D), ("up", F, D), ("down", D, F)):
        yield f"{prefix}ffn_{name}{suffix}.weight", (rows, columns), "Q4_0"


def draw(shape: tuple[int, ...], kind: str, generator: np.random.Generator) -> NDArray[Any]:
    """One tensor's values as the file stores them: bytes for all kinds but float32."""
    if kind == "ones":
        return np.ones(shape, np.float32)
    if kind in ("F32", "BF16"):
        value = generator.standard_normal(shape, np.float32) * np.float32(DEVIATION)
        # The upper half of a float32, rounded towards zero: any rounding is as random.
        return value if kind == "F32" else (value.view(np.uint32) >> 16).astype(np.uint16).view(np.uint8)
    blocks = math.prod(shape) // _BLOCK[kind]
    stored = np.empty((blocks, _BLOCK_BYTES[kind]), np.uint8)
    size = _BLOCK_BYTES[kind] - 2
    stored[:, 2:] = np.frombuffer(generator.bytes(blocks * size), np.uint8).reshape(blocks, size)
    # Codes are uniform: -8..7 in Q4_0, -128..127 in Q8_0. Their mean is not 0, so each block's scale has a random sign.
    levels = 16 if kind == "Q4_0" else 256
    scale = DEVIATION / math.sqrt((levels**2 - 1) / 12)
    signs = generator.integers(0, 2, (blocks, 1), np.int8) * 2 - 1
    stored[:, :2] = (signs * scale).astype("<f2").view(np.uint8)
    return stored.reshape(*shape[:-1], -1)


def _stored_bytes(shape: tuple[int, ...], kind: str) -> int:
    count = math.prod(shape)
    if kind in _BLOCK:
        return count // _BLOCK[kind] * _BLOCK_BYTES[kind]
    return count * (2 if kind == "BF16" else 4)


def add_metadata(writer: GGUFWriter, config: dict[str, Any], name: str) -> None:
    """What llama.cpp's deepseek2 loader reads."""
    C, R, N, V = (config[key] for key in ("kv_lora_rank", "qk_rope_head_dim", "qk_nope_head_dim", "v_head_dim"))
    writer.add_name(f"{name}, random weights")
    writer.add_file_type(LlamaFileType.MOSTLY_Q4_0)
    writer.add_quantization_version(2)
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_vocab_size(config["vocab_size"])
    writer.add_head_count(config["num_attention_heads"])
    # The latent cache is one key head of C + R, whose first C are the values too.
    writer.add_head_count_kv(1)
    writer.add_key_length(C + R)
    writer.add_value_length(C)
    writer.add_key_length_mla(N + R)
    writer.add_value_length_mla(V)
    # Only depths of published models without a query rank may leave it out: any other depth needs an explicit 0.
    if config["q_lora_rank"] or config["num_hidden_layers"] not in (26, 27):
        writer.add_q_lora_rank(config["q_lora_rank"] or 0)
    writer.add_kv_lora_rank(C)
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_leading_dense_block_count(config["first_k_dense_replace"])
    writer.add_expert_count(config["n_routed_experts"])
    writer.add_expert_used_count(config["num_experts_per_tok"])
    writer.add_expert_shared_count(config["n_shared_experts"])
    writer.add_expert_feed_forward_length(config["moe_intermediate_size"])
    writer.add_expert_weights_scale(config["routed_scaling_factor"])
    writer.add_expert_weights_norm(config["norm_topk_prob"])
    writer.add_rope_dimension_count(R)
    writer.add_rope_freq_base(config["rope_theta"])
    scaling = config.get("rope_scaling")
    if scaling:
        writer.add_rope_scaling_type(RopeScalingType.YARN)
        writer.add_rope_scaling_factor(scaling["factor"])
        writer.add_rope_scaling_orig_ctx_len(scaling["original_max_position_embeddings"])
        writer.add_rope_scaling_yarn_log_mul(0.1 * scaling["mscale_all_dim"])
    writer.add_tokenizer_model("none")


def write(config: dict[str, Any], name: str, path: Path, kv_b: str = "BF16", seed: int = 0) -> None:
    """Write the file; one tensor at a time is in memory, 104 MB at most for V2-Lite.

    Errors: ValueError for a config of another family than V2 without groups of experts.
    """
    if config["model_type"] != "deepseek_v2" or config["n_group"] != 1:
        raise ValueError(f"{name}: only configs of type deepseek_v2 with n_group 1 can be written")
    generator = np.random.default_rng(seed)
    listed = list(tensors(config, kv_b))
    writer = GGUFWriter(path, "deepseek2")
    add_metadata(writer, config, name)
    for tensor, shape, kind in listed:
        stored = GGMLQuantizationType.F32 if kind in ("ones", "F32") else GGMLQuantizationType[kind]
        writer.add_tensor_info(tensor, shape, np.dtype(np.float32), _stored_bytes(shape, kind), stored)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    for _, shape, kind in listed:
        writer.write_tensor_data(draw(shape, kind, generator))
    writer.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("preset")
    parser.add_argument("path", type=Path)
    parser.add_argument("--layers", type=int, help="fewer layers than the preset has")
    parser.add_argument("--kv-b", choices=("BF16", "F32", "Q4_0", "Q8_0"), default="BF16")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    config = presets.config(arguments.preset)
    if arguments.layers:
        config["num_hidden_layers"] = arguments.layers
    write(config, arguments.preset, arguments.path, arguments.kv_b, arguments.seed)
    print(f"{arguments.path}: {arguments.path.stat().st_size / 2**30:.2f} GiB")


if __name__ == "__main__":
    main()
