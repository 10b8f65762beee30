"""Packing from the command line: convert, init --quantize, and --quantize of the verbs that load."""

import json

import pytest


@pytest.mark.parametrize("format", ["int4", "int8"])
def test_a_converted_model_answers_as_the_same_model_packed_on_loading(run, document, tiny_directory, tmp_path, format):
    result = run("convert", tiny_directory, tmp_path / "packed", "--to", format, "--json")
    assert result.exit_code == 0, result.output
    written = sum(path.stat().st_size for path in (tmp_path / "packed").glob("*.safetensors"))
    assert document(result) == {
        "model": str(tiny_directory),
        "directory": str(tmp_path / "packed"),
        "to": format,
        "bytes": written,
    }
    assert (tmp_path / "packed/tokenizer.json").exists()
    asked = ("hello", "--max-tokens", 5, "--json")
    converted = document(run("generate", tmp_path / "packed", *asked))
    packed = document(run("generate", tiny_directory, *asked, "--quantize", format))
    assert converted["text"] == packed["text"]


def test_convert_refuses_what_it_cannot_do(run, tiny_directory, tmp_path):
    assert run("convert", tiny_directory, tmp_path / "a", "--to", "int3").exit_code == 2
    assert run("convert", tiny_directory, tiny_directory, "--to", "int4").exit_code == 2
    assert run("convert", "no-such-model", tmp_path / "a", "--to", "int4").exit_code == 1
    assert not (tmp_path / "a").exists()


def test_init_writes_packed_weights(run, document, tmp_path):
    result = run("init", "tiny-v2-lite", tmp_path / "packed", "--quantize", "int4", "--json")
    assert result.exit_code == 0, result.output
    assert document(result)["quantize"] == "int4"
    described = json.loads((tmp_path / "packed/config.json").read_text())["quantization_config"]
    assert described == {"quant_method": "seamount", "format": "int4", "version": 1}
    assert document(run("inspect", tmp_path / "packed", "--json"))["parameters"] == document(result)["parameters"]
