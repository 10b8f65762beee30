"""What measurements of models have in common. Imports torch: import this inside a verb only."""

from collections.abc import Iterable, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

from seamount import benchmark
from seamount.cli.loading import load_model
from seamount.cli.options import DtypeName, LoadedFormatName
from seamount.kernels.cpu.limits import limits


def measured(
    name: str,
    model: str,
    dtype: DtypeName | None,
    quantize: LoadedFormatName | None,
    memory: str | None,
    **options: Any,
) -> tuple[benchmark.Subject, dict[str, Any]]:
    """The model under an engine, and the beginning of the JSON document.

    Errors: those of `seamount.load` and of the engine.
    """
    loaded = load_model(model, dtype, quantize)
    subject = benchmark.Subject(loaded, limits(), memory, **options)
    document = {"bench": name, "model": model, "dtype": dtype, "quantize": quantize}
    return subject, document | benchmark.described(subject.limits)


def show(document: dict[str, Any], columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """A small table, with the machine below it."""
    table = Table(*columns, box=None, header_style="bold", pad_edge=False)
    for row in rows:
        table.add_row(*row)
    Console().print(table)
    found = document["limits"]
    print(f"{document['processor']}, {found['threads']} threads, {found['path']} kernels")
    print(f"limits: {found['read'] / 1e9:.1f} GB/s, {found['int8'] / 1e12:.2f} Tera-operations/s of int8")


def rates(case: dict[str, Any]) -> tuple[str, str, str]:
    """The engine's rate with its spread, the bare loop's, and their ratio."""
    bare = case["bare"]["tokens_per_second"]
    spread = f"{case['tokens_per_second']:.1f} ({case['lowest']:.0f}-{case['highest']:.0f})"
    return spread, f"{bare:.1f}", f"{case['ratio']:.3f}"


def milliseconds(percentiles: dict[str, float] | None) -> str:
    """The median of seconds, and their 99th percentile."""
    return "none" if percentiles is None else f"{percentiles['p50'] * 1e3:.1f}, {percentiles['p99'] * 1e3:.1f}"


def share(value: float) -> str:
    """A share as a percentage."""
    return f"{value:.1%}"
