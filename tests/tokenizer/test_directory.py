"""Tokenizer directories: what is read, what is refused, what a save keeps."""

from __future__ import annotations

import json
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, decoders, models, pre_tokenizers, processors
from tokenizers import Tokenizer as Backend

from seamount.errors import TemplateError, TokenizerError
from seamount.tokenizer import Tokenizer

_USER = [{"role": "user", "content": "hi"}]


def _write(directory: Path, *, bos_in_post_processor: bool = False, decoder: Any = None, **files: Any) -> Path:
    """A tokenizer of single bytes with four control tokens, of which <mask> swallows white space to its left."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    backend = Backend(models.BPE({symbol: index for index, symbol in enumerate(alphabet)}, []))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoder or decoders.ByteLevel()
    backend.add_special_tokens([AddedToken("<s>"), AddedToken("</s>"), AddedToken("<end>")])
    backend.add_tokens([AddedToken("<mask>", lstrip=True, special=False)])
    if bos_in_post_processor:
        backend.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 256)])
    # Left over from training; neither may touch a prompt.
    backend.enable_truncation(4)
    backend.enable_padding(length=32)
    backend.save(str(directory / "tokenizer.json"))
    for name, content in files.items():
        path = directory / name.replace("__", ".")
        path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return directory


def test_tokens_named_by_the_config(tmp_path: Path) -> None:
    config = {
        "bos_token": {"content": "<s>"},
        "eos_token": "</s>",
        "add_bos_token": True,
        "chat_template": "{{ eos_token }}",
    }
    tokenizer = Tokenizer.from_directory(_write(tmp_path, tokenizer_config__json=config))
    assert (tokenizer.bos_token_id, tokenizer.eos_token_ids, tokenizer.vocab_size) == (256, (257,), 260)
    assert tokenizer.encode("abcdefgh")[0] == 256
    assert len(tokenizer.encode("abcdefgh")) == 9
    assert len(tokenizer.encode("abcdefgh", add_bos=False)) == 8
    assert tokenizer.encode("<s>a", control_tokens=True).count(256) == 1
    assert tokenizer.chat(_USER) == [257]


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({"generation_config__json": {"eos_token_id": [258, 257]}}, (258, 257)),
        ({"generation_config__json": {"eos_token_id": 258}}, (258, 257)),
        ({"generation_config__json": {}, "config__json": {"eos_token_id": 258}}, (258, 257)),
        ({"generation_config__json": {"eos_token_id": 257}, "config__json": {"eos_token_id": 258}}, (257,)),
        ({}, (257,)),
    ],
)
def test_every_ending_token_is_found(tmp_path: Path, files: dict[str, Any], expected: tuple[int, ...]) -> None:
    directory = _write(tmp_path, tokenizer_config__json={"eos_token": "</s>"}, **files)
    assert Tokenizer.from_directory(directory).eos_token_ids == expected


def test_bos_of_the_post_processor(tmp_path: Path) -> None:
    tokenizer = Tokenizer.from_directory(_write(tmp_path, bos_in_post_processor=True))
    assert tokenizer.encode("")[:1] == [256] == [tokenizer.bos_token_id]
    silenced = _write(tmp_path, bos_in_post_processor=True, tokenizer_config__json={"add_bos_token": False})
    assert Tokenizer.from_directory(silenced).encode("a", add_bos=True)[0] < 256


def test_white_space_flags_are_respected_beside_escaped_text(tmp_path: Path) -> None:
    template = "{{ messages[0].content }}  <mask> b<s>"
    tokenizer = Tokenizer.from_directory(_write(tmp_path, chat_template__jinja=template))
    plain = tokenizer.chat([{"role": "user", "content": "a"}])
    assert tokenizer.decode(plain, skip_control_tokens=False) == "a<mask> b<s>"
    hostile = tokenizer.chat([{"role": "user", "content": "<mask>"}])
    assert tokenizer.decode(hostile, skip_control_tokens=False) == "<mask><mask> b<s>"
    assert [token_id for token_id in hostile if token_id >= 256] == [259, 256]


def test_named_templates(tmp_path: Path) -> None:
    listed = [{"name": "default", "template": "d"}, {"name": "tool_use", "template": "t"}]
    directory = _write(tmp_path, tokenizer_config__json={"chat_template": listed})
    tokenizer = Tokenizer.from_directory(directory)
    assert tokenizer.decode(tokenizer.chat(_USER)) == "d"
    assert tokenizer.decode(tokenizer.chat(_USER, tools=[{"type": "function"}])) == "t"
    tokenizer.save(tmp_path / "copy")
    copy = Tokenizer.from_directory(tmp_path / "copy")
    assert copy.decode(copy.chat(_USER, tools=[{"type": "function"}])) == "t"


def test_the_jinja_file_wins(tmp_path: Path) -> None:
    directory = _write(tmp_path, tokenizer_config__json={"chat_template": "old"}, chat_template__jinja="new")
    tokenizer = Tokenizer.from_directory(directory)
    assert tokenizer.decode(tokenizer.chat(_USER)) == "new"


def test_without_a_template(tmp_path: Path) -> None:
    tokenizer = Tokenizer.from_directory(_write(tmp_path))
    assert not tokenizer.has_chat_template
    with pytest.raises(TemplateError, match="no default chat template"):
        tokenizer.chat(_USER)


@pytest.mark.parametrize(
    ("name", "content", "named"),
    [
        ("tokenizer.json", None, "tokenizer.json is missing"),
        ("tokenizer.json", "{", "tokenizer.json"),
        ("tokenizer.json", "[]", "tokenizer.json"),
        ("tokenizer_config.json", "{", "tokenizer_config.json"),
        ("tokenizer_config.json", "[1]", "not a JSON object"),
        ("tokenizer_config.json", "[" * 100_000, "tokenizer_config.json"),
        ("tokenizer_config.json", '{"bos_token": 3}', "bos_token is 3"),
        ("tokenizer_config.json", '{"eos_token": "<nowhere>"}', "'<nowhere>'"),
        ("tokenizer_config.json", '{"chat_template": 3}', "chat_template"),
        ("tokenizer_config.json", '{"chat_template": [{"name": "x"}]}', "chat_template"),
        ("generation_config.json", '{"eos_token_id": "two"}', "generation_config.json"),
        ("generation_config.json", '{"eos_token_id": [1, 9999]}', "9999"),
        ("config.json", '{"eos_token_id": [true]}', "config.json"),
    ],
)
def test_damaged_files_are_named(tmp_path: Path, name: str, content: str | None, named: str) -> None:
    directory = _write(tmp_path)
    if content is None:
        (directory / name).unlink()
    else:
        (directory / name).write_text(content, encoding="utf-8")
    with pytest.raises(TokenizerError, match=named):
        Tokenizer.from_directory(directory)


def test_files_that_are_no_text_are_named(tmp_path: Path) -> None:
    directory = _write(tmp_path)
    (directory / "chat_template.jinja").write_bytes(b"\xff\xfe")
    with pytest.raises(TokenizerError, match=r"chat_template\.jinja"):
        Tokenizer.from_directory(directory)


def test_an_unknown_decoder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TokenizerError, match="WordPiece"):
        Tokenizer.from_directory(_write(tmp_path, decoder=decoders.WordPiece()))


@pytest.mark.parametrize("name", ["smollm", "deepseek"])
def test_saved_directories_give_the_same_tokens(
    name: str, tmp_path: Path, texts: list[str], request: pytest.FixtureRequest
) -> None:
    transformers = pytest.importorskip("transformers")
    tokenizer: Tokenizer = request.getfixturevalue(name)
    tokenizer.save(tmp_path)
    again = Tokenizer.from_directory(tmp_path)
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path)
    assert (again.bos_token_id, again.eos_token_ids) == (tokenizer.bos_token_id, tokenizer.eos_token_ids)
    assert again.chat(_USER) == tokenizer.chat(_USER)
    for text in [*texts[3:12], *texts[12::16], "<|im_start|>x<|im_end|>", "<｜User｜> <think>"]:
        expected = tokenizer.encode(text, control_tokens=True)
        assert again.encode(text, control_tokens=True) == expected
        assert theirs(text)["input_ids"] == expected
        assert again.encode(text) == tokenizer.encode(text)


def test_a_saved_bos_reaches_transformers(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    config = {"bos_token": "<s>", "eos_token": "</s>", "add_bos_token": True, "model_max_length": 77}
    generation = {"eos_token_id": [257, 258]}
    source = _write(tmp_path, tokenizer_config__json=config, generation_config__json=generation)
    tokenizer = Tokenizer.from_directory(source)
    tokenizer.save(tmp_path / "copy")
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path / "copy")
    assert theirs("ab")["input_ids"] == tokenizer.encode("ab")
    assert theirs.model_max_length == 77
    assert Tokenizer.from_directory(tmp_path / "copy").eos_token_ids == (257, 258)


def test_a_directory_that_cannot_be_written_is_named(smollm: Tokenizer, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(TokenizerError, match="cannot be written"):
        smollm.save(tmp_path / "file")


def test_templates_are_not_imported_for_plain_text() -> None:
    program = "import sys, seamount.tokenizer; print('jinja2' in sys.modules, 'transformers' in sys.modules)"
    output = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    assert output.split() == ["False", "False"]


def test_a_file_that_panics_the_library_is_named(tmp_path: Path) -> None:
    path = _write(tmp_path, bos_in_post_processor=True) / "tokenizer.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    content["post_processor"]["special_tokens"] = {}
    path.write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(TokenizerError, match=r"tokenizer\.json"):
        Tokenizer.from_directory(tmp_path)


@pytest.mark.parametrize("token", ["õ", " x", "x ", "  ", "a b"])
@given(content=st.text(alphabet="õ xab<\n", max_size=6), name=st.text(alphabet="õ xab", max_size=3))
@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_odd_control_tokens_stay_text(token: str, content: str, name: str, tmp_path: Path) -> None:
    directory = _write(tmp_path, chat_template__jinja="<s>{{ messages[0].content }}{{ messages[0].name }}</s>")
    backend = Backend.from_file(str(directory / "tokenizer.json"))
    backend.add_tokens([AddedToken(token, special=False)])
    backend.save(str(directory / "tokenizer.json"))
    tokenizer = Tokenizer.from_directory(directory)
    token_ids = tokenizer.chat([{"role": "user", "content": content, "name": name}])
    assert [token_id for token_id in token_ids if token_id >= 256] == [256, 257]
    assert tokenizer.decode(token_ids[1:-1]) == content + name


@given(at=st.integers(0, 10**6), new=st.sampled_from([b"", b'"', b"0", b"-1", b"{", b"null", b"\xff", b"99999999999"]))
@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_mutated_files_never_crash(at: int, new: bytes, tmp_path: Path) -> None:
    path = _write(tmp_path, bos_in_post_processor=True) / "tokenizer.json"
    content = path.read_bytes()
    at %= len(content)
    path.write_bytes(content[:at] + new + content[at + 1 :])
    # Whatever else is raised, a panic of the library included, fails the test.
    with suppress(TokenizerError):
        tokenizer = Tokenizer.from_directory(tmp_path)
        assert tokenizer.vocab_size > max(tokenizer.encode("ab"), default=0)
