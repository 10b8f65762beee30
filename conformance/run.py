"""Other people's clients and suites against a server of ours; what they found goes to docs/conformance.md.

    python conformance/run.py [--only openai,anthropic,langchain] [--output FILE]

Starts `seamount serve` itself, tells each feature's result as it comes, and may be stopped at any time. Exit status 1
if something fails.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.metadata
import platform
import signal
import sys
import tempfile
import time
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path
from typing import get_args

from features import Result, Verdict, table
from served import serving

GROUPS = {
    "openai": "openai_client",
    "anthropic": "anthropic_client",
    "langchain": "langchain_client",
    "litellm": "litellm_client",
    "lm-eval": "harness",
    "schemathesis": "fuzzing",
    "llm-comply": "compliance",
}
_TOOLS = ("openai", "anthropic", "langchain-openai", "litellm", "lm-eval", "schemathesis", "llm-comply")
_DOCUMENT = Path(__file__).parents[1] / "docs" / "conformance.md"
_HEAD = """# Conformance

What other people's clients and suites find, each feature once. Written by `conformance/run.py` (`make conformance`) on
{date} (UTC), with seamount {seamount}, Python {python}, {tools}.

The server is `seamount serve` with the embedded model in int4; once more, as `calling`, the same weights under a chat
template that knows tools and thinking, which the embedded model's own does not; and once more, as `short`, with a
context of 512 tokens, for llm-comply, whose requests in OpenAI's dialect set no limit. It is a small model: forms are
tried here, not wit.

*works*: as the client expects it. *cut off*: the same, but the small model came to no end within the tokens that it
had, and the suite expects one. *refused*: the server says by name that it does not do this. *fails*: none of these.

{counts}

"""


def document(results: list[Result]) -> str:
    """The page."""
    versions = {name: importlib.metadata.version(name) for name in _TOOLS}
    counts = Counter(one.verdict for one in results)
    head = _HEAD.format(
        date=datetime.now(UTC).date(),
        seamount=importlib.metadata.version("seamount") if _is_installed() else "from its source",
        python=platform.python_version(),
        tools=", ".join(f"{name} {version}" for name, version in versions.items()),
        counts=", ".join(f"{counts[verdict]} {verdict}" for verdict in get_args(Verdict) if counts[verdict]),
    )
    return head + table(results) + "\n"


def _is_installed() -> bool:
    try:
        importlib.metadata.version("seamount")
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


def tried(groups: list[str]) -> list[Result]:
    """What these groups find on a server that is there for as long as this takes."""
    # Imported first: what is not installed is missed at once.
    modules = {name: importlib.import_module(GROUPS[name]) for name in groups}
    results: list[Result] = []
    started = time.monotonic()

    def say(what: str) -> None:
        print(f"[{time.monotonic() - started:.0f} s] {what}", flush=True)

    say("starting the server")
    with tempfile.TemporaryDirectory() as folder, serving(Path(folder)) as served:
        for number, (name, module) in enumerate(modules.items(), 1):
            say(f"{name} ({number} of {len(modules)})")
            results += module.results(served)
        say("stopping the server")
    return results


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", default=",".join(GROUPS), help="some of them, with commas between")
    parser.add_argument("--output", type=Path, help="where the page goes; docs/conformance.md if all are tried")
    arguments = parser.parse_args()
    chosen = arguments.only.split(",")
    if unknown := [name for name in chosen if name not in GROUPS]:
        parser.error(f"--only: {', '.join(unknown)}; allowed are {', '.join(GROUPS)}")
    output = arguments.output or (_DOCUMENT if set(chosen) == set(GROUPS) else None)
    # As Ctrl-C does: what was started is ended.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        results = tried(chosen)
    except KeyboardInterrupt:
        print("stopped; no page is written", file=sys.stderr)
        sys.exit(130)
    if output is not None:
        output.write_text(document(results), encoding="utf-8")
    failed = [one for one in results if one.verdict == "fails"]
    print(f"{len(results)} tried, {len(failed)} fail")
    sys.exit(bool(failed))


if __name__ == "__main__":
    main()
