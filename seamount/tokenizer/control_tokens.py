"""Where the control tokens of a text are.

Control tokens are all added tokens of a vocabulary, flagged special or not: DeepSeek-V3 flags `<｜User｜>` as not
special, and a user who could write it would speak with another's voice.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from tokenizers import AddedToken, Tokenizer, models

from seamount.errors import TokenizerError

# A noncharacter: no added token consists of it, so that it can stand for all text between them.
_BETWEEN = "\ufdd1"


class ControlTokens:
    """Finds the control tokens of one vocabulary.

    Cost: linear in the text; one automaton of the `tokenizers` library over all of them, built in milliseconds.
    """

    def __init__(self, added: Mapping[int, AddedToken]) -> None:
        self.contents: dict[int, str] = {token_id: token.content for token_id, token in added.items() if token.content}
        self.special_ids = frozenset(token_id for token_id, token in added.items() if token.special)
        self._finder, self._ids = _finder(added)
        # The library swallows white space beside some tokens and passes over some inside words. What is dangerous is
        # judged without these niceties.
        bare = {one: AddedToken(token.content, normalized=False) for one, token in added.items() if token.content}
        self._bare_finder, self._bare_ids = _finder(bare)

    def split(self, text: str) -> Iterator[tuple[int | None, str]]:
        """(token id, its text) for each control token, (None, text) for each stretch between them, in order.

        Equals: where the full tokenizer finds its added tokens, with the white space that lstrip and rstrip swallow.
        """
        yield from _split(self._finder, self._ids, text)

    def occurrences(self, text: str) -> list[tuple[int, str]]:
        """(index, token) of each control token spelt out in the text, overlapping ones left out."""
        found, at = [], 0
        for token_id, stretch in _split(self._bare_finder, self._bare_ids, text):
            if token_id is not None:
                found.append((at, stretch))
            at += len(stretch)
        return found


def require_characters(text: str) -> None:
    """Errors: TokenizerError for lone surrogates, which JSON can express and UTF-8 cannot."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise TokenizerError(
            f"the text holds half of a surrogate pair at character {error.start}, which is no character; remove it"
        ) from error


def _finder(added: Mapping[int, AddedToken]) -> tuple[Tokenizer, dict[int, int]]:
    """A tokenizer that knows the added tokens and nothing else, and its ids mapped to the vocabulary's."""
    finder = Tokenizer(models.WordLevel({_BETWEEN: 0}, unk_token=_BETWEEN))
    finder.add_tokens(list(added.values()))
    found = ((finder.token_to_id(token.content), token_id) for token_id, token in added.items() if token.content)
    return finder, {own_id: token_id for own_id, token_id in found if own_id is not None}


def _split(finder: Tokenizer, ids: dict[int, int], text: str) -> Iterator[tuple[int | None, str]]:
    encoding = finder.encode(text, add_special_tokens=False)
    for found, (start, end) in zip(encoding.ids, encoding.offsets, strict=True):
        yield ids.get(found), text[start:end]
