"""Limits by a clock that is put forward by hand: nothing more than allowed gets in, and nothing leaks."""

import gc
import pickle
from datetime import UTC, datetime
from pathlib import Path

import pytest
from entries import entry
from hypothesis import given
from hypothesis import strategies as st
from test_keys import Clock
from test_ledger import write_all

from seamount.errors import BudgetExceeded, RateLimited
from seamount.server.metering import Key, KeyTerms, Ledger, Limiter, Records, anthropic_headers
from seamount.server.metering.buckets import TokenBucket
from seamount.server.metering.limit_headers import duration


class NothingSpent(Records):
    """A ledger without rows."""

    def __init__(self) -> None:
        super().__init__(Path("nowhere"))

    def spent_by_key(self, currency: str, since: float | None = None) -> dict[str, int]:
        return {}


def key(**terms: object) -> Key:
    return Key("id", "somebody", KeyTerms(**terms), created=0.0, revoked=None, secret_hash=b"")


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def limiter(clock: Clock) -> Limiter:
    return Limiter(NothingSpent(), "USD", clock=clock, now=clock)


WAITS = st.floats(0, 100, allow_nan=False)


@given(st.integers(1, 1000), st.lists(st.tuples(WAITS, st.integers(1, 1500)), max_size=40))
def test_a_bucket_gives_no_more_than_its_capacity_and_what_came_in(
    capacity: int, asked: list[tuple[float, int]]
) -> None:
    bucket, now, taken = TokenBucket(capacity, 0.0), 0.0, []
    for wait, amount in asked:
        now += wait
        if bucket.fits(amount, now):
            bucket.take(amount, now)
            taken.append((now, amount))
    for first, (begin, _) in enumerate(taken):
        for last, (end, _) in enumerate(taken[first:], first):
            given_out = sum(amount for _, amount in taken[first : last + 1])
            assert given_out <= capacity * (1 + (end - begin) / 60) + 1e-3


@given(st.integers(1, 1000), st.lists(st.tuples(WAITS, st.integers(-2000, 2000)), max_size=40), st.integers(1, 1000))
def test_a_buckets_wait_is_long_enough_and_no_longer(
    capacity: int, taken: list[tuple[float, int]], amount: int
) -> None:
    bucket, now = TokenBucket(capacity, 0.0), 0.0
    for wait, one in taken:
        now += wait
        bucket.take(one, now)
        assert bucket.level(now) <= capacity
    amount = min(amount, capacity)
    wait = bucket.seconds_until(amount, now)
    assert bucket.fits(amount, now + wait + 1e-6)
    assert wait == 0 or not bucket.fits(amount, now + wait * 0.99 - 1e-3)


@given(st.lists(st.tuples(WAITS, st.integers(0, 300), st.integers(0, 300)), min_size=1, max_size=30))
def test_a_key_gets_its_tokens_and_debts_are_paid(asked: list[tuple[float, int, int]]) -> None:
    clock, used = Clock(), 0
    limiter, begin = Limiter(NothingSpent(), "USD", clock=clock, now=clock), clock.now
    for wait, estimate, actual in asked:
        clock.now += wait
        try:
            lease = limiter.admit(key(tokens_per_minute=100), estimate)
        except RateLimited as error:
            clock.now += error.seconds + 1e-6
            lease = limiter.admit(key(tokens_per_minute=100), estimate)
        assert used - 100 <= 100 * (clock.now - begin) / 60 + 1e-3
        lease.settle(actual, 0)
        used += actual


def test_requests_per_minute(limiter: Limiter, clock: Clock) -> None:
    headers = [limiter.admit(key(requests_per_minute=3), 10).headers for _ in range(3)]
    assert [one["x-ratelimit-remaining-requests"] for one in headers] == ["2", "1", "0"]
    assert [one["x-ratelimit-reset-requests"] for one in headers] == ["20s", "40s", "1m0s"]
    assert "x-ratelimit-limit-tokens" not in headers[0]
    with pytest.raises(RateLimited, match="3 requests per minute; try again in 20s") as refused:
        limiter.admit(key(requests_per_minute=3), 10)
    assert refused.value.seconds == pytest.approx(20)
    assert refused.value.headers["retry-after"] == "20"
    assert refused.value.headers["x-ratelimit-limit-requests"] == "3"
    clock.now += 20
    limiter.admit(key(requests_per_minute=3), 10)


def test_anthropics_headers_tell_when(limiter: Limiter, clock: Clock) -> None:
    some = key(requests_per_minute=3, tokens_per_minute=100)
    assert limiter.admit(some, 30, anthropic_headers).headers == {
        "anthropic-ratelimit-requests-limit": "3",
        "anthropic-ratelimit-requests-remaining": "2",
        "anthropic-ratelimit-requests-reset": "2026-09-21T14:13:40Z",
        "anthropic-ratelimit-tokens-limit": "100",
        "anthropic-ratelimit-tokens-remaining": "70",
        "anthropic-ratelimit-tokens-reset": "2026-09-21T14:13:38Z",
    }


def test_a_refusal_costs_nothing(limiter: Limiter) -> None:
    strict = key(requests_per_minute=2, tokens_per_minute=100)
    limiter.admit(strict, 60)
    for _ in range(5):
        with pytest.raises(RateLimited, match="tokens"):
            limiter.admit(strict, 60)
    assert limiter.admit(strict, 40).headers["x-ratelimit-remaining-requests"] == "0"


