"""schemathesis: requests made from our own /openapi.json, good and bad."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from features import Result, Verdict, one_line
from served import Served

_CHECKS = "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance"
_SECONDS = 180


def results(served: Served) -> list[Result]:
    """No 500, and no status, media type or form of an answer that the schema does not list."""
    config, report = served.folder / "schemathesis.toml", served.folder / "schemathesis.json"
    hooks = str(Path(__file__).with_name("schemathesis_hooks.py"))
    config.write_text(f"hooks = {json.dumps(hooks)}\n", encoding="utf-8")
    command = [
        str(Path(sys.executable).with_name("schemathesis")), "--config-file", str(config), "run",
        f"{served.url}/openapi.json", "--checks", _CHECKS, "--phases", "examples,coverage,fuzzing",
        "--max-examples", "40", "--max-time", str(_SECONDS), "--continue-on-failure", "--seed", "1", "--no-color",
        "--request-timeout", "900", "--report", "json", "--report-json-path", str(report),
    ]  # fmt: skip
    done = subprocess.run(command, check=False, cwd=served.folder)
    return [judged(done.returncode, json.loads(report.read_text(encoding="utf-8")))]


def judged(exit_status: int, report: dict[str, Any]) -> Result:
    """A run as a line of the table."""
    cases, faults = report["test_cases"], [*report["failures"], *report["errors"]]
    rates = [rate for phases in report["valid_rates"].values() for rate in phases.values()]
    accepted, rejected = (sum(rate[name] for rate in rates) for name in ("accepted", "rejected"))
    why = (
        f"{cases['generated']:,} requests in {report['running_time']:.0f} seconds, {cases['with_failures']} failures; "
        f"of those that are right by the schema {accepted} were answered and {rejected} refused"
    )
    verdict: Verdict = "fails" if exit_status or faults else "works"
    return Result("schemathesis", "/openapi.json: " + _CHECKS.replace(",", ", "), verdict, one_line(why))
