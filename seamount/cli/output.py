"""What verbs print: JSON as the last line of stdout, and progress on stderr."""

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

Progress = Callable[[int, int], None]


def print_json(document: dict[str, Any]) -> None:
    """One JSON document on one line of stdout."""
    print(json.dumps(document, ensure_ascii=False), flush=True)


@contextmanager
def progress_bar(label: str) -> Iterator[Progress | None]:
    """A callback (done, total bytes) that draws a bar on stderr, or None where that is no terminal."""
    if not sys.stderr.isatty():
        yield None
        return
    # Imported here because a run without a terminal must not wait for rich.
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, TextColumn, TimeRemainingColumn, TransferSpeedColumn
    from rich.progress import Progress as Bars

    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(True), TransferSpeedColumn())
    with Bars(*columns, TimeRemainingColumn(), console=Console(stderr=True), transient=True) as bars:
        task = bars.add_task(label, total=None)
        yield lambda done, total: bars.update(task, completed=done, total=total)
