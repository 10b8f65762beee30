"""Builds the vocabulary that a GGUF file carries in its `tokenizer.*` metadata."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import tokenizers
from tokenizers import AddedToken, decoders, models, normalizers

from seamount.errors import TokenizerError
from seamount.tokenizer.pre_tokenizers import gguf_pre_tokenizer
from seamount.tokenizer.vocabulary import Vocabulary, token_ids

_CONTROL, _USER_DEFINED = 3, 4
_PREFIX = "tokenizer.ggml."


def read_gguf(metadata: Mapping[str, Any]) -> Vocabulary:
    """The vocabulary of a GGUF header: byte-level BPE (model "gpt2") or SentencePiece BPE (model "llama").

    Errors: TokenizerError that names the missing or unknown metadata key.
    Cost: 49k tokens and 49k merges in about 0.15 s; the model is constructed from objects, as JSON takes twice that.
    """
    tokens = _strings(metadata, "tokens")
    vocab = {token: index for index, token in enumerate(tokens)}
    if len(vocab) != len(tokens):
        twice = next(token for index, token in enumerate(tokens) if vocab[token] != index)
        raise TokenizerError(f"{_PREFIX}tokens lists {twice!r} twice; the GGUF file is damaged, fetch it again")
    kind = metadata.get(_PREFIX + "model")
    if kind == "gpt2":
        backend = _byte_level(metadata, vocab)
    elif kind == "llama":
        backend = _sentencepiece(metadata, tokens, vocab)
    else:
        raise TokenizerError(
            f"{_PREFIX}model is {kind!r}; known are 'gpt2' and 'llama'. "
            "Use the model's directory with its tokenizer.json instead of the GGUF file"
        )
    types = metadata.get(_PREFIX + "token_type")
    if not isinstance(types, Sequence) or len(types) != len(tokens):
        # Without it no token would be known as a control token, and every chat would be read as plain text.
        raise TokenizerError(f"{_PREFIX}token_type is missing or not as long as the {len(tokens)} tokens")
    backend.add_tokens(
        [
            AddedToken(token, special=token_type == _CONTROL, normalized=False)
            for token, token_type in zip(tokens, types, strict=True)
            if token_type in (_CONTROL, _USER_DEFINED) and token
        ]
    )
    bos = _one_id(metadata, "bos_token_id")
    eos = [
        token_id
        for name in ("eos_token_id", "eot_token_id", "eom_token_id")
        if (token_id := _one_id(metadata, name)) is not None
    ]
    named_ids = {
        "bos_token": bos,
        "eos_token": _one_id(metadata, "eos_token_id"),
        "pad_token": _one_id(metadata, "padding_token_id"),
        "unk_token": _one_id(metadata, "unknown_token_id"),
    }
    template = metadata.get("tokenizer.chat_template")
    # llama.cpp's writer leaves the flag out where it is SentencePiece's habit: to begin with bos.
    add_bos = metadata.get(_PREFIX + "add_bos_token", kind == "llama")
    return Vocabulary(
        backend=backend,
        add_bos=bool(add_bos) and bos is not None,
        bos_token_id=bos,
        eos_token_ids=tuple(dict.fromkeys(eos)),
        templates={"default": template} if isinstance(template, str) else {},
        named_tokens={
            name: tokens[one] for name, one in named_ids.items() if one is not None and 0 <= one < len(tokens)
        },
    )


def _strings(metadata: Mapping[str, Any], name: str) -> Sequence[str]:
    value = metadata.get(_PREFIX + name)
    if not isinstance(value, Sequence) or isinstance(value, str) or not all(isinstance(one, str) for one in value):
        raise TokenizerError(
            f"{_PREFIX}{name} is missing or no list of texts; this GGUF file has no usable tokenizer: "
            "use one that was converted with its vocabulary"
        )
    return value


def _one_id(metadata: Mapping[str, Any], name: str) -> int | None:
    return next(iter(token_ids(metadata.get(_PREFIX + name), _PREFIX + name)), None)


def _byte_level(metadata: Mapping[str, Any], vocab: dict[str, int]) -> tokenizers.Tokenizer:
    pre = metadata.get(_PREFIX + "pre", "default")
    pre_tokenizer = gguf_pre_tokenizer(pre)
    merges = [tuple(merge.split(" ", 1)) for merge in _strings(metadata, "merges")]
    # Llama 3's file takes a whole word from the vocabulary even where its merges do not lead to it.
    model = _bpe(vocab, merges, ignore_merges=pre in ("llama-bpe", "llama3", "llama-v3"))
    backend = tokenizers.Tokenizer(model)
    if pre == "qwen2":
        backend.normalizer = normalizers.NFC()
    backend.pre_tokenizer = pre_tokenizer
    backend.decoder = decoders.ByteLevel()
    return backend


def _sentencepiece(metadata: Mapping[str, Any], tokens: Sequence[str], vocab: dict[str, int]) -> tokenizers.Tokenizer:
    scores = metadata.get(_PREFIX + "scores")
    if not isinstance(scores, Sequence) or len(scores) != len(tokens):
        raise TokenizerError(
            f"{_PREFIX}scores is missing or not as long as the {len(tokens)} tokens; fetch the file again"
        )
    unknown = _one_id(metadata, "unknown_token_id")
    model = _bpe(
        vocab,
        _merges_from_scores(tokens, vocab, scores),
        unk_token=tokens[unknown] if unknown is not None and unknown < len(tokens) else None,
        fuse_unk=True,
        byte_fallback=True,
    )
    backend = tokenizers.Tokenizer(model)
    add_prefix = metadata.get(_PREFIX + "add_space_prefix", True)
    spaces = normalizers.Replace(" ", "▁")
    backend.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), spaces]) if add_prefix else spaces
    steps: list[decoders.Decoder] = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    if add_prefix:
        steps.append(decoders.Strip(" ", 1, 0))
    backend.decoder = decoders.Sequence(steps)
    return backend


def _merges_from_scores(tokens: Sequence[str], vocab: dict[str, int], scores: Sequence[float]) -> list[tuple[str, str]]:
    """SentencePiece merges the pair whose union scores highest, so every way to cut a token in two is one merge."""
    cuts = [
        (-scores[index], index, vocab[token[:at]], token[:at], token[at:])
        for index, token in enumerate(tokens)
        for at in range(1, len(token))
        if token[:at] in vocab and token[at:] in vocab
    ]
    cuts.sort()
    return [(left, right) for _, _, _, left, right in cuts]


def _bpe(vocab: dict[str, int], merges: list[Any], **options: Any) -> models.BPE:
    try:
        return models.BPE(vocab, merges, **options)
    except Exception as error:  # the library raises bare Exception for whatever it cannot build
        raise TokenizerError(
            f"the GGUF vocabulary and its merges do not fit together ({error}); fetch the file again"
        ) from error
