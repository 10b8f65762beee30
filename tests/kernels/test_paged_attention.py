"""Attention over pages: the bits of each sequence alone over rows in one piece, and nothing of anybody else's rows."""

from collections.abc import Callable
from typing import NamedTuple

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from test_canonical import DTYPES, THREADS, Threads, same, values
from torch import Tensor

from seamount import kernels
from seamount.errors import ConfigError
from seamount.kernels import PagedRows, RowFormat, reference
from seamount.kernels.paged import PAGE

KINDS = ["latent", "grouped"]


class Case(NamedTuple):
    """Sequences of `counts` rows, of which the last `lengths` are the batch's, and H heads over G of N numbers."""

    lengths: tuple[int, ...]
    counts: tuple[int, ...]
    H: int
    G: int
    N: int

    def width(self, kind: str) -> int:
        """Numbers of a cached row."""
        return self.N if kind == "latent" else 2 * self.G * self.N


def sequences(case: Case, kind: str, dtype: torch.dtype) -> tuple[list[Tensor], list[Tensor]]:
    """Queries of the new tokens, and all rows, of each sequence."""
    each = list(enumerate(zip(case.lengths, case.counts, strict=True)))
    queries = [values(length, case.H, case.N, dtype=dtype, seed=2 * b) for b, (length, _) in each]
    return queries, [values(count, case.width(kind), dtype=dtype, seed=2 * b + 1) for b, (_, count) in each]


