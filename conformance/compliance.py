"""llm-comply: forms of answers, against the schemas of OpenAI's and Anthropic's APIs that the suite carries."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import llm_comply
from features import Result, Verdict, one_line
from llm_comply.tests import get_tests
from served import PLAIN, SHORT, TIMEOUT, Served

# OpenAI's requests of this suite name no limit of tokens, Anthropic's do.
_DIALECTS: dict[str, dict[str, Any]] = {
    "openai-chat": {"model": SHORT},
    "anthropic": {"model": PLAIN, "auth_header": "x-api-key", "use_bearer_prefix": False},
}
# What the suite says of an answer that came to no end of its own within its tokens.
_CUT_OFF = re.compile(r"(finish|stop)_reason: expected '\w+', got '(length|max_tokens)'")
_IMAGES = ("chat-image-input", "anth-image-input")


def judged(client: str, found: llm_comply.TestResult) -> Result:
    """A test's result as a line of the table."""
    verdict: Verdict = "fails"
    why = "; ".join([*found.errors, *found.warnings])
    error = found.response.get("error") if isinstance(found.response, dict) else None
    if found.status is llm_comply.TestStatus.PASSED:
        verdict = "works"
    elif found.status is llm_comply.TestStatus.SKIPPED:
        verdict, why = "not tried", f"the suite itself leaves it out: {why}"
    elif all(map(_CUT_OFF.fullmatch, found.errors)):
        verdict = "cut off"
    elif found.id in _IMAGES and error:
        verdict, why = "refused", error["message"]
    return Result(client, found.name, verdict, one_line(why))


def _try(dialect: str, served: Served) -> list[Result]:
    results = []

    def take(found: llm_comply.TestResult) -> None:
        result = judged(f"llm-comply {dialect}", found)
        results.append(result)
        print(f"{result.line} ({found.duration_ms / 1000:.1f} s)", flush=True)

    # Verbose, so that results have the answers.
    config = llm_comply.ComplianceConfig(
        base_url=f"{served.url}/v1", api_key="none", timeout=TIMEOUT, verbose=True, **_DIALECTS[dialect]
    )
    schemas = Path(llm_comply.__file__).with_name("specs") / f"{dialect.replace('-', '_')}.json"
    llm_comply.TestRunner(config, get_tests(dialect), llm_comply.SpecLoader(str(schemas)), take).run_all()
    return results


def results(served: Served) -> list[Result]:
    """What it finds in both dialects."""
    return [result for dialect in _DIALECTS for result in _try(dialect, served)]
