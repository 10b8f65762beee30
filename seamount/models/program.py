"""A packed model as one compiled step: the records that the CPU kernels read, made once of the model's modules.

Whole layers run in one parallel region (kernels/cpu/layers.py), which needs every matrix packed and every dimension a
multiple of what the kernels' tiles hold; `supports` tells.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from seamount.kernels.cpu.attention import COLUMNS, MOST_GROUPS
from seamount.kernels.cpu.step import Step, float_bits, heads_beside, layer_record, matrix_fields
from seamount.kernels.packing import Packed
from seamount.models.parts.batch import Batch
from seamount.models.parts.pages import PageLayout, new_caches
from seamount.models.parts.rope import RopeSpec
from seamount.models.spec import GQASpec, LayerSpec, MLASpec, MoESpec

_log = logging.getLogger("seamount")
_FEWEST_TURNED = 1024  # positions
_UNITS = 8  # units of attention for each thread, so that all threads end together


def supports(model: Any) -> bool:
    """Whether this model can run as a program: packed, on the CPU, and of dimensions that fill the kernels' blocks."""
    if not isinstance(getattr(model.lm_head, "weight", None), Packed) or model.device.type != "cpu":
        return False
    if model.dtype is not torch.bfloat16 or model.spec.hidden_size % 16:
        return False
    return all(_is_supported(layer) for layer in model.spec.layers)


def _is_supported(layer: LayerSpec) -> bool:
    attention = layer.attention
    if isinstance(attention, MLASpec):
        dims = [attention.kv_lora_rank, attention.v_head_dim, attention.q_lora_rank or 0]
    else:
        # A head's norm writes whole vectors, and would reach into the next head.
        dims = [attention.head_dim] if attention.qk_norm else []
    return not any(dim % 16 for dim in dims)


def program_of(model: Any) -> Program | None:
    """The model's program, or None: for a model that is not packed, and, with a warning, where `supports` says no."""
    if supports(model):
        return Program(model)
    if any(True for module in model.modules() for value in vars(module).values() if isinstance(value, Packed)):
        _log.warning(
            "this packed model runs operation by operation, much slower: a compiled step needs the CPU, bfloat16 for "
            "what is not packed, and widths that are multiples of 16"
        )
    return None


