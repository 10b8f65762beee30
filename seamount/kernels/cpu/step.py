"""Running a compiled step from Python: the records, the workspace, and the lock."""

from __future__ import annotations

import logging
from array import array
from collections.abc import Sequence
from typing import Any

import numba
import numpy as np
import torch
from torch import Tensor

from seamount.kernels.cpu.activations import note_bytes as compiled_note_bytes
from seamount.kernels.cpu.attending import SHORT, SPLIT_UNITS
from seamount.kernels.cpu.attention import COLUMNS, MOST_GROUPS, SEGMENT
from seamount.kernels.cpu.attention import scratch_bytes as compiled_scratch_bytes
from seamount.kernels.cpu.attention import state_bytes as compiled_state_bytes
from seamount.kernels.cpu.experts import MOST_PAIRS
from seamount.kernels.cpu.group_products import GROUP_BITS, Q4_0, start_bytes
from seamount.kernels.cpu.launch import is_kept, kernel_address, launch, meeting_workers
from seamount.kernels.cpu.layers import dense_attention, feed_forward, head, latent_attention, run_layers
from seamount.kernels.cpu.memory import zeros
from seamount.kernels.cpu.packed_blocks import INT4, INT8
from seamount.kernels.cpu.products import product_bytes as compiled_product_bytes
from seamount.kernels.cpu.records import GROUP_BYTES, LAYER, STEP, L, S
from seamount.kernels.cpu.team import TEAM_BYTES
from seamount.kernels.cpu.tiles import tile_configuration
from seamount.kernels.packing import Packed

_log = logging.getLogger("seamount")
# The kernels' own formulas, called as Python.
state_bytes, scratch_bytes = compiled_state_bytes.py_func, compiled_scratch_bytes.py_func
note_bytes, product_bytes = compiled_note_bytes.py_func, compiled_product_bytes.py_func


BITS = {"int4": INT4, "int8": INT8} | GROUP_BITS


def float_bits(value: float) -> int:
    """A float32's bits, as the records hold it."""
    return int(np.float32(value).view(np.int32))


def layer_record(name: str | None) -> int:
    """The index of a field in a layer's record; of None the record's length."""
    return len(LAYER) if name is None else getattr(L, name) // 8


def heads_beside(heads: int, groups: int, dim: int) -> int:
    """Key-value heads whose query heads share a column group where a token attends alone; 0 where none do."""
    fitting = COLUMNS // (heads // groups) if dim % 32 == 0 else 0
    return max((count for count in range(1, fitting + 1) if groups % count == 0), default=0)


