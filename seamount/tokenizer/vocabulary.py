"""What a tokenizer directory and a GGUF header have in common once they are read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import tokenizers

from seamount.errors import TokenizerError


@dataclass(frozen=True)
class Vocabulary:
    """A tokenizer of the `tokenizers` library and the facts about it that the library does not hold.

    Errors: TokenizerError when a token id is not in the vocabulary.
    """

    backend: tokenizers.Tokenizer
    add_bos: bool
    """Whether plain text is preceded by the beginning-of-sequence token."""
    bos_token_id: int | None
    eos_token_ids: tuple[int, ...]
    """Every id that ends an answer."""
    templates: Mapping[str, str] = field(default_factory=dict)
    """Chat templates by name; the usual one is called `default`."""
    named_tokens: Mapping[str, str] = field(default_factory=dict)
    """What templates know as bos_token, eos_token, pad_token and unk_token."""
    config: Mapping[str, Any] = field(default_factory=dict)
    """tokenizer_config.json as it was read, so that saving loses nothing."""

    def __post_init__(self) -> None:
        names = [("bos_token_id", self.bos_token_id), *(("eos_token_id", one) for one in self.eos_token_ids)]
        for name, token_id in names:
            if token_id is not None and self.backend.id_to_token(token_id) is None:
                raise TokenizerError(
                    f"{name} is {token_id}, which is no token of this vocabulary of {self.size} tokens; "
                    "the tokenizer files do not belong together, fetch them again from one source"
                )

    @property
    def size(self) -> int:
        """One more than the highest token id."""
        added = self.backend.get_added_tokens_decoder()
        return max(self.backend.get_vocab_size(with_added_tokens=True), max(added, default=-1) + 1)


def token_ids(value: Any, what: str) -> tuple[int, ...]:
    """The token ids of a config field that holds one id, a list of ids, or null."""
    if value is None:
        return ()
    ids = value if isinstance(value, list) else [value]
    for one in ids:
        if isinstance(one, bool) or not isinstance(one, int) or not 0 <= one < 2**31:
            raise TokenizerError(f"{what} holds {one!r}; a token id is an integer from 0, correct that file")
    return tuple(dict.fromkeys(ids))
