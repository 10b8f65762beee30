"""Decoding on CUDA as captured graphs: there, launching a layer's small kernels takes longer than running them.

A graph runs the same kernels over the same addresses again. So the numbers of a step (tokens, positions, tables of
pages) are copied into tensors that stay where they are, and a graph is captured for each number of sequences and of
pages, both rounded up, when it is first needed.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from seamount.kernels.paged import PAGE
from seamount.models.parts.batch import Batch
from seamount.models.parts.pages import Pages

SIZES = (1, 2, 4, 8, 16, 32, 64, 128)
"""Numbers of sequences that there are graphs for; a larger step runs without one."""


class StaticStep:
    """One decoding step over tensors that stay where they are: so many sequences, of up to so many pages each."""

    def __init__(self, model: Any, pages: Pages, num_sequences: int, num_pages: int) -> None:
        self._model, device = model, model.device
        self._tokens_B = torch.zeros(num_sequences, dtype=torch.int64, device=device)
        self._positions_B = torch.zeros_like(self._tokens_B)
        self._counts_B = torch.ones_like(self._tokens_B)
        self._table_BN = torch.zeros(num_sequences, num_pages, dtype=torch.int64, device=device)
        self._batch = Batch.static(self._positions_B, self._table_BN, self._counts_B, pages)
        self._angles = {rope: self._batch.rope(rope) for rope in {layer.attention.rope for layer in model.spec.layers}}

    def fill(self, tokens_T: Tensor, batch: Batch) -> None:
        """Take over a batch of single tokens. Spare places repeat its last sequence, and so write what that writes."""
        table_BN = torch.from_numpy(batch.table_BN).to(tokens_T.device)
        self._table_BN[:, : table_BN.shape[1]] = _padded(table_BN, len(self._tokens_B))
        self._tokens_B.copy_(_padded(tokens_T, len(self._tokens_B)))
        self._positions_B.copy_(_padded(batch.positions_T, len(self._tokens_B)))
        self._counts_B.copy_(self._positions_B + 1)
        for rope, (cos_BR, sin_BR) in self._angles.items():
            for kept, new in zip((cos_BR, sin_BR), rope.table(self._positions_B), strict=True):
                kept.copy_(new)

    def run(self) -> Tensor:
        """Logits of all places, (B, W), float32; rows are written."""
        logits_BW: Tensor = self._model.head(self._model.hidden(self._tokens_B, self._batch))
        return logits_BW


class DecodeGraphs:
    """The graphs of one model. Entered by one thread at a time."""

    def __init__(self, model: Any) -> None:
        self._model = model
        self._pages: Pages | None = None
        self._graphs: dict[tuple[int, int], tuple[StaticStep, Any, Tensor]] = {}
        self._memory: Any = None  # shared by all graphs, which never run at the same time

    @staticmethod
    def suits(batch: Batch, wanted: Sequence[int]) -> bool:
        """Whether a batch is a decoding step of a size that there are graphs for, and all its logits are wanted."""
        count = len(batch.lengths)
        return bool(batch.caches) and set(batch.lengths) == {1} and count <= SIZES[-1] and len(wanted) == count

    def logits(self, tokens_T: Tensor, batch: Batch) -> Tensor:
        """The logits after each token of a decoding step: (T, W), float32. The batch's caches grow by its rows."""
        if batch.pages is not self._pages:
            self._graphs, self._pages = {}, batch.pages
        num_sequences = next(size for size in SIZES if size >= len(tokens_T))
        num_pages = 1 << (batch.table_BN.shape[1] - 1).bit_length()
        key = num_sequences, min(num_pages, -(-self._model.spec.context_length // PAGE))
        if key not in self._graphs:
            step = StaticStep(self._model, batch.pages, *key)
            step.fill(tokens_T, batch)
            self._graphs[key] = step, *self._capture(step)
        step, graph, logits_BW = self._graphs[key]
        step.fill(tokens_T, batch)
        graph.replay()
        batch.advance()
        return logits_BW[: len(tokens_T)].clone()

    def _capture(self, step: StaticStep) -> tuple[Any, Tensor]:
        # Run beforehand on another stream: what is set up at a first call must not be captured.
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(2):
                step.run()
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=self._memory):
            logits_BW = step.run()
        self._memory = self._memory or graph.pool()
        return graph, logits_BW


def _padded(tensor_BX: Tensor, size: int) -> Tensor:
    """More rows, equal to the last one."""
    return torch.cat((tensor_BX, tensor_BX[-1:].repeat(size - len(tensor_BX), *[1] * (tensor_BX.ndim - 1))))