class Program:
    """The compiled step of one model. Safe to call from several threads, one at a time."""

    def __init__(self, model: Any) -> None:
        self._model, self._lock = model, threading.Lock()
        self._kept: list[Tensor] = []  # what the records point at
        layers = zip(model.layers, model.spec.layers, strict=True)
        self._layers = np.stack([self._layer(module, spec) for module, spec in layers])
        attention = model.spec.layers[0].attention
        heads = attention.num_attention_heads
        groups = 1 if isinstance(attention, MLASpec) else attention.num_key_value_heads
        # A column group: the tokens whose queries fill its columns, and the number of groups that such tokens make.
        self._block, self._parts = max(1, COLUMNS // (heads // groups)), groups * -(-heads // groups // COLUMNS)
        self._ropes = [layer.attention.rope for layer in model.spec.layers]
        self._turned = 0  # positions whose angles the records tell of
        self._angles: dict[RopeSpec, tuple[Tensor, Tensor]] = {}
        self._layout: PageLayout | None = None  # of the pages that the records now tell of
        head = getattr(model.lm_head, "weight", None)
        assert isinstance(head, Packed), "a program is for a packed model: ask `supports`"
        self._step = Step(self._layers, model.spec.hidden_size, self._matrix(head))
        self._embedding = model.embed_tokens.weight.detach().contiguous()
        self._step.set("embedding", self._embedding.data_ptr())
        self._step.set("norm", self._floats(model.norm.weight))
        self._step.set("eps", float_bits(model.norm.eps))

    def logits(self, tokens_T: Tensor, batch: Batch, wanted: Sequence[int]) -> Tensor:
        """Logits (wanted, W), float32, after the tokens at these places; the batch's caches grow by its rows."""
        with self._lock:
            return self._logits(tokens_T, batch, wanted)

    def logits_and_stream(self, tokens_T: Tensor, batch: Batch, wanted: Sequence[int]) -> tuple[Tensor, Tensor]:
        """`logits`, and the residual stream of all tokens behind the last layer: (T, D), float32."""
        with self._lock:
            return self._logits(tokens_T, batch, wanted), self._step.stream(len(tokens_T))

    def reserve(self, num_tokens: int, num_rows: int) -> int:
        """Make room for steps of so many tokens, and sequences of so many rows; the bytes that they may take.

        Nothing is taken from the system before it is used.
        """
        # While cos and sin of a position are made, five tables of half a rope's width stand in memory.
        angles = 10 * num_rows * sum(rope.dim for rope in set(self._ropes))
        with self._lock:
            return self._step.reserve(num_tokens, num_rows) + angles

    def _logits(self, tokens_T: Tensor, batch: Batch, wanted: Sequence[int]) -> Tensor:
        spec = self._model.spec
        if batch.caches is None:
            caches = new_caches(self._model.page_layout, batch.lengths, self._model.device)
            batch = Batch.of(batch.lengths, caches, self._model.device)
        # The kernels check no address, so all that one is worked out from is checked here.
        tokens, positions, pages = tokens_T.tolist(), batch.checked_positions(), batch.pages
        assert len(tokens) == len(positions), "the batch's lengths must add up to its tokens"
        assert 0 <= min(tokens) <= max(tokens) < len(self._embedding), "a token id without a row of the embedding"
        self._describe(pages.layout)
        self._turn(max(positions) + 1)
        sequences = [number for number, length in enumerate(batch.lengths) for _ in range(length)]
        blocks, bases = self._blocks(batch.lengths), pages.addresses_L[: len(spec.layers)]
        logits = self._step.run(tokens, positions, sequences, blocks, wanted, bases, batch.table_BN)
        batch.advance()
        return logits[:, : spec.vocab_size]

    def _describe(self, layout: PageLayout) -> None:
        """How rows are stored, into the records, where it is not the same as in the last step."""
        if layout is self._layout:
            return
        count = len(self._layers)  # behind them stand MTP layers' rows
        formats = layout.formats[:count]
        self._layers[:, layer_record("page_bytes")] = layout.nbytes
        self._layers[:, layer_record("row_bytes")] = layout.row_bytes[:count]
        self._layers[:, layer_record("compressed")] = [form.compressed if form else 0 for form in formats]
        self._layers[:, layer_record("row_group")] = [form.group if form else 0 for form in formats]
        self._layout = layout

    def _turn(self, count: int) -> None:
        """Have the angles of so many positions, and twice as many as before where those are too few."""
        if count <= self._turned:
            return
        doubled = max(_FEWEST_TURNED, 1 << (count - 1).bit_length())
        self._turned = min(doubled, max(count, self._model.spec.context_length))
        self._angles = {rope: rope.table(torch.arange(self._turned)) for rope in set(self._ropes)}
        for record, rope in zip(self._layers, self._ropes, strict=True):
            places = [table_PR.data_ptr() for table_PR in self._angles[rope]]
            record[[layer_record("rope_cos"), layer_record("rope_sin")]] = places

    def _blocks(self, lengths: Sequence[int]) -> list[tuple[int, int, int]]:
        """(first token, tokens, sequence) of the tokens that attend together."""
        rows, start, together = [], 0, self._block * self._sharing(lengths)
        for sequence, length in enumerate(lengths):
            for first in range(0, length, together):
                rows.append((start + first, min(together, length - first), sequence))
            start += length
        return rows

    def _sharing(self, lengths: Sequence[int]) -> int:
        """Column groups that go through a sequence's pages together: as many as leave work for all threads."""
        groups = sum(-(-length // self._block) for length in lengths) * self._parts
        return max(1, min(MOST_GROUPS, groups // (_UNITS * self._step.threads)))

    def _layer(self, module: Any, spec: LayerSpec) -> Any:
        record = np.zeros(layer_record(None), np.int64)

        def put(name: str, value: int | Tensor | Packed | None) -> None:
            if value is None:
                return
            if isinstance(value, Packed):
                place = layer_record(name)
                record[place : place + len(self._matrix(value))] = self._matrix(value)
            else:
                record[layer_record(name)] = self._floats(value) if isinstance(value, Tensor) else value

        put("norm", module.input_layernorm.weight)
        put("ff_norm", module.post_attention_layernorm.weight)
        put("eps", float_bits(module.input_layernorm.eps))
        put("scale", float_bits(spec.attention.softmax_scale))
        put("heads", spec.attention.num_attention_heads)
        put("is_interleaved", spec.attention.rope.interleaved)
        if isinstance(spec.attention, MLASpec):
            self._latent(module.self_attn, spec.attention, put)
        else:
            self._dense(module.self_attn, spec.attention, put)
        self._feed_forward(module.mlp, spec.feed_forward, put)
        return record

    def _latent(self, module: Any, spec: MLASpec, put: Any) -> None:
        put("is_latent", 1)
        put("groups", 1)
        put("key_dim", spec.cache_dim)
        put("value_dim", spec.kv_lora_rank)
        put("nope", spec.qk_nope_head_dim)
        put("rope", spec.qk_rope_head_dim)
        put("value_head", spec.v_head_dim)
        put("latent_eps", float_bits(spec.latent_norm_eps))
        put("k_norm", module.kv_a_layernorm.weight)
        if spec.q_lora_rank is None:
            put("q", module.q_proj.weight)
        else:
            put("q", module.q_b_proj.weight)
            put("q_a", module.q_a_proj.weight)
            put("q_bias", module.q_a_proj.bias)
            put("q_norm", module.q_a_layernorm.weight)
            put("q_rank", spec.q_lora_rank)
        put("kv_a", module.kv_a_proj_with_mqa.weight)
        put("kv_bias", module.kv_a_proj_with_mqa.bias)
        put("w_uk", module.w_uk)
        put("w_uv", module.w_uv)
        put("o", module.o_proj.weight)
        put("o_bias", module.o_proj.bias)

    def _dense(self, module: Any, spec: GQASpec, put: Any) -> None:
        put("groups", spec.num_key_value_heads)
        put("beside", heads_beside(spec.num_attention_heads, spec.num_key_value_heads, spec.head_dim))
        for name in ("key_dim", "value_dim", "rope"):
            put(name, spec.head_dim)
        put("q", module.qkv_proj.weight)
        put("q_bias", module.qkv_proj.bias)
        put("o", module.o_proj.weight)
        put("o_bias", module.o_proj.bias)
        if module.q_norm is not None:
            put("q_norm", module.q_norm.weight)
            put("k_norm", module.k_norm.weight)
            put("latent_eps", float_bits(module.q_norm.eps))

    def _feed_forward(self, module: Any, spec: Any, put: Any) -> None:
        shared = module
        if isinstance(spec, MoESpec):
            shared = module.shared_experts
            put("experts", spec.n_routed_experts)
            put("top_k", spec.num_experts_per_tok)
            put("width", spec.moe_intermediate_size)
            put("router", self._address(module.gate.weight.detach().contiguous()))
            put("router_bias", getattr(module.gate, "e_score_correction_bias", None))
            put("scoring", spec.scoring_func == "sigmoid")
            put("method", ("greedy", "group_limited_greedy", "noaux_tc").index(spec.topk_method))
            put("expert_groups", spec.n_group)
            put("kept_groups", spec.topk_group)
            put("is_normalised", spec.norm_topk_prob)
            is_scaled = spec.scale_normalised or not spec.norm_topk_prob
            put("routed_scale", float_bits(spec.routed_scaling_factor if is_scaled else 1.0))
            put("gate_up", module.experts.gate_up_proj)
            put("down", module.experts.down_proj)
        if shared is not None:
            put("shared_width", shared.down_proj.weight.columns)
            put("shared_gate_up", shared.gate_up_proj.weight)
            put("shared_down", shared.down_proj.weight)

    def _matrix(self, weight: Packed) -> list[int]:
        self._kept += [weight.blocks, weight.scale]
        return matrix_fields(weight)

    def _address(self, tensor: Tensor) -> int:
        self._kept.append(tensor)
        return tensor.data_ptr()

    def _floats(self, tensor: Tensor) -> int:
        """A copy as float32, padded to whole vectors: its address."""
        flat = tensor.detach().float().flatten()
        padded = torch.zeros(-(-len(flat) // 16) * 16)
        padded[: len(flat)] = flat
        return self._address(padded)
