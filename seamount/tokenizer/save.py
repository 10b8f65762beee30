"""Writes a vocabulary as the tokenizer files of a Hugging Face directory."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import tokenizers
from tokenizers import processors

from seamount.errors import TokenizerError
from seamount.tokenizer.vocabulary import Vocabulary


def save_vocabulary(vocabulary: Vocabulary, directory: Path) -> None:
    """Writes tokenizer.json, tokenizer_config.json, chat_template.jinja where there is one template, and
    generation_config.json where several tokens end an answer and no such file exists.

    Errors: TokenizerError when the directory cannot be written.
    """
    try:
        directory.mkdir(parents=True, exist_ok=True)
        _prepend_bos(vocabulary).save(str(directory / "tokenizer.json"))
        _write_json(directory / "tokenizer_config.json", _config(vocabulary))
        if set(vocabulary.templates) == {"default"}:
            (directory / "chat_template.jinja").write_text(vocabulary.templates["default"], encoding="utf-8")
        generation = directory / "generation_config.json"
        # tokenizer_config.json has room for one ending token alone; the others live here.
        if len(vocabulary.eos_token_ids) > 1 and not generation.exists():
            _write_json(generation, {"eos_token_id": list(vocabulary.eos_token_ids)})
    except OSError as error:
        raise TokenizerError(
            f"the tokenizer cannot be written to {directory} ({error}); choose a writable one"
        ) from error


def _config(vocabulary: Vocabulary) -> dict[str, Any]:
    config = {"tokenizer_class": "PreTrainedTokenizerFast", "clean_up_tokenization_spaces": False}
    config |= dict(vocabulary.named_tokens) | dict(vocabulary.config)
    config["add_bos_token"] = vocabulary.add_bos
    if vocabulary.templates and set(vocabulary.templates) != {"default"}:
        config["chat_template"] = [{"name": name, "template": text} for name, text in vocabulary.templates.items()]
    return config


def _prepend_bos(vocabulary: Vocabulary) -> tokenizers.Tokenizer:
    """The backend with a post-processor that adds bos, for readers that look at tokenizer.json alone."""
    backend, bos_id = vocabulary.backend, vocabulary.bos_token_id
    if not vocabulary.add_bos or bos_id is None or backend.encode("", add_special_tokens=True).ids[:1] == [bos_id]:
        return backend
    copy: tokenizers.Tokenizer = tokenizers.Tokenizer.from_str(backend.to_str())
    bos = backend.id_to_token(bos_id)
    copy.post_processor = processors.TemplateProcessing(
        single=[bos, "$A"], pair=[bos, "$A", f"{bos}:1", "$B:1"], special_tokens=[(bos, bos_id)]
    )
    return copy


def _write_json(path: Path, value: dict[str, Any]) -> None:
    path.write_text(json.dumps(value, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")
