"""Runs verbs, and makes a tiny model that can talk."""

import json

import pytest
import tokenizers
from tokenizers import decoders, pre_tokenizers
from typer.testing import CliRunner

from seamount.cli import app

TEMPLATE = "{% for message in messages %}{{ message['role'] }}: {{ message['content'] }}\n{% endfor %}"


@pytest.fixture
def run():
    """Runs a verb in this process, and gives its result."""
    return lambda *arguments, **options: CliRunner().invoke(app, [str(one) for one in arguments], **options)


@pytest.fixture(scope="session")
def tiny_directory(tmp_path_factory):
    """A tiny V3 with random weights, a byte-level tokenizer and a chat template."""
    directory = tmp_path_factory.mktemp("cli") / "tiny"
    result = CliRunner().invoke(app, ["init", "tiny-v3", str(directory), "--seed", "1"])
    assert result.exit_code == 0, result.output
    vocabulary = {letter: number for number, letter in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    backend = tokenizers.Tokenizer(tokenizers.models.BPE(vocabulary, []))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    backend.save(str(directory / "tokenizer.json"))
    (directory / "tokenizer_config.json").write_text(json.dumps({"chat_template": TEMPLATE}))
    return directory


@pytest.fixture
def document():
    """The JSON document in the last line of a result's stdout."""
    return lambda result: json.loads(result.stdout.splitlines()[-1])
