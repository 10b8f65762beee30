"""Sampling: what is drawn, how often, what it depends on, and what is reported of it."""

from __future__ import annotations

import itertools
import math
import pickle
from typing import Any

import numpy as np
import pytest
import torch

from seamount import kernels
from seamount.engine import SamplingParams
from seamount.engine.sampler import Drawn, Row, SampleState, draw, log_probabilities
from seamount.errors import RequestError

LOGITS_W = torch.tensor([2.0, 1.0, 0.0, -1.0, 1.0])
W = len(LOGITS_W)


def draws(params: SamplingParams, count: int, sample_index: int = 0) -> list[int]:
    state = SampleState(params, (), sample_index)
    rows = [Row(state, position) for position in range(count)]
    return [drawn.token_id for drawn in draw(LOGITS_W.expand(count, W), rows, W)]


def bitmask(allowed: list[int], size: int) -> np.ndarray:
    bits = np.zeros((size + 31) // 32 * 32, np.uint8)
    bits[allowed] = 1
    return np.packbits(bits, bitorder="little").view(np.uint32)


def kept_tokens(params: SamplingParams) -> list[int]:
    """The filters by hand: top_k, then top_p of what is left, then min_p."""
    probability_W = torch.softmax(LOGITS_W.double() / params.temperature, dim=-1).tolist()
    order = sorted(range(W), key=lambda token: (-probability_W[token], token))[: params.top_k or W]
    total, kept = sum(probability_W[token] for token in order), []
    for token in order:
        if sum(probability_W[other] for other in kept) < params.top_p * total:
            kept.append(token)
    return [token for token in kept if probability_W[token] >= params.min_p * max(probability_W)]


@pytest.mark.parametrize("temperature", [0.5, 1.0, 1.7])
@pytest.mark.parametrize(
    "options", [{}, {"top_p": 0.7}, {"top_k": 3}, {"min_p": 0.3}, {"top_p": 0.8, "top_k": 4, "min_p": 0.1}]
)
def test_draws_follow_the_distribution(temperature: float, options: dict[str, Any]) -> None:
    count, params = 4000, SamplingParams(temperature=temperature, seed=1, **options)
    weight_W = torch.softmax(LOGITS_W.double() / temperature, dim=-1)
    kept = kept_tokens(params)
    seen_W = torch.bincount(torch.tensor(draws(params, count)), minlength=W)
    expected = weight_W[kept] / weight_W[kept].sum() * count
    assert seen_W[kept].sum() == count
    # 18.47 is exceeded once in a thousand at four degrees of freedom; the seed is fixed.
    assert float(((seen_W[kept] - expected) ** 2 / expected).sum()) < 18.47


def test_neighbouring_positions_and_samples_are_independent() -> None:
    params = SamplingParams(seed=3)
    ours, others = draws(params, 4000), draws(params, 4000, sample_index=1)
    probability_W = torch.softmax(LOGITS_W, dim=-1)
    expected = float((probability_W**2).sum())
    deviation = math.sqrt(expected * (1 - expected) / 4000)
    for pairs in (zip(ours, others, strict=True), itertools.pairwise(ours)):
        assert abs(sum(one == other for one, other in pairs) / 4000 - expected) < 4 * deviation


def test_without_a_seed_each_answer_draws_differently() -> None:
    assert draws(SamplingParams(seed=-5), 60) == draws(SamplingParams(seed=-5), 60)
    assert draws(SamplingParams(), 60) != draws(SamplingParams(), 60)


def test_temperature_zero_and_near_zero_take_the_most_likely() -> None:
    for temperature in (0, 1e-300, 1e-6):
        assert set(draws(SamplingParams(temperature=temperature, seed=0), 20)) == {0}


def rows_of_all_kinds(count: int, size: int) -> list[Row]:
    """Answers that differ in everything."""
    rows = []
    for i in range(count):
        params = SamplingParams(
            temperature=i % 3 / 2,
            top_p=1 if i % 2 else 0.9,
            top_k=i % 5 * 10,
            seed=i // 4,
            repetition_penalty=1 + i % 2,
            frequency_penalty=i % 7 / 4,
            logit_bias={3: 5.0} if i % 4 == 1 else {},
            min_tokens=i % 3,
            logprobs=i % 6 if i % 5 else None,
        )
        state = SampleState(params, [1, i % size], i % 4, [7])
        for token in range(i % 3):
            state.push(token)
        mask = bitmask(list(range(i % 11, size, 3)), size) if i % 3 == 0 else None
        rows.append(Row(state, 10 + i, drafts=[2, 2, 5][: i % 4], mask=mask))
    return rows


def test_a_row_is_the_same_alone_and_among_others_and_its_logits_stay() -> None:
    logits_nW = torch.randn(64, 203, generator=torch.Generator().manual_seed(0)) * 3
    rows, before_nW = rows_of_all_kinds(64, 200), logits_nW.clone()
    whole = draw(logits_nW, rows, 200)
    assert torch.equal(logits_nW, before_nW)
    assert len({drawn.token_id for drawn in whole}) > 20
    for i in range(64):
        assert draw(logits_nW[i : i + 1], rows[i : i + 1], 200) == [whole[i]]
    assert draw(logits_nW.flip(0), rows[::-1], 200) == whole[::-1]


def test_drafts_count_as_pushed_and_change_no_state() -> None:
    params = SamplingParams(
        seed=4, presence_penalty=1, frequency_penalty=0.5, repetition_penalty=1.3, min_tokens=4, logit_bias={6: -1}
    )
    tokens = [3, 3, 8, 1, 3]
    logits_nW = torch.randn(6, 50, generator=torch.Generator().manual_seed(1))
    at_once, one_by_one = (SampleState(params, [5, 6, 5], end_token_ids=[0, 49]) for _ in range(2))
    for _ in range(2):
        together = draw(logits_nW, [Row(at_once, 3 + i, drafts=tokens[:i]) for i in range(6)], 50)
    for i in range(6):
        row = Row(one_by_one, 3 + i)
        assert draw(logits_nW[i : i + 1], [row], 50) == [together[i]]
        (ids, values), (other_ids, other_values) = (
            state.draw(logits_nW[i].numpy(), row).edits or ((), ())
            for state, row in ((one_by_one, row), (at_once, Row(at_once, 3 + i, drafts=tokens[:i])))
        )
        assert np.array_equal(ids, other_ids)
        assert np.array_equal(values, other_values)
        one_by_one.push([*tokens, 0][i])


def test_penalties_by_hand() -> None:
    params = SamplingParams(
        repetition_penalty=2, presence_penalty=0.5, frequency_penalty=0.25, logit_bias={0: 1, 3: -100}
    )
    # Token 9 stands for a row of the head that is no token.
    state = SampleState(params, [1, 2, 9])
    for token in (2, 4, 4):
        state.push(token)
    logits_W = torch.tensor([8.0, 8.0, -8.0, 8.0, 8.0, 8.0])
    edits = state.draw(logits_W.numpy(), Row(state, 6)).edits
    assert edits is not None
    # Prompt alone: halved. Prompt and once in the answer: doubled, as it is negative. Twice: 8/2 - 2/4 - 1/2.
    expected = {0: 9.0, 1: 4.0, 2: -16.75, 3: -92.0, 4: 3.0}
    assert dict(zip(edits[0].tolist(), edits[1].tolist(), strict=True)) == expected
    assert SampleState(SamplingParams(), [1, 2]).draw(logits_W.numpy(), Row(state, 6)).edits is None


def test_penalties_forbid_repeats_and_a_bias_chooses() -> None:
    state = SampleState(SamplingParams(temperature=0, presence_penalty=2), [0])
    found = []
    for position in range(4):
        (drawn,) = draw(LOGITS_W[None], [Row(state, position)], W)
        found.append(drawn.token_id)
        state.push(drawn.token_id)
    # 2 1 0 -1 1, then 0 1 0 -1 1, then 0 -1 0 -1 1, then 0 -1 0 -1 -1: the prompt's token 0 counts for nothing.
    assert found == [0, 1, 4, 0]
    biased = SampleState(SamplingParams(temperature=0, logit_bias={3: 100}), ())
    assert draw(LOGITS_W[None], [Row(biased, 0)], W) == [Drawn(3)]


def test_an_answer_does_not_end_before_min_tokens() -> None:
    params = SamplingParams(temperature=0, min_tokens=2, stop_token_ids=(1,))
    state = SampleState(params, (), end_token_ids=[0])
    assert state.end_tokens == {0, 1}
    rows = [Row(state, i, drafts=[3] * i) for i in range(3)]
    assert [drawn.token_id for drawn in draw(LOGITS_W.expand(3, W), rows, W)] == [4, 4, 0]
    # A grammar that has come to its end wins.
    assert draw(LOGITS_W[None], [Row(state, 0, mask=bitmask([0], W))], W) == [Drawn(0)]
    ignoring = SampleState(SamplingParams(temperature=0, min_tokens=2, ignore_eos=True), (), end_token_ids=[0])
    assert not ignoring.end_tokens
    assert draw(LOGITS_W[None], [Row(ignoring, 0)], W) == [Drawn(0)]


def test_a_mask_is_respected_and_one_that_allows_nothing_is_our_fault() -> None:
    for temperature in (0, 1.0):
        state = SampleState(SamplingParams(temperature=temperature, seed=0, logit_bias={0: 100}), ())
        rows = [Row(state, position, mask=bitmask([2, 3], W)) for position in range(60)]
        found = {drawn.token_id for drawn in draw(LOGITS_W.expand(60, W), rows, W)}
        assert found == ({2, 3} if temperature else {2})
        with pytest.raises(AssertionError, match="no token is allowed"):
            draw(LOGITS_W[None], [Row(state, 0, mask=bitmask([], W))], W)
        assert draw(torch.full((1, W), torch.nan), [Row(state, 0)], W) == [None]


def test_padding_rows_of_the_head_are_not_drawn_and_have_no_probability() -> None:
    padded_nW = torch.cat((LOGITS_W, torch.tensor([100.0, 100.0])))[None]
    state = SampleState(SamplingParams(seed=1, logprobs=20), ())
    ours, plain = draw(padded_nW, [Row(state, 0)], W), draw(LOGITS_W[None], [Row(state, 0)], W)
    assert ours == plain
    assert sum(math.exp(logprob) for _, logprob in ours[0].top) == pytest.approx(1)


def test_log_probabilities_are_the_canonical_kernel_s_whatever_the_options() -> None:
    logits_nW = (torch.randn(30, 300, generator=torch.Generator().manual_seed(2)) * 2).round()
    logprobs_nW = kernels.log_softmax(logits_nW)
    params = SamplingParams(seed=1, temperature=0.7, top_k=8, logit_bias={5: 3}, frequency_penalty=1, logprobs=7)
    state = SampleState(params, [5])
    for row, drawn in enumerate(draw(logits_nW, [Row(state, i) for i in range(30)], 300)):
        assert drawn.logprob == float(logprobs_nW[row, drawn.token_id])
        best = sorted(range(300), key=lambda token, row=row: (-float(logprobs_nW[row, token]), token))[:7]
        assert drawn.top == tuple((token, float(logprobs_nW[row, token])) for token in best)
        assert dict(drawn.top).get(drawn.token_id, drawn.logprob) == drawn.logprob
    found = log_probabilities(logits_nW[:2], [4, 290], [0, 3], 300)
    assert [logprob for logprob, _ in found] == [float(logprobs_nW[0, 4]), float(logprobs_nW[1, 290])]
    assert [len(top) for _, top in found] == [0, 3]
    assert draw(LOGITS_W[None], [Row(SampleState(SamplingParams(temperature=0, logprobs=0), ()), 0)], W) == [
        Drawn(0, float(kernels.log_softmax(LOGITS_W)[0]))
    ]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("max_tokens", 0),
        ("max_tokens", 1.5),
        ("max_tokens", True),
        ("temperature", -0.1),
        ("temperature", math.nan),
        ("temperature", math.inf),
        ("temperature", "1"),
        ("top_p", 0),
        ("top_p", 1.01),
        ("top_p", math.nan),
        ("seed", 2**63),
        ("seed", 0.5),
        ("stop", "text"),
        ("stop", ("",)),
        ("stop", (1,)),
        ("stop", tuple("abcdefghijklmnopq")),
        ("n", 0),
        ("n", 129),
        ("min_tokens", -1),
        ("top_k", -2),
        ("top_k", 1.0),
        ("min_p", -0.1),
        ("min_p", 1.1),
        ("presence_penalty", 2.1),
        ("frequency_penalty", -2.1),
        ("frequency_penalty", None),
        ("repetition_penalty", 0),
        ("repetition_penalty", math.inf),
        ("logit_bias", {1: 101}),
        ("logit_bias", {-1: 1}),
        ("logit_bias", {"1": 1}),
        ("logit_bias", [(1, 1)]),
        ("stop_token_ids", [1]),
        ("stop_token_ids", (-1,)),
        ("ignore_eos", 1),
        ("logprobs", 21),
        ("logprobs", True),
        ("prompt_logprobs", -1),
    ],
)
def test_params_out_of_range_are_refused_by_name(field: str, value: object) -> None:
    with pytest.raises(RequestError, match=f"^{field} = .*allowed is") as caught:
        SamplingParams(**{field: value})  # type: ignore[arg-type]
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)


def test_params_that_do_not_fit_together_or_into_the_vocabulary_are_refused_by_name() -> None:
    with pytest.raises(RequestError, match=r"^min_tokens = 3; allowed is at most max_tokens, 2"):
        SamplingParams(max_tokens=2, min_tokens=3)
    for options in ({"logit_bias": {10: 1.0}}, {"stop_token_ids": (9, 10)}):
        SamplingParams(**options).require_vocabulary(11)  # type: ignore[arg-type]
        with pytest.raises(RequestError, match=f"^{next(iter(options))} = .*allowed is token ids from 0 to 9"):
            SamplingParams(**options).require_vocabulary(10)  # type: ignore[arg-type]
    params = SamplingParams(n=2, top_k=-1, logit_bias={1: -100, 2: 100.0}, logprobs=0)
    assert pickle.loads(pickle.dumps(params)) == params
