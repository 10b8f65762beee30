"""Cached rows of several sequences, in pages that lie anywhere: what the paged operations read and write."""

from dataclasses import dataclass

from torch import Tensor

PAGE = 64  # rows of a page


@dataclass(frozen=True)
class PagedRows:
    """One layer's rows of a flat batch: row s of sequence b is row `s % 64` of page `table_BN[b, s // 64]`.

    Shapes: pages (P, 64, X), of any stride between pages and dense within a row; table (B, N) int64, dense: entries
    behind a sequence's last page may name any page. lengths: new tokens of each sequence, in the order of the batch.
    counts: rows of each sequence, the new ones included; counts_B: the same as int64, on the device of the pages. Where
    every length is 1 the reference reads counts_B alone, so that a captured graph can be run again for other counts.
    """

    pages_PSX: Tensor
    table_BN: Tensor
    lengths: tuple[int, ...]
    counts: tuple[int, ...]
    counts_B: Tensor

    def sequence(self, number: int) -> Tensor:
        """A copy of one sequence's rows, one after the other: (S, X)."""
        count = self.counts[number]
        return self.pages_PSX[self.table_BN[number, : -(-count // PAGE)]].flatten(0, 1)[:count]
