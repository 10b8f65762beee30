"""Cached rows of several sequences, in pages that lie anywhere: what the paged operations read and write."""

from dataclasses import dataclass

import torch
from torch import Tensor

from seamount.kernels.row_format import RowFormat

PAGE = 64
"""Rows of a page, and tokens: attention folds rows page by page, so this is part of the order of sums."""


@dataclass(frozen=True)
class PagedRows:
    """One layer's rows of a flat batch: row s of sequence b is row `s % 64` of page `table_BN[b, s // 64]`.

    Shapes: pages (P, 64, X), of any stride between pages and dense within a row; table (B, N) int64, dense: entries
    behind a sequence's last page may name any page. lengths: new tokens of each sequence, in the order of the batch.
    counts: rows of each sequence, the new ones included; counts_B: the same as int64, on the device of the pages. Where
    every length is 1 the reference reads counts_B alone, so that a captured graph can be run again for other counts.
    format: of rows that are compressed; their pages are uint8, (P, 64, format.nbytes).
    """

    pages_PSX: Tensor
    table_BN: Tensor
    lengths: tuple[int, ...]
    counts: tuple[int, ...]
    counts_B: Tensor
    format: RowFormat | None = None

    @property
    def dim(self) -> int:
        """Numbers of a row."""
        return self.format.dim if self.format else self.pages_PSX.shape[2]

    def sequence(self, number: int, dtype: torch.dtype) -> Tensor:
        """A copy of one sequence's rows, one after the other: (S, X)."""
        count = self.counts[number]
        return self.decoded(self.pages_PSX[self.table_BN[number, : -(-count // PAGE)]], dtype).flatten(0, 1)[:count]

    def decoded(self, rows_PSX: Tensor, dtype: torch.dtype) -> Tensor:
        """Rows of the pages as numbers."""
        return self.format.decode(rows_PSX, dtype) if self.format else rows_PSX.to(dtype)
