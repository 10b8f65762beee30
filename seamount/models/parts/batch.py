"""A flat batch: the tokens of several sequences in a row, where each stands, and the cached rows that came before.

All modules but attention treat every token alike, so they see (T, D) and no sequence border. Attention asks the batch.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from seamount import kernels
from seamount.kernels import PagedRows
from seamount.kernels.paged import PAGE
from seamount.models.parts.pages import Cache, Pages
from seamount.models.parts.rope import RopeSpec


@dataclass
class Batch:
    """What attention needs to know of a flat batch: positions (T), the length of each sequence, and its cache.

    All caches are of one pool.
    """

    positions_T: Tensor
    lengths: tuple[int, ...]
    caches: tuple[Cache, ...] | None = None
    _pool: Pages | None = None
    _tables: dict[RopeSpec, tuple[Tensor, Tensor]] = field(default_factory=dict)

    @classmethod
    def fresh(cls, lengths: Sequence[int], device: torch.device) -> "Batch":
        """Whole sequences without a cache, each from position 0."""
        return cls(torch.cat([torch.arange(length, device=device) for length in lengths]), tuple(lengths))

    @classmethod
    def of(cls, lengths: Sequence[int], caches: Sequence[Cache], device: torch.device) -> "Batch":
        """The next tokens of several cached sequences, so many of each.

        Errors: ContextOverflow where a cache is full.
        """
        for length, cache in zip(lengths, caches, strict=True):
            cache.require(length)
        assert len({id(cache.pages) for cache in caches}) == 1, "a batch's caches must be of one pool"
        return cls(torch.tensor(_following(lengths, caches), device=device), tuple(lengths), tuple(caches))

    @classmethod
    def following(cls, count: int, cache: Cache, device: torch.device) -> "Batch":
        """The next `count` tokens of one cached sequence."""
        return cls.of([count], [cache], device)

    @classmethod
    def static(cls, positions_B: Tensor, table_BN: Tensor, counts_B: Tensor, pages: Pages) -> "Batch":
        """One token each of sequences that are described by tensors alone, whose numbers may change between steps."""
        batch = cls(positions_B, (1,) * len(positions_B), (), pages)
        batch._paging = table_BN, batch.lengths, (), counts_B
        return batch

    @property
    def pages(self) -> Pages:
        """The pool of the caches."""
        pool = self.caches[0].pages if self.caches else self._pool
        assert pool is not None, "this batch has no caches"
        return pool

    @property
    def is_cached(self) -> bool:
        """Whether rows are written to pages, and read from them."""
        return bool(self.caches) or self._pool is not None

    @cached_property
    def table_BN(self) -> np.ndarray:
        """The pages of every sequence: (B, N) int64, a row's unused end being page 0."""
        caches = self.caches or ()
        counts = [-(-(cache.length + length) // PAGE) for cache, length in zip(caches, self.lengths, strict=True)]
        table_BN = np.zeros((len(caches), max(counts)), np.int64)
        for row_N, cache, count in zip(table_BN, caches, counts, strict=True):
            row_N[:count] = cache.table[:count]
        return table_BN

    def checked_positions(self) -> list[int]:
        """The positions, which must be those that come next in the caches: kernels check no address."""
        positions = self.positions_T.tolist()
        expected = _following(self.lengths, self.caches or ())
        assert positions == expected, "a batch's tokens must follow what its caches hold"
        return expected

    def advance(self) -> None:
        """Count this batch's rows as cached, once every layer has written its own."""
        for cache, length in zip(self.caches or (), self.lengths, strict=False):
            cache.advance(length)

    def rope(self, spec: RopeSpec) -> tuple[Tensor, Tensor]:
        """cos and sin (T, R/2) of the batch's positions; worked out once for all layers that share a spec."""
        if spec not in self._tables:
            self._tables[spec] = spec.table(self.positions_T)
        return self._tables[spec]

    def sequences(self, layer: int, rows_TX: Tensor) -> Iterator[tuple[slice, Tensor]]:
        """For each sequence, its tokens' place in the batch and all rows that its attention reads."""
        start = 0
        cached = self.write(layer, rows_TX) if self.is_cached else None
        for number, length in enumerate(self.lengths):
            place = slice(start, start + length)
            yield place, rows_TX[place] if cached is None else cached.sequence(number, rows_TX.dtype)
            start += length

    def write(self, layer: int, rows_TX: Tensor) -> PagedRows:
        """Write the newest rows of a layer to the caches' pages; all rows that attention reads, as they are stored."""
        layout = self.pages.layout
        rows = PagedRows(self.pages.rows(layer), *self._paging, layout.formats[layer])
        kernels.write_rows(rows, rows_TX.detach().to(layout.dtype))
        return rows

    @cached_property
    def _paging(self) -> tuple[Tensor, tuple[int, ...], tuple[int, ...], Tensor]:
        """What every layer's PagedRows have in common."""
        each = zip(self.caches or (), self.lengths, strict=True)
        counts, device = tuple(cache.length + length for cache, length in each), self.positions_T.device
        table_BN = torch.from_numpy(self.table_BN).to(device)
        return table_BN, self.lengths, counts, torch.tensor(counts, device=device)


def _following(lengths: Sequence[int], caches: Sequence[Cache]) -> list[int]:
    """Plain numbers: for a step of few tokens each of numpy's operations costs more than all of this."""
    each = zip(lengths, caches, strict=True)
    return [position for length, cache in each for position in range(cache.length, cache.length + length)]
