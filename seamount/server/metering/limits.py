"""Limits of each key: requests and tokens per minute, requests at the same time, and a budget."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Literal, NoReturn
from weakref import WeakSet

from seamount.errors import BudgetExceeded, RateLimited
from seamount.server.metering.buckets import TokenBucket
from seamount.server.metering.keys import Key, KeyTerms
from seamount.server.metering.limit_headers import HeaderWriter, Standing, duration, openai_headers
from seamount.server.metering.money import text_of
from seamount.server.metering.records import Records
from seamount.server.metering.uptime import bucket_start


class Lease:
    """The right to work on one request. Leaving its `with` ends it, and so does forgetting it.

    `headers` tell the client what is left, as its dialect does.
    """

    def __init__(self, usage: _Usage | None, tokens: int) -> None:
        self.headers: dict[str, str] = {}
        self._usage = usage
        self._tokens = tokens

    def settle(self, tokens: int, price: int) -> None:
        """Ends it: the request used so many tokens, prompt and answer, and cost so many picos. Counts once."""
        usage, self._usage = self._usage, None
        if usage is not None:
            usage.end(self, tokens - self._tokens, price)

    def __enter__(self) -> Lease:
        return self

    def __exit__(self, *error: object) -> None:
        # Not settled: nothing was used.
        self.settle(0, 0)


class Limiter:
    """Admits requests, each key's by its terms.

    What keys spent before is read from the ledger once, and counted from then on, in `currency`. Requests under way
    are not foreseen in a budget: it may be overrun by what they cost. For one thread (the event loop's).
    Units: `clock` in seconds, never backwards; `now` in seconds since 1970 (UTC).
    Errors: LedgerError if the ledger cannot be read.
    """

    def __init__(
        self,
        records: Records,
        currency: str,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._currency = currency
        self._clock = clock
        self._now = now
        self._usages: dict[str, _Usage] = {}
        self._month = bucket_start(now(), "month")
        self._spent_in_all = records.spent_by_key(currency)
        self._spent_this_month = records.spent_by_key(currency, since=self._month)

    def admit(self, key: Key | None, tokens: int, headers: HeaderWriter = openai_headers) -> Lease:
        """The right to work on a request of at most so many tokens, prompt and answer. Without a key nothing limits.

        A request of more tokens than the key has in a minute needs a whole minute's, and what it used beyond them is
        missing afterwards. `headers` writes what is left for the client.
        Errors: RateLimited, which says how long to wait; BudgetExceeded.
        """
        if key is None:
            return Lease(None, 0)
        usage = self._usages.get(key.id) or self._new_usage(key)
        return usage.admit(tokens, self._clock(), self._now(), headers)

    def _new_usage(self, key: Key) -> _Usage:
        usage = _Usage(key, self._currency, self._clock)
        usage.month = self._month
        spent = self._spent_this_month if key.terms.budget_period == "month" else self._spent_in_all
        usage.spent = spent.get(key.id, 0)
        self._usages[key.id] = usage
        return usage


class _Usage:
    """What one key uses at present."""

    def __init__(self, key: Key, currency: str, clock: Callable[[], float]) -> None:
        self._key = key
        self._currency = currency
        self._clock = clock
        # Weak, so that a lease that nobody holds any more counts no longer, whatever became of its request.
        self._leases: WeakSet[Lease] = WeakSet()
        self._buckets = {
            kind: TokenBucket(limit, clock()) for kind, limit in _limits(key.terms).items() if limit is not None
        }
        self.spent = 0
        self.month = 0.0

    def admit(self, tokens: int, clock: float, now: float, write: HeaderWriter) -> Lease:
        terms = self._key.terms

        def refuse(limit: str, seconds: float) -> NoReturn:
            # Clients read whole seconds, and come too early if they are rounded down.
            headers = write(self._standings(clock), now) | {"retry-after": str(max(1, math.ceil(seconds)))}
            message = f"the API key {self._key.name!r} is limited to {limit}; try again in {duration(seconds)}"
            raise RateLimited(message, seconds, headers)

        if terms.concurrency is not None and len(self._leases) >= terms.concurrency:
            refuse(f"{terms.concurrency} requests at the same time", 1.0)
        self._require_budget(now)
        # More than a minute's tokens are never there at once.
        tokens = min(tokens, terms.tokens_per_minute or tokens)
        amounts = {"requests": 1, "tokens": tokens}
        for kind, bucket in self._buckets.items():
            if not bucket.fits(amounts[kind], clock):
                refuse(f"{bucket.per_minute} {kind} per minute", bucket.seconds_until(amounts[kind], clock))
        for kind, bucket in self._buckets.items():
            bucket.take(amounts[kind], clock)
        lease = Lease(self, tokens)
        lease.headers = write(self._standings(clock), now)
        self._leases.add(lease)
        return lease

    def end(self, lease: Lease, more_tokens: int, price: int) -> None:
        self._leases.discard(lease)
        self.spent += price
        if "tokens" in self._buckets:
            self._buckets["tokens"].take(more_tokens, self._clock())

    def _require_budget(self, now: float) -> None:
        terms = self._key.terms
        if terms.budget is None:
            return
        if terms.currency != self._currency:
            raise BudgetExceeded(
                f"the API key {self._key.name!r} has a budget in {terms.currency}, and prices here are in "
                f"{self._currency}, so nothing can be counted; ask the operator for a key in {self._currency}"
            )
        if terms.budget_period == "month" and (month := bucket_start(now, "month")) > self.month:
            self.month, self.spent = month, 0
        if self.spent >= terms.budget:
            until = "" if terms.budget_period == "total" else f" until {_next_month(now)}"
            raise BudgetExceeded(
                f"the API key {self._key.name!r} has spent {text_of(self.spent)} of {text_of(terms.budget)} "
                f"{terms.currency}{until}; ask the operator for more"
            )

    def _standings(self, clock: float) -> list[Standing]:
        return [
            Standing(
                kind,
                bucket.per_minute,
                remaining=max(0, math.floor(bucket.level(clock) + 1e-6)),
                reset=bucket.seconds_until(bucket.per_minute, clock),
            )
            for kind, bucket in self._buckets.items()
        ]


def _limits(terms: KeyTerms) -> dict[Literal["requests", "tokens"], int | None]:
    return {"requests": terms.requests_per_minute, "tokens": terms.tokens_per_minute}


def _next_month(now: float) -> str:
    start = bucket_start(bucket_start(now, "month") + 32 * 86400, "month")
    return datetime.fromtimestamp(start, UTC).strftime("%Y-%m-%d (UTC)")
