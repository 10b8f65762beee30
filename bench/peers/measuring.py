"""What the scripts of this folder share; the standard library alone, since each runs in an environment of its own."""

import json
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

_MEMORY = {"VmRSS": "resident", "VmHWM": "peak_resident", "RssAnon": "resident_anonymous", "RssFile": "resident_file"}


def summary(rates: list[float], timed_tokens: int) -> dict[str, Any]:
    """Median and spread of the rounds' tokens per second."""
    return {
        "tokens_per_second": statistics.median(rates),
        "lowest": min(rates),
        "highest": max(rates),
        "rounds": rates,
        "timed_tokens": timed_tokens,
    }


def fastest(choices: tuple[str, ...], trial: Callable[[str], float]) -> tuple[str, dict[str, float]]:
    """The choice with the highest rate in one trial each, and all of the trials' rates."""
    rates = {choice: trial(choice) for choice in choices}
    return max(rates, key=lambda choice: rates[choice]), rates


def memory() -> dict[str, int]:
    """Bytes of this process that are in memory: now, the most so far, and now by origin (Linux)."""
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines())
    return {name: int(status[key].split()[0]) * 1024 for key, name in _MEMORY.items()}


def report(name: str, case: dict[str, Any], *, is_quiet: bool) -> None:
    """One line of a case for people."""
    if not is_quiet:
        print(
            f"{name:<9}{case['tokens_per_second']:8.1f} tok/s ({case['lowest']:.1f}-{case['highest']:.1f})", flush=True
        )


def finish(document: dict[str, Any]) -> None:
    """The last line."""
    print(json.dumps(document), flush=True)
