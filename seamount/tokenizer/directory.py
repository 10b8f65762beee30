"""Reads the tokenizer files of a directory in Hugging Face layout."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import tokenizers

from seamount.errors import TokenizerError
from seamount.tokenizer.vocabulary import Vocabulary, token_ids

_TRIAL = "Ab 12,\n\t é 漢字 🦭"
NAMED_TOKENS = ("bos_token", "eos_token", "pad_token", "unk_token")


def read_directory(directory: Path) -> Vocabulary:
    """The vocabulary of a directory: tokenizer.json is required, the other files refine it where they exist.

    Errors: TokenizerError that names the missing or damaged file.
    """
    backend = _read_backend(directory / "tokenizer.json")
    config_path = directory / "tokenizer_config.json"
    config = _read_object(config_path)
    named_tokens = {name: text for name in NAMED_TOKENS if (text := _token_text(config.get(name), name, config_path))}
    leading_id = _leading_id(backend, directory / "tokenizer.json")
    bos_token_id = _id_of(backend, named_tokens, "bos_token", config_path)
    if bos_token_id is None and leading_id is not None:
        bos_token_id = leading_id
        named_tokens["bos_token"] = str(backend.id_to_token(leading_id))
    add_bos = config.get("add_bos_token")
    if add_bos is None:
        add_bos = leading_id is not None and leading_id == bos_token_id
    ending_ids = _ending_ids(directory)
    eos_token_id = _id_of(backend, named_tokens, "eos_token", config_path)
    if eos_token_id is not None and eos_token_id not in ending_ids:
        ending_ids = (*ending_ids, eos_token_id)
    return Vocabulary(
        backend=backend,
        add_bos=bool(add_bos) and bos_token_id is not None,
        bos_token_id=bos_token_id,
        eos_token_ids=ending_ids,
        templates=_read_templates(directory, config),
        named_tokens=named_tokens,
        config={name: value for name, value in config.items() if name != "chat_template"},
    )


def _read_backend(path: Path) -> tokenizers.Tokenizer:
    if not path.is_file():
        raise TokenizerError(
            f"{path} is missing: a tokenizer is read from tokenizer.json alone (not tokenizer.model or vocab.txt); "
            "copy that file from the model's source into this directory"
        )
    try:
        backend = tokenizers.Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises bare Exception for whatever it cannot read
        raise TokenizerError(f"{path} cannot be read as a tokenizer ({error}); fetch that file again") from error
    # Some published files carry training-time truncation or padding; either would drop or invent tokens silently.
    backend.no_truncation()
    backend.no_padding()
    return backend


def _read_object(path: Path) -> dict[str, Any]:
    """A JSON object, or an empty one where the file does not exist."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, RecursionError) as error:
        raise TokenizerError(f"{path} cannot be read as JSON ({error}); fetch that file again") from error
    if not isinstance(value, dict):
        raise TokenizerError(f"{path} holds a {type(value).__name__}, not a JSON object; fetch that file again")
    return value


def _token_text(value: Any, name: str, path: Path) -> str | None:
    text = value.get("content") if isinstance(value, dict) else value
    if text is not None and not isinstance(text, str):
        raise TokenizerError(f"{path}: {name} is {value!r}; it must be a text or an object with `content`")
    return text


def _id_of(backend: tokenizers.Tokenizer, named_tokens: dict[str, str], name: str, path: Path) -> int | None:
    text = named_tokens.get(name)
    if text is None:
        return None
    token_id: int | None = backend.token_to_id(text)
    if token_id is None:
        raise TokenizerError(f"{path}: {name} is {text!r}, which tokenizer.json does not hold; fetch both files again")
    return token_id


def _leading_id(backend: tokenizers.Tokenizer, path: Path) -> int | None:
    """The token that the post-processor of tokenizer.json puts before every text.

    Errors: TokenizerError where the file's parts contradict each other.
    """
    try:
        around_nothing = backend.encode("", add_special_tokens=True).ids
        # A trial, so that a damaged file is refused here and not in the middle of a request.
        backend.encode(_TRIAL, add_special_tokens=True)
    except BaseException as error:
        # The library checks a file only in use, and then panics; the panic's class is derived from BaseException alone
        # and cannot be imported.
        if isinstance(error, Exception) or type(error).__name__ == "PanicException":
            raise TokenizerError(f"{path} contradicts itself ({error}); fetch that file again") from error
        raise
    return around_nothing[0] if around_nothing else None


def _ending_ids(directory: Path) -> tuple[int, ...]:
    for name in ("generation_config.json", "config.json"):
        ids = token_ids(_read_object(directory / name).get("eos_token_id"), f"{directory / name}: eos_token_id")
        if ids:
            return ids
    return ()


def _read_templates(directory: Path, config: dict[str, Any]) -> dict[str, str]:
    declared = config.get("chat_template")
    path = directory / "tokenizer_config.json"
    templates: dict[str, str] = {}
    if isinstance(declared, str):
        templates["default"] = declared
    elif isinstance(declared, list):
        for entry in declared:
            name, source = (entry.get("name"), entry.get("template")) if isinstance(entry, dict) else (None, None)
            if not isinstance(name, str) or not isinstance(source, str):
                raise TokenizerError(f"{path}: chat_template lists {entry!r}; each entry needs `name` and `template`")
            templates[name] = source
    elif declared is not None:
        raise TokenizerError(f"{path}: chat_template is a {type(declared).__name__}; it must be a text or a list")
    jinja_path = directory / "chat_template.jinja"
    try:
        templates["default"] = jinja_path.read_text(encoding="utf-8")
    except FileNotFoundError:
        pass
    except (OSError, ValueError) as error:
        raise TokenizerError(f"{jinja_path} cannot be read ({error}); fetch that file again") from error
    return templates
