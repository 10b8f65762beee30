"""A flat batch: the tokens of several sequences in a row, where each stands, and the cached rows that came before.

All modules but attention treat every token alike, so they see (T, D) and no sequence border. Attention asks the batch.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from seamount.errors import ContextOverflow
from seamount.models.parts.rope import RopeSpec

_FIRST_ROWS = 256


class Cache:
    """The rows of one sequence: for every layer (up to capacity, X), X as the layer's attention says (`cache_dim`).

    Cost: memory grows with what is written, by doubling.
    """

    def __init__(self, cache_dims: Sequence[int], capacity: int, dtype: torch.dtype, device: torch.device) -> None:
        self.length = 0
        self.capacity = capacity
        self._rows = [torch.empty(0, dim, dtype=dtype, device=device) for dim in cache_dims]

    def extend(self, layer: int, rows_TX: Tensor) -> Tensor:
        """Write the newest rows of a layer; all its rows so far, (S, X), as the cache stores them.

        `length` moves on only when every layer is written: see `advance`.
        Errors: ContextOverflow beyond the capacity.
        """
        stop = self._checked(rows_TX.shape[0])
        if stop > self._rows[layer].shape[0]:
            self._rows[layer] = self._grown(self._rows[layer], stop)
        self._rows[layer][self.length : stop] = rows_TX
        return self._rows[layer][:stop]

    def reserve(self, count: int) -> None:
        """Make room in every layer for so many more tokens, for kernels that write the rows themselves.

        Errors: ContextOverflow beyond the capacity.
        """
        stop = self._checked(count)
        for layer, rows in enumerate(self._rows):
            if stop > rows.shape[0]:
                self._rows[layer] = self._grown(rows, stop)

    def address(self, layer: int) -> int:
        """Where a layer's first row stands in memory."""
        return self._rows[layer].data_ptr()

    def advance(self, count: int) -> None:
        """Count the newest rows as cached."""
        self.length += count

    @property
    def nbytes(self) -> int:
        """Bytes that all layers' rows take now."""
        return sum(rows.nbytes for rows in self._rows)

    def _checked(self, count: int) -> int:
        stop = self.length + count
        if stop > self.capacity:
            raise ContextOverflow(f"the cache holds {self.capacity} tokens and {stop} are needed; make it larger")
        return stop

    def _grown(self, rows_SX: Tensor, needed: int) -> Tensor:
        size = min(self.capacity, max(needed, 2 * rows_SX.shape[0], _FIRST_ROWS))
        # Rows not yet written are NaN, so that a read beyond `length` cannot pass unseen.
        grown = rows_SX.new_full((size, rows_SX.shape[1]), float("nan"))
        grown[: self.length] = rows_SX[: self.length]
        return grown


@dataclass
class Batch:
    """What attention needs to know of a flat batch: positions (T), the length of each sequence, and its cache."""

    positions_T: Tensor
    lengths: tuple[int, ...]
    caches: tuple[Cache, ...] | None = None
    _tables: dict[RopeSpec, tuple[Tensor, Tensor]] = field(default_factory=dict)

    @classmethod
    def fresh(cls, lengths: Sequence[int], device: torch.device) -> "Batch":
        """Whole sequences without a cache, each from position 0."""
        return cls(torch.cat([torch.arange(length, device=device) for length in lengths]), tuple(lengths))

    @classmethod
    def following(cls, count: int, cache: Cache, device: torch.device) -> "Batch":
        """The next `count` tokens of one cached sequence."""
        return cls(torch.arange(cache.length, cache.length + count, device=device), (count,), (cache,))

    def rope(self, spec: RopeSpec) -> tuple[Tensor, Tensor]:
        """cos and sin (T, R/2) of the batch's positions; worked out once for all layers that share a spec."""
        if spec not in self._tables:
            self._tables[spec] = spec.table(self.positions_T)
        return self._tables[spec]

    def sequences(self, layer: int, rows_TX: Tensor) -> Iterator[tuple[slice, Tensor]]:
        """For each sequence, its tokens' place in the batch and all rows that its attention reads."""
        start = 0
        for number, length in enumerate(self.lengths):
            place = slice(start, start + length)
            rows = rows_TX[place]
            yield place, self.caches[number].extend(layer, rows) if self.caches else rows
            start += length