def matrix_fields(weight: Packed) -> list[int]:
    """A matrix as records hold it."""
    nb = weight.scale.shape[-1] // 16
    bits = BITS[weight.format]
    return [weight.blocks.data_ptr(), weight.scale.data_ptr(), bits, nb, -(-weight.columns // 64)]


def _ceil(count: int, to: int) -> int:
    return -(-count // to) * to


class Step:
    """One model's step: a record, a workspace that grows with the batch, and the call. Not to be entered twice at once.

    layers: the layer records (layers, fields) int64, kept by reference. hidden: D. head: the head's matrix fields.
    """

    def __init__(self, layers: Any, hidden: int, head: list[int]) -> None:
        self._layers, self._hidden = layers, hidden
        self._record = np.zeros(len(STEP), np.int64)
        self._record[S.head // 8 : S.head // 8 + len(head)] = head
        self._place = self._record.ctypes.data
        self._tile = np.frombuffer(tile_configuration(), np.uint8)
        self.set("tile", self._tile.ctypes.data)
        self.set("layers", layers.ctypes.data)
        self.set("layer_count", len(layers))
        self.set("hidden", hidden)
        self._workspace = torch.empty(0, dtype=torch.uint8)
        self._layout = 0, 0  # tokens, and rows of the longest sequence to be split, that there is room for
        self.threads = meeting_workers(numba.get_num_threads())

    def set(self, name: str, value: int) -> None:
        """One field of the step's record."""
        self._record[getattr(S, name) // 8] = value

    def run(
        self,
        tokens: Sequence[int],
        positions: Sequence[int],
        sequences: Sequence[int],
        blocks: Sequence[Sequence[int]],
        wanted: Sequence[int],
        bases: Any,
        table: Any,
    ) -> Tensor:
        """Logits (wanted, W padded), float32. Cached rows are written at the tokens' positions.

        Of each token its id, position and sequence; blocks: tokens that attend together, as first, count, sequence;
        wanted: places. bases (layers): addresses of page 0; table (sequences, pages): page numbers; both int64 arrays.
        """
        T = len(tokens)
        bases, table = np.ascontiguousarray(bases, np.int64), np.ascontiguousarray(table, np.int64)
        # One array for all, by hand: behind a step, with caches full of weights, each of numpy's operations costs
        # as much as a hundred numbers.
        numbers, starts = array("q"), {}
        flat = [number for block in blocks for number in block]
        for name, values in (
            ("token", tokens), ("position", positions), ("sequence", sequences), ("blocks", flat), ("wanted", wanted),
        ):  # fmt: skip
            starts[name] = len(numbers) * 8
            numbers.extend(values)
        # Attention is split by segment only where there are few blocks, and needs room for their states only then.
        may_split = len(blocks) < SPLIT_UNITS * self.threads
        self._lay_out(max(T, len(wanted)), max(positions) + 1 if may_split else 0)
        for name, start in starts.items():
            self.set(name, numbers.buffer_info()[0] + start)
        self.set("bases", bases.ctypes.data)
        self.set("pages", table.ctypes.data)
        self.set("tokens", T)
        self.set("act_rows", 1 if T == 1 else 16)
        self.set("table_width", table.shape[1])
        self.set("block_count", len(blocks))
        is_worth_it = not may_split or max(positions) < SHORT
        self.set("is_alone", is_worth_it and len(set(sequences)) == T)
        self.set("wanted_count", len(wanted))
        self.set("wanted_rows", 1 if len(wanted) == 1 else 16)
        # Barriers wait for every thread, so no more may be counted on than numba will give to this caller now.
        threads = min(self.threads, numba.get_num_threads())
        self.set("threads", threads)
        width = int(self._record[S.head // 8 + 3]) * 16
        logits = torch.empty(len(wanted), width)
        self.set("logits", logits.data_ptr())
        self.set("logits_stride", width * 4)
        self._take_kernels()
        launch(run_layers, [self._place], workers=threads)
        return logits

    def stream(self, num_tokens: int) -> Tensor:
        """A copy of what the last run left of its tokens, before the final norm: (T, D), float32."""
        return self._x[:num_tokens, : self._hidden].clone()

    def reserve(self, num_tokens: int, num_rows: int) -> int:
        """Lay the workspace out for so many tokens, and for splitting sequences of so many rows: its bytes."""
        self._lay_out(num_tokens, num_rows)
        return self._workspace.nbytes

    def _take_kernels(self) -> None:
        """Compile what this model needs, or read it from disk: once."""
        if not self._record[S.feed_forward // 8]:
            is_latent = self._field("is_latent") != 0
            if not is_kept(feed_forward):
                _log.warning("compiling the kernels for packed models, once on this machine: about a minute")
            for chosen, kernel in ((is_latent, latent_attention), (~is_latent, dense_attention)):
                if chosen.any():
                    self._layers[chosen, L.attention // 8] = kernel_address(kernel)
            self.set("head_kernel", kernel_address(head))
            self.set("feed_forward", kernel_address(feed_forward))

    def _field(self, name: str) -> Any:
        return self._layers[:, getattr(L, name) // 8]

    def _has_groups(self) -> bool:
        """Whether any matrix has scales of its groups."""
        names = ("q", "q_a", "kv_a", "w_uk", "w_uv", "o", "gate_up", "down", "shared_gate_up", "shared_down")
        bits = [self._layers[:, getattr(L, name) // 8 + 2] for name in names]
        return bool((np.stack(bits) >= Q4_0).any()) or int(self._record[S.head // 8 + 2]) >= Q4_0

    @torch.inference_mode(mode=False)  # else steps outside of inference mode could not write to it
    def _lay_out(self, T: int, longest: int) -> None:
        """Give every buffer its place; nothing is moved while the batch fits what was made so far."""
        if self._layout[0] >= T and longest <= self._layout[1]:
            return
        self._layout = max(T, self._layout[0]), max(_ceil(longest, 4 * SEGMENT), self._layout[1])
        sizes = self._sizes(*self._layout)
        starts, total = {}, 0
        for name, size in sizes.items():
            starts[name] = total
            total += _ceil(size, 64) + 64
        self._workspace = zeros(total + 64)
        begin = _ceil(self._workspace.data_ptr(), 64)
        for name, start in starts.items():
            self.set(name, begin + start)
        x = begin - self._workspace.data_ptr() + starts["x"]
        stride = int(self._record[S.x_stride // 8])
        self._x = self._workspace[x : x + self._layout[0] * stride].view(torch.float32).view(-1, stride // 4)

    def _sizes(self, T: int, longest: int) -> dict[str, int]:
        """Bytes of every buffer for T tokens, and for splitting sequences of `longest` rows; sets the strides."""
        field, D = self._field, self._hidden
        rows = _ceil(T, 16)
        E, K = int(field("experts").max()), int(field("top_k").max())
        F, shared = _ceil(int(field("width").max()), 64), _ceil(int(field("shared_width").max()), 64)
        H = int(field("heads").max())
        tiles = {name: self._layers[:, getattr(L, name) // 8 + 4] for name in ("q", "q_a", "kv_a", "w_uk", "w_uv", "o")}
        widths = {name: self._layers[:, getattr(L, name) // 8 + 3] * 16 for name in ("q", "q_a", "kv_a")}
        value = int(np.maximum(field("value_dim"), field("value_head")).max())
        y = 4 * _ceil(max(int(widths["q"].max()), int(widths["q_a"].max()), H * value) + 16, 16)
        z = 4 * _ceil(max(_ceil(D, 64), int(widths["kv_a"].max())), 16)
        q_dim = _ceil(int(field("key_dim").max()), 32)
        for name, stride in (("x_stride", _ceil(D, 16) * 4), ("y_stride", y), ("z_stride", z), ("q_dim", q_dim)):
            self.set(name, stride)
        act = 64 * max(_ceil(D, 64) // 64, *(int(count.max()) for count in tiles.values()))
        head_act = 64 * max(int(tiles["w_uk"].max()), int(tiles["w_uv"].max()), (value + 63) // 64, 1)
        slots = T * K + 16 * min(E, T * K) + rows
        # The kernel splits less than so many units: attending.is_worth_splitting.
        states = SPLIT_UNITS * self.threads * -(-longest // SEGMENT) * state_bytes(value)
        key = int(field("key_dim").max())
        attention = MOST_GROUPS * (64 + q_dim * 32 + 2 * state_bytes(value)) + scratch_bytes(key, value)
        wide = int((field("beside") * field("key_dim")).max())
        attention = max(attention, 64 + wide * 32 + 2 * state_bytes(wide) + scratch_bytes(wide, wide))
        product = MOST_PAIRS * T * 128 + product_bytes(rows)
        if self._has_groups():
            product += start_bytes(rows, max(act, head_act, F, shared) // 64)
        scratch = _ceil(max(product, attention, (E + 64) * 8, (key + 64) * 4), 4096) + 4096
        note, head_note = note_bytes(max(act, F, shared) // 64), note_bytes(head_act // 64)
        for name, size in (("scratch_bytes", scratch), ("note_step", note), ("head_note_step", head_note)):
            self.set(name, size)
        return {
            "team": TEAM_BYTES, "x": T * _ceil(D, 16) * 4, "act": rows * act, "act_notes": rows * note,
            "y": T * y, "z": T * z, "q": T * H * q_dim * 2, "head_act": H * rows * head_act,
            "head_notes": H * rows * head_note, "states": states, "scratch": scratch * self.threads,
            "score": max(T * _ceil(E, 16) * 4, E * 8), "choice": T * K * 8, "choice_weight": T * K * 4,
            "groups": (E + 1) * GROUP_BYTES, "slots": slots * 8, "slot_weight": slots * 4,
            "slot_act": slots * _ceil(D, 64), "slot_notes": slots * note, "h": (slots * F + rows * shared) * 4,
            "h_act": slots * F + rows * shared, "h_notes": slots * note,
        }  # fmt: skip
