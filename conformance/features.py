"""Features that are tried one by one, and what came of each."""

from __future__ import annotations

import re
import time
import traceback
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

Fault = TypeVar("Fault", bound=Exception)
Verdict = Literal["works", "cut off", "refused", "fails", "not tried"]


class RefusedAsStated(Exception):
    """The server said by name that it does not do this."""


@dataclass(frozen=True)
class Result:
    """One line of the table."""

    client: str
    feature: str
    verdict: Verdict
    why: str = ""

    @property
    def line(self) -> str:
        """As a run tells it."""
        return " | ".join((self.client, self.feature, self.verdict, self.why))


def try_each(client: str, features: Iterable[Callable[..., str | None]], *subjects: Any) -> list[Result]:
    """Calls each feature, whose docstring's first line is its name; what it returns is worth saying of it."""
    results = []
    for feature in features:
        name = (feature.__doc__ or feature.__name__).strip().splitlines()[0].rstrip(".")
        started = time.monotonic()
        try:
            verdict: Verdict = "works"
            why = feature(*subjects) or ""
        except RefusedAsStated as refusal:
            verdict, why = "refused", str(refusal)
        except Exception as error:  # noqa: BLE001 - whatever a client raises is the finding
            place = traceback.extract_tb(error.__traceback__)[-1]
            verdict, why = "fails", f"{type(error).__name__}: {error}" if str(error) else f"`{place.line}`"
        results.append(Result(client, name, verdict, one_line(why)))
        print(f"{results[-1].line} ({time.monotonic() - started:.1f} s)", flush=True)
    return results


def raised(kind: type[Fault], call: Callable[[], Any]) -> Fault:
    """The error of a kind that a call ends in."""
    try:
        call()
    except kind as error:
        return error
    raise AssertionError(f"no {kind.__name__}")


def one_line(text: str, most: int = 300) -> str:
    """A text as a table's cell."""
    flat = re.sub(r"\s+", " ", text).strip().replace("|", "\\|")
    return flat if len(flat) <= most else flat[: most - 1] + "…"


def table(results: Iterable[Result]) -> str:
    """All of it in Markdown."""
    lines = ["| client | feature | result | why |", "|---|---|---|---|"]
    lines += [f"| {one.client} | {one.feature} | {one.verdict} | {one.why} |" for one in results]
    return "\n".join(lines)
