"""Where cached rows lie in memory, and writing new ones there."""

from itertools import chain
from typing import NamedTuple

import torch
from torch import Tensor

from seamount.kernels.cpu.compressed_rows import encode
from seamount.kernels.cpu.launch import argument, launch
from seamount.kernels.cpu.vector import load_bytes, read_half, read_int64, store_bytes, write_half
from seamount.kernels.paged import PAGE, PagedRows


class Places(NamedTuple):
    """The address of page 0, bytes of a page and of a row, page numbers (B, N), tokens and rows of each sequence.

    compressed, row_group: of the rows' RowFormat, 0 for none.
    """

    base: int
    page_bytes: int
    row_bytes: int
    table_BN: Tensor
    lengths: tuple[int, ...]
    counts: tuple[int, ...]
    compressed: int = 0
    row_group: int = 0


def in_one_piece(rows: Tensor, T: int) -> Places:
    """The rows of one sequence, one after the other, of which the last T are new."""
    S, row_bytes = rows.shape[0], rows.stride(0) * rows.element_size()
    return Places(rows.data_ptr(), PAGE * row_bytes, row_bytes, torch.arange((S + PAGE - 1) // PAGE)[None], (T,), (S,))


def in_pages(rows: PagedRows) -> Places:
    """The rows of a batch in their pages."""
    pages, table = rows.pages_PSX, rows.table_BN
    assert pages.shape[1] == PAGE, f"pages hold {PAGE} rows"
    assert pages.stride(2) == 1, "a row must be dense"
    assert table.is_contiguous(), "page numbers must be dense"
    # The kernels check no address.
    assert max(rows.counts) <= table.shape[1] * PAGE, f"{table.shape[1]} pages are too few for {max(rows.counts)} rows"
    page_bytes, row_bytes = (stride * pages.element_size() for stride in pages.stride()[:2])
    format = (rows.format.compressed, rows.format.group) if rows.format else ()
    return Places(pages.data_ptr(), page_bytes, row_bytes, table, rows.lengths, rows.counts, *format)


# The arguments of the kernel, in order; from SEQUENCES on of each sequence its tokens and its rows.
(
    BASE, PAGE_BYTES, ROW_BYTES, TABLE, TABLE_STEP, SOURCE, SOURCE_STEP, WIDTH, COUNT, IS_BFLOAT16, COMPRESSED,
    ROW_GROUP, SEQUENCES,
) = range(13)  # fmt: skip


def _write(arguments, phase, worker, workers):
    """Copy every token's row of WIDTH bytes to its place, or encode it there."""
    width, source = argument(arguments, WIDTH), argument(arguments, SOURCE)
    whole = width // 64 * 64
    is_bfloat16, compressed = argument(arguments, IS_BFLOAT16) != 0, argument(arguments, COMPRESSED)
    for number in range(argument(arguments, COUNT)):
        pages = argument(arguments, TABLE) + number * argument(arguments, TABLE_STEP)
        count = argument(arguments, SEQUENCES + 2 * number + 1)
        for row in range(count - argument(arguments, SEQUENCES + 2 * number), count):
            page = read_int64(pages + row // PAGE * 8)
            place = argument(arguments, BASE) + page * argument(arguments, PAGE_BYTES)
            place += row % PAGE * argument(arguments, ROW_BYTES)
            if compressed != 0:
                dim = width // (2 if is_bfloat16 else 4)
                encode(source, is_bfloat16, 0, dim, compressed, argument(arguments, ROW_GROUP), place)
            else:
                for i in range(0, whole, 64):
                    store_bytes(place + i, load_bytes(source + i))
                for i in range(whole, width, 2):
                    write_half(place + i, read_half(source + i))
            source += argument(arguments, SOURCE_STEP)


def write_rows(rows: PagedRows, rows_TX: Tensor) -> None:
    """See reference.write_rows: float32 or bfloat16, on the CPU. Cost: each row is read and written once."""
    places = in_pages(rows)
    rows_TX = rows_TX if rows_TX.stride(1) == 1 else rows_TX.contiguous()
    assert rows_TX.shape == (sum(rows.lengths), rows.dim), "one row for each new token"
    size = rows_TX.element_size()
    arguments = (
        places.base, places.page_bytes, places.row_bytes, places.table_BN.data_ptr(), places.table_BN.shape[1] * 8,
        rows_TX.data_ptr(), rows_TX.stride(0) * size, rows_TX.shape[1] * size, len(rows.lengths),
        rows_TX.dtype is torch.bfloat16, places.compressed, places.row_group,
        *chain.from_iterable(zip(rows.lengths, rows.counts, strict=True)),
    )  # fmt: skip
    launch(_write, arguments)
