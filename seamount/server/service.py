"""What a server has: its models, who may ask them, and what that costs."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Coroutine, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

from starlette.requests import Request

from seamount.errors import ConfigError
from seamount.server.asking import Ask, ServedModel
from seamount.server.backend import LocalBackend, running
from seamount.server.failures import Failure, is_anthropic
from seamount.server.metering import (
    EnergyMeter,
    Entry,
    Key,
    Keys,
    Lease,
    Ledger,
    Limiter,
    Prices,
    anthropic_headers,
    decimal_of,
    default_database,
    openai_headers,
)
from seamount.server.metrics import Metrics
from seamount.server.tally import Tally

Outcome = Literal["answered", "failed", "cancelled"]


@dataclass(frozen=True)
class Admission:
    """The right of one request to be worked on."""

    key: Key | None
    lease: Lease
    energy: Any
    """What the machine's counters said when it began."""

    @property
    def headers(self) -> dict[str, str]:
        """What is left of the key's limits."""
        return self.lease.headers

    def cancel(self) -> None:
        """Nothing was used."""
        self.lease.settle(0, 0)


class Ticking(Protocol):
    """What wants to hear the time."""

    def tick(self, now: float) -> None:
        """Called once a second."""


class Service:
    """Everything that requests share. Used in the event loop alone.

    Units: deadline in seconds from a request's arrival to the end of its answer.
    Errors: ConfigError for two models of one name or a model without a price; LedgerError if the database cannot be
    used.
    """

    def __init__(
        self,
        models: Sequence[ServedModel],
        database: Path | None = None,
        prices: Prices | None = None,
        deadline: float = 3600.0,
    ) -> None:
        self.models = {model.name: model for model in models}
        if len(self.models) < len(models):
            raise ConfigError(f"models = {[model.name for model in models]}; allowed are different names: NAME=MODEL")
        self.prices = prices or Prices()
        for name in self.models:
            self.prices.of(name, time.time())
        self.deadline = deadline
        path = database or default_database()
        self.keys = Keys(path)
        self.ledger = Ledger(path, self.prices)
        self.metrics = Metrics(models)
        self.live: set[Ticking] = set()
        self.is_draining = False
        self._limiter = Limiter(self.ledger, self.prices.currency)
        self._energy = EnergyMeter()
        self._tasks: set[asyncio.Task[Any]] = set()

    def model(self, name: str | None) -> ServedModel:
        """The model of a name; the first one for none.

        Errors: Failure.
        """
        if name is None:
            return next(iter(self.models.values()))
        if name not in self.models:
            allowed = " or ".join(map(repr, self.models))
            message = f"model = {name[:200]!r} is not served here; allowed is {allowed}"
            raise Failure(message, 404, field="model", code="model_not_found")
        return self.models[name]

    def key_of(self, http: Request) -> Key | None:
        """The key that a request shows; None where none was ever made.

        Errors: Failure for a request that needs one and has none, or another one.
        """
        scheme, _, secret = http.headers.get("authorization", "").partition(" ")
        secret = secret.strip() if scheme.lower() == "bearer" else http.headers.get("x-api-key", "")
        if not self.keys.are_configured():
            return None
        key = self.keys.verify(secret) if secret else None
        if key is None:
            what = "this API key is unknown, revoked or expired" if secret else "an API key is needed"
            message = f"{what}; send one as `Authorization: Bearer sk-...` or `x-api-key`"
            raise Failure(message, 401, code="invalid_api_key", headers={"www-authenticate": "Bearer"})
        return key

    def admin_of(self, http: Request) -> Key | None:
        """The same for what only the operator may see."""
        key = self.key_of(http)
        if key is not None and not key.terms.is_admin:
            raise Failure(f"the API key {key.name!r} is not an operator's (`seamount keys add --admin`)", 403)
        return key

    def admit(self, http: Request, ask: Ask) -> Admission:
        """Let a request in.

        Errors: Failure while the server leaves; RateLimited, BudgetExceeded, ModelNotAllowed.
        """
        if self.is_draining:
            raise Failure("the server is stopping; ask again elsewhere or later", 503, headers={"retry-after": "5"})
        key = self.key_of(http)
        if key is not None:
            key.require(ask.model.name)
        tokens = sum(map(len, ask.prompts)) + ask.num_choices * (ask.params.max_tokens or 1)
        headers = anthropic_headers if is_anthropic(http.scope["path"]) else openai_headers
        return Admission(key, self._limiter.admit(key, tokens, headers), self._energy.read())

    def usage(self, model: str, tally: Tally) -> dict[str, Any]:
        """The counts of a request, and what they cost."""
        return tally.usage(float(decimal_of(self._price(model, tally))), self.prices.currency)

    async def settle(
        self, ask: Ask, http: Request, admission: Admission, tally: Tally, outcome: Outcome, status: int
    ) -> None:
        """Write a request into the ledger; it is durable when this returns.

        Errors: LedgerError.
        """
        # Who hangs up pays for what was done; whom we fail pays nothing.
        price = 0 if outcome == "failed" else self._price(ask.model.name, tally)
        admission.lease.settle(tally.prompt_tokens + tally.output_tokens, price)
        self.metrics.count(ask.model.name, ask.route, outcome, tally)
        entry = Entry(
            request_id=http.state.request_id,
            at=tally.arrived_at,
            key_id=None if admission.key is None else admission.key.id,
            model=ask.model.name,
            route=ask.route,
            outcome=outcome,
            status=status,
            hit_tokens=tally.hit_tokens,
            miss_tokens=tally.miss_tokens,
            output_tokens=tally.output_tokens,
            reasoning_tokens=tally.reasoning_tokens,
            price=price,
            currency=self.prices.currency,
            compute_seconds=tally.compute_seconds,
            seconds=tally.seconds,
            first_token_seconds=tally.first_token_seconds,
            energy_joules=self._energy.share(admission.energy, tally.compute_seconds),
        )
        http.state.entry = entry
        await self.ledger.write(entry)

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        """Do something that whoever asked for it does not wait for."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    @asynccontextmanager
    async def run(self) -> AsyncIterator[None]:
        """While it is entered, the models answer."""
        engines = [model.backend.engine for model in self.models.values() if isinstance(model.backend, LocalBackend)]
        ticking = asyncio.create_task(self._tick())
        try:
            async with running(engines):
                yield
        finally:
            ticking.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)
            await asyncio.to_thread(self.ledger.close)
            self.keys.close()

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(1)
            now = time.monotonic()
            for exchange in list(self.live):
                exchange.tick(now)

    def _price(self, model: str, tally: Tally) -> int:
        rates = self.prices.of(model, tally.arrived_at)
        return rates.price(tally.hit_tokens, tally.miss_tokens, tally.output_tokens, tally.reasoning_tokens)
