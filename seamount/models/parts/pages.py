"""Where cached rows live: a pool of pages, each of 64 tokens, and for every sequence a table of the pages that it uses.

A page is one block of bytes that holds its tokens' rows of every layer, layer after layer: it is copied, checked and
written to disk as one piece, and a layer may keep rows of any width, or several kinds of them.
"""

from collections.abc import Sequence
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from seamount.errors import ContextOverflow
from seamount.kernels import RowFormat
from seamount.kernels.cpu.memory import zeros
from seamount.kernels.paged import PAGE


class PageLayout:
    """The bytes of a page: for each layer 64 rows of so many numbers, in the layer's format, or else as `dtype`."""

    def __init__(self, dims: Sequence[int], dtype: torch.dtype, formats: Sequence[RowFormat] = ()) -> None:
        self.dims, self.dtype = tuple(dims), dtype
        self.formats: tuple[RowFormat | None, ...] = tuple(formats) or (None,) * len(self.dims)
        each = zip(self.dims, self.formats, strict=True)
        self.row_bytes = tuple(form.nbytes if form else dim * dtype.itemsize for dim, form in each)
        sizes = [PAGE * size for size in self.row_bytes]
        # 64 rows of whole numbers are a multiple of 64 bytes: every layer begins where a cache line does.
        self.offsets = tuple(sum(sizes[:layer]) for layer in range(len(sizes)))
        self.nbytes = sum(sizes)

    @property
    def description(self) -> str:
        """What tells this layout from others."""
        plain = f"{PAGE} rows of {self.dims} as {self.dtype}"
        return f"{plain}, stored as {self.formats}" if any(self.formats) else plain


class Pages:
    """The memory of `count` pages. Nothing here knows which are in use."""

    def __init__(self, layout: PageLayout, count: int, device: torch.device) -> None:
        self.layout, self.count = layout, count
        shape = (count, layout.nbytes)
        if device.type == "cpu":
            self.memory = zeros(max(1, count * layout.nbytes))[: count * layout.nbytes].view(shape)
        else:
            self.memory = torch.zeros(shape, dtype=torch.uint8, device=device)
        self._rows = [self._view(layer) for layer in range(len(layout.dims))]

    def rows(self, layer: int) -> Tensor:
        """A layer's rows in all pages: (P, 64, X); compressed rows as uint8."""
        return self._rows[layer]

    @cached_property
    def addresses_L(self) -> np.ndarray:
        """Where each layer's first row of page 0 stands in memory; page p's is `p * layout.nbytes` behind it."""
        return self.memory.data_ptr() + np.array(self.layout.offsets, np.int64)

    def copy(self, source: int, target: int) -> None:
        """Make one page equal to another."""
        self.memory[target].copy_(self.memory[source])

    def _view(self, layer: int) -> Tensor:
        layout, row_bytes = self.layout, self.layout.row_bytes[layer]
        numbers = self.memory if layout.formats[layer] else self.memory.view(layout.dtype)
        size = numbers.element_size()
        shape, width = (self.count, PAGE, row_bytes // size), row_bytes // size
        return numbers.as_strided(shape, (layout.nbytes // size, width, 1), layout.offsets[layer] // size)


class Cache:
    """The rows of one sequence: the numbers of the pages that hold them, in order, and how many rows are written.

    capacity: the most tokens; by default as many as the table's pages hold. A table may be longer than what is in use.
    """

    def __init__(self, pages: Pages, table: Sequence[int] | np.ndarray, capacity: int | None = None) -> None:
        self.pages, self.length = pages, 0
        self.table = np.array(table, np.int64)
        self.capacity = len(table) * PAGE if capacity is None else capacity

    def at(self, length: int) -> "Cache":
        """The same pages as if so many rows were written, for layers that are behind or ahead of the others."""
        cache = Cache(self.pages, self.table, self.capacity)
        cache.length = length
        return cache

    def require(self, count: int) -> None:
        """Errors: ContextOverflow if there is no room for so many more tokens."""
        if self.length + count > self.capacity:
            raise ContextOverflow(
                f"the cache holds {self.capacity} tokens and {self.length + count} are needed; make it larger"
            )

    def advance(self, count: int) -> None:
        """Count the newest rows as cached."""
        self.length += count


def new_caches(layout: PageLayout, capacities: Sequence[int], device: torch.device) -> tuple[Cache, ...]:
    """Empty caches for so many tokens each, in a pool of their own."""
    counts = [-(-capacity // PAGE) for capacity in capacities]
    pages, ends = Pages(layout, sum(counts), device), np.cumsum(counts)
    tables = [range(end - count, end) for end, count in zip(ends, counts, strict=True)]
    return tuple(Cache(pages, table, capacity) for table, capacity in zip(tables, capacities, strict=True))