def test_tokens_are_counted_as_they_were_used(limiter: Limiter) -> None:
    some = key(tokens_per_minute=100)
    with limiter.admit(some, 90) as lease:
        assert lease.headers["x-ratelimit-remaining-tokens"] == "10"
        lease.settle(30, 0)
        lease.settle(30, 0)  # counts once
    assert limiter.admit(some, 0).headers["x-ratelimit-remaining-tokens"] == "70"
    with limiter.admit(some, 50):
        pass  # not settled, so nothing was used
    assert limiter.admit(some, 0).headers["x-ratelimit-remaining-tokens"] == "70"


def test_a_request_of_more_than_a_minutes_tokens_gets_in_and_is_paid_for(limiter: Limiter, clock: Clock) -> None:
    some = key(tokens_per_minute=100)
    limiter.admit(some, 1_000_000).settle(250, 0)
    with pytest.raises(RateLimited) as refused:
        limiter.admit(some, 1)
    assert refused.value.seconds == pytest.approx(151 * 0.6)
    clock.now += refused.value.seconds
    limiter.admit(some, 1)


@pytest.mark.parametrize("ending", ["settled", "left", "failed", "forgotten"])
def test_a_place_is_free_again_however_its_request_ends(limiter: Limiter, ending: str) -> None:
    alone = key(concurrency=1)
    lease = limiter.admit(alone, 1)
    with pytest.raises(RateLimited, match="1 requests at the same time"):
        limiter.admit(alone, 1)
    if ending == "settled":
        lease.settle(1, 1)
    elif ending == "left":
        with lease:
            pass
    elif ending == "failed":
        with pytest.raises(ZeroDivisionError), lease:
            raise ZeroDivisionError
    else:
        del lease
        gc.collect()
    limiter.admit(alone, 1)


def test_keys_do_not_share_their_limits(limiter: Limiter) -> None:
    one, other = key(concurrency=1), Key("other", "other", KeyTerms(concurrency=1), 0.0, None, b"")
    leases = [limiter.admit(one, 1), limiter.admit(other, 1)]
    assert len(leases) == 2


def test_without_a_key_nothing_limits(limiter: Limiter) -> None:
    leases = [limiter.admit(None, 10**9) for _ in range(1000)]
    assert leases[0].headers == {}
    leases[0].settle(5, 5)


def test_a_budget_ends(limiter: Limiter) -> None:
    some = key(budget=1_000_000_000_000, budget_period="total")
    limiter.admit(some, 1).settle(1, 999_999_999_999)
    limiter.admit(some, 1).settle(1, 1)
    with pytest.raises(BudgetExceeded, match="'somebody' has spent 1 of 1 USD; ask"):
        limiter.admit(some, 1)


def test_a_months_budget_begins_again(limiter: Limiter, clock: Clock) -> None:
    clock.now = datetime(2026, 12, 31, 23, 59, tzinfo=UTC).timestamp()
    some = key(budget=10)
    limiter.admit(some, 1).settle(1, 10)
    with pytest.raises(BudgetExceeded, match=r"until 2027-01-01 \(UTC\)"):
        limiter.admit(some, 1)
    clock.now += 60
    limiter.admit(some, 1)


def test_a_budget_in_another_currency_is_not_taken_for_none(limiter: Limiter) -> None:
    with pytest.raises(BudgetExceeded, match=r"EUR.*USD"):
        limiter.admit(key(budget=10, currency="EUR"), 1)


@pytest.mark.parametrize(("period", "spent"), [("month", 50), ("total", 73)])
def test_what_was_spent_before_the_start_counts(tmp_path: Path, clock: Clock, period: str, spent: int) -> None:
    clock.now = datetime(2026, 11, 22, tzinfo=UTC).timestamp()
    before = datetime(2026, 10, 31, 23, 59, 59, tzinfo=UTC).timestamp()
    with Ledger(tmp_path / "server.db") as ledger:
        rows = [
            entry(key_id="id", at=before, price=23),
            entry(key_id="id", at=clock.now - 1, price=50),
            entry(key_id="id", at=clock.now - 1, price=1000, currency="EUR"),
            entry(key_id="other", at=clock.now - 1, price=1000),
            entry(key_id=None, at=clock.now - 1, price=1000),
        ]
        write_all(ledger, rows)
        limiter = Limiter(ledger, "USD", clock=clock, now=clock)
    limiter.admit(key(budget=spent + 1, budget_period=period), 1)
    limiter = Limiter(ledger, "USD", clock=clock, now=clock)
    with pytest.raises(BudgetExceeded):
        limiter.admit(key(budget=spent, budget_period=period), 1)


def test_a_refusal_travels_between_processes(limiter: Limiter) -> None:
    error = RateLimited("slowly", 2.5, {"retry-after": "3"})
    copy = pickle.loads(pickle.dumps(error))
    assert (str(copy), copy.seconds, copy.headers) == ("slowly", 2.5, {"retry-after": "3"})


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0ms"),
        (0.0001, "1ms"),
        (0.012, "12ms"),
        (1, "1s"),
        (1.5, "1.5s"),
        (60, "1m0s"),
        (360, "6m0s"),
        (61.25, "1m1.25s"),
    ],
)
def test_times_are_written_as_openai_does(seconds: float, text: str) -> None:
    assert duration(seconds) == text