def pages_for(case: Case, kind: str, dtype: torch.dtype, format: RowFormat | None = None) -> PagedRows:
    """Empty pages, in a random order, of the second of three layers that share a page; all is poisoned."""
    needed = [-(-count // PAGE) for count in case.counts]
    B, N, X = len(needed), max(needed) + 1, case.width(kind)
    order = torch.randperm(sum(needed) + 1, generator=torch.Generator().manual_seed(B))
    # What a table holds behind a sequence's pages is a page of nobody.
    table_BN, rest = order[-1].repeat(B, N), order
    for b, count in enumerate(needed):
        table_BN[b, :count], rest = rest[:count], rest[count:]
    pool = torch.full((len(order), 3, PAGE, X), float("nan"), dtype=dtype)
    if format is not None:
        pool = torch.full((len(order), 3, PAGE, format.nbytes), 255, dtype=torch.uint8)
    return PagedRows(pool[:, 1], table_BN, case.lengths, case.counts, torch.tensor(case.counts), format)


def filled(case: Case, rows: PagedRows, rows_of: list[Tensor], module: object = kernels) -> PagedRows:
    """The rows written: what came before in two steps, then the batch's."""
    before = tuple(count - length for count, length in zip(case.counts, case.lengths, strict=True))
    half = tuple((count + 1) // 2 for count in before)
    for start, stop in (((0,) * len(half), half), (half, before), (before, case.counts)):
        chosen = [b for b in range(len(half)) if stop[b] > start[b]]
        if not chosen:
            continue
        lengths, counts = tuple(stop[b] - start[b] for b in chosen), tuple(stop[b] for b in chosen)
        part = PagedRows(rows.pages_PSX, rows.table_BN[chosen], lengths, counts, torch.tensor(counts), rows.format)
        module.write_rows(part, torch.cat([rows_of[b][start[b] : stop[b]] for b in chosen]))
    return rows


def paged(case: Case, kind: str, module: object, queries: list[Tensor], rows: PagedRows) -> tuple[Tensor, ...]:
    """The results of each sequence."""
    q_THN, scale = torch.cat(queries), case.N**-0.5
    if kind == "latent":
        return module.paged_latent_attention(q_THN, rows, case.N - 3, scale).split(case.lengths)
    return module.paged_causal_attention(q_THN, rows, case.G, scale).split(case.lengths)


def alone(case: Case, kind: str, module: object) -> Callable[[Tensor, Tensor], Tensor]:
    """The attention of one sequence over rows in one piece."""
    if kind == "latent":
        return lambda q, rows: module.latent_attention(q, rows, case.N - 3, case.N**-0.5)

    def grouped(q: Tensor, rows: Tensor) -> Tensor:
        rows_SGN = rows.unflatten(1, (2 * case.G, case.N))
        return module.causal_attention(q, rows_SGN[:, : case.G], rows_SGN[:, case.G :], case.N**-0.5)

    return grouped


@st.composite
def cases(draw: st.DrawFn) -> Case:
    """Decode tokens, chunks and whole prompts beside each other."""
    size = st.tuples(st.one_of(st.just(1), st.integers(1, 90)), st.one_of(st.just(0), st.integers(0, 200)))
    sizes = draw(st.lists(size, min_size=1, max_size=6))
    H, G = draw(st.sampled_from([(1, 1), (4, 2), (9, 3), (20, 1), (40, 2)]))
    lengths = tuple(length for length, _ in sizes)
    return Case(lengths, tuple(sum(pair) for pair in sizes), H, G, draw(st.sampled_from([8, 24, 64])))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kind", KINDS)
@given(case=cases())
@settings(max_examples=12, deadline=None)
def test_every_sequence_of_a_batch_has_the_bits_of_itself_alone(dtype: torch.dtype, kind: str, case: Case) -> None:
    queries, rows_of = sequences(case, kind, dtype)
    rows = filled(case, pages_for(case, kind, dtype), rows_of)
    expected = [alone(case, kind, kernels)(q, own) for q, own in zip(queries, rows_of, strict=True)]
    for threads in THREADS:
        with Threads(threads):
            for ours, theirs in zip(paged(case, kind, kernels, queries, rows), expected, strict=True):
                assert same(ours, theirs)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kind", KINDS)
def test_long_sequences_are_divided_among_threads_without_changing_a_bit(dtype: torch.dtype, kind: str) -> None:
    """Few units are split by segments of 512 rows: of the longest, and of those that have fewer."""
    case = Case((1, 2, 1), (1300, 30, 513), 4, 1, 32)
    queries, rows_of = sequences(case, kind, dtype)
    rows = filled(case, pages_for(case, kind, dtype), rows_of)
    for threads in THREADS:
        with Threads(threads):
            results = paged(case, kind, kernels, queries, rows)
            for ours, q, own in zip(results, queries, rows_of, strict=True):
                assert same(ours, alone(case, kind, kernels)(q, own))


@pytest.mark.parametrize("dtype", [*DTYPES, torch.float64])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "case",
    [
        Case((1,), (1,), 1, 1, 8),
        Case((1, 1, 1), (64, 65, 3), 4, 2, 24),
        Case((3, 1, 70), (200, 64, 70), 9, 3, 40),
    ],
)
def test_pages_give_the_numbers_of_the_reference_in_one_piece(dtype: torch.dtype, kind: str, case: Case) -> None:
    queries, rows_of = sequences(case, kind, dtype)
    exact = [alone(case, kind, reference)(q.double(), own.double()) for q, own in zip(queries, rows_of, strict=True)]
    tolerance = {torch.float64: 1e-12, torch.float32: 2e-6, torch.bfloat16: 2**-6}[dtype]
    for module in (kernels, reference):
        rows = filled(case, pages_for(case, kind, dtype), rows_of, module)
        for ours, theirs in zip(paged(case, kind, module, queries, rows), exact, strict=True):
            assert ours.dtype is dtype
            torch.testing.assert_close(ours.double(), theirs, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("module", [kernels, reference])
@pytest.mark.parametrize("dtype", DTYPES)
def test_writing_touches_the_new_rows_alone(module: object, dtype: torch.dtype) -> None:
    case = Case((2, 1, 66), (65, 64, 130), 1, 1, 37)
    _, rows_of = sequences(case, "latent", dtype)
    rows = pages_for(case, "latent", dtype)
    pool = rows.pages_PSX._base
    assert pool is not None
    news = [own[count - length :] for own, length, count in zip(rows_of, case.lengths, case.counts, strict=True)]
    module.write_rows(rows, torch.cat(news))
    for b, new in enumerate(news):
        for s, row_X in enumerate(new, start=case.counts[b] - case.lengths[b]):
            assert same(rows.pages_PSX[rows.table_BN[b, s // PAGE], s % PAGE], row_X)
    assert int(pool.isfinite().sum()) == sum(case.lengths) * 37


def test_single_tokens_read_counts_from_their_tensor() -> None:
    """As a captured step does when it runs again: the numbers in the tuple are those of the first time."""
    case = Case((1, 1), (100, 7), 4, 2, 8)
    for kind in KINDS:
        queries, rows_of = sequences(case, kind, torch.float64)
        rows = filled(case, pages_for(case, kind, torch.float64), rows_of, reference)
        stale = PagedRows(rows.pages_PSX, rows.table_BN, case.lengths, (1, 1), rows.counts_B)
        for ours, theirs in zip(*(paged(case, kind, reference, queries, r) for r in (stale, rows)), strict=True):
            assert torch.equal(ours, theirs)


def format_for(case: Case, kind: str) -> RowFormat:
    """Most of a latent row, or all of a row of heads."""
    if kind == "latent":
        group = 16 if case.N < 100 else 48
        return RowFormat(case.N, case.N // group * group, group)
    return RowFormat(case.width(kind), case.width(kind), case.N)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kind", KINDS)
@given(case=cases(), N=st.sampled_from([16, 48, 112]))
@settings(max_examples=8, deadline=None)
def test_compressed_rows_give_the_bits_of_what_they_decode_to(
    dtype: torch.dtype, kind: str, case: Case, N: int
) -> None:
    case = case._replace(N=N)
    format, (queries, rows_of) = format_for(case, kind), sequences(case, kind, dtype)
    stored = filled(case, pages_for(case, kind, dtype, format), rows_of)
    specified = filled(case, pages_for(case, kind, dtype, format), rows_of, reference)
    assert torch.equal(stored.pages_PSX, specified.pages_PSX)
    decoded = [format.decode(format.encode(own), dtype) for own in rows_of]
    expected = [alone(case, kind, kernels)(q, own) for q, own in zip(queries, decoded, strict=True)]
    exact = paged(case, kind, reference, [q.double() for q in queries], specified)
    for threads in THREADS:
        with Threads(threads):
            results = paged(case, kind, kernels, queries, stored)
            for ours, theirs in zip(results, expected, strict=True):
                assert same(ours, theirs)
    if dtype is torch.float32:
        for ours, theirs in zip(results, exact, strict=True):
            torch.testing.assert_close(ours.double(), theirs, rtol=2e-6, atol=2e-6)


def test_a_compressed_number_is_off_by_half_a_step_at_most() -> None:
    format = RowFormat(576, 512, 128)
    assert format.nbytes == 656
    rows_TX = values(40, 576, dtype=torch.float32) * torch.logspace(-33, 5, 40)[:, None]
    rows_TX[7] = 0
    decoded_TX = format.decode(format.encode(rows_TX), torch.float32)
    step_TG = rows_TX[:, :512].unflatten(1, (4, 128)).abs().amax(-1).clamp(min=1e-30) / 127
    error_TG = (decoded_TX - rows_TX)[:, :512].unflatten(1, (4, 128)).abs().amax(-1)
    assert (error_TG <= 0.5001 * step_TG).all()
    assert torch.equal(decoded_TX[:, 512:], rows_TX[:, 512:].bfloat16().float())


@pytest.mark.parametrize("module", [kernels, reference])
@pytest.mark.parametrize("odd", [float("nan"), float("inf"), float("-inf")])
def test_what_is_no_finite_number_is_not_hidden_by_compression(module: object, odd: float) -> None:
    case = Case((3,), (3,), 1, 1, 48)
    rows = pages_for(case, "latent", torch.float32, RowFormat(48, 32, 16))
    rows_SX = values(3, 48, dtype=torch.float32)
    rows_SX[1, 20] = odd
    module.write_rows(rows, rows_SX)
    decoded_SX = rows.sequence(0, torch.float32)
    assert decoded_SX[1, 16:32].isnan().all()
    assert int(decoded_SX.isnan().sum()) == 16
    assert paged(case, "latent", module, [values(3, 1, 48, dtype=torch.float32)], rows)[0][1:].isnan().any()


def test_a_width_that_vectors_do_not_fill_is_refused() -> None:
    with pytest.raises(ConfigError, match="groups of 24"):
        RowFormat(48, 48, 24)
