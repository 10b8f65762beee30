"""Keeps control tokens out of what a request says, while a chat template is rendered with it.

A sentinel, a code point that occurs nowhere in the request, is put into every string of the request wherever a control
token could otherwise come about:

* inside each control token that the string spells out;
* before its beginning, where that could be the end of a control token that the template or another field began;
* after its end, where that could be the beginning of one;
* before a string that as a whole could be the middle of one.

Beginning and end are those without surrounding white space, so that a template's trim still finds the white space.
Outside this guarantee is a template that cuts request strings elsewhere than there or at an assistant's `</think>`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Any

from seamount.errors import TemplateError
from seamount.tokenizer.control_tokens import ControlTokens, require_characters

MAX_DEPTH = 100
"""How deep lists and objects of a request may be nested."""

# Templates form control tokens from these on purpose ('<|' + role + '|>'); any other role is escaped like any text.
KNOWN_ROLES = frozenset({"system", "user", "assistant", "tool", "developer", "function", "ipython"})

_THINKING = re.compile(r"(</?think>)")
# Noncharacters first: no text in its right mind holds them. The private planes are for requests out of theirs.
_CANDIDATES = (range(0xFDD2, 0xFDF0), range(0xF0000, 0xFFFFE), range(0x100000, 0x10FFFE))


class HazardTable:
    """The beginnings, ends and middles of a vocabulary's control tokens; built once, shared by all requests."""

    def __init__(self, control: ControlTokens) -> None:
        contents = list(control.contents.values())
        self.control = control
        self.single_characters = tuple(sorted({text for text in contents if len(text) == 1}))
        self.longest = max((len(text) for text in contents), default=0)
        self.has_white_space = any(character.isspace() for text in contents for character in text)
        self._beginnings = frozenset(text[:size] for text in contents for size in range(1, len(text)))
        self._ends = frozenset(text[-size:] for text in contents for size in range(1, len(text)))
        self._all = "\n".join(contents)

    def begins_with_an_end(self, text: str) -> bool:
        return any(text[:size] in self._ends for size in range(1, min(len(text), self.longest) + 1))

    def ends_with_a_beginning(self, text: str) -> bool:
        return any(text[-size:] in self._beginnings for size in range(1, min(len(text), self.longest) + 1))

    def is_a_middle(self, text: str) -> bool:
        return 0 < len(text) <= self.longest and text in self._all


class Escaper:
    """Escapes the strings of one request, and takes the sentinels out again after rendering."""

    def __init__(
        self, hazards: HazardTable, request: Any, template_source: str, template_words: frozenset[str]
    ) -> None:
        """template_words: what the template compares with or looks up; such a word alone is not taken for a middle."""
        self.was_needed = False
        self._hazards = hazards
        self._words = template_words
        used = set(template_source).union(*_strings(request, 0), *hazards.control.contents.values())
        sentinels = _unused(used, 1 + len(hazards.single_characters))
        self._sentinel = sentinels[0]
        self._replacements = dict(zip(hazards.single_characters, sentinels[1:], strict=True))
        self._removal = str.maketrans({self._sentinel: None} | {new: old for old, new in self._replacements.items()})

    def restore(self, text: str) -> str:
        """The text as it would be had nothing been escaped."""
        return text.translate(self._removal) if self.was_needed else text

    def messages(self, messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """The messages escaped; `<think>` and `</think>` in an assistant's content stay, as templates split there."""
        return [
            {
                self.value(name): self._role(value)
                if name == "role"
                else self.value(value, keep_thinking=name == "content" and message.get("role") == "assistant")
                for name, value in message.items()
            }
            for message in messages
        ]

    def value(self, value: Any, *, keep_thinking: bool = False) -> Any:
        """A copy of a JSON value with every string and every key escaped."""
        if isinstance(value, str):
            return self._text(value, keep_thinking)
        if isinstance(value, dict):
            return {self.value(key): self.value(one, keep_thinking=keep_thinking) for key, one in value.items()}
        if isinstance(value, (list, tuple)):
            return [self.value(one, keep_thinking=keep_thinking) for one in value]
        return value

    def _role(self, role: Any) -> Any:
        return role if isinstance(role, str) and role in KNOWN_ROLES else self.value(role)

    def _text(self, text: str, keep_thinking: bool) -> str:
        pieces = _THINKING.split(text) if keep_thinking else [text]
        # re.split puts the tags at the odd places.
        escaped = "".join(piece if index % 2 else self._guard(piece) for index, piece in enumerate(pieces))
        self.was_needed = self.was_needed or escaped != text
        return escaped

    def _guard(self, text: str) -> str:
        for old, new in self._replacements.items():
            text = text.replace(old, new)
        text = self._break_tokens(text)
        body = text.strip()
        if not body:
            return self._sentinel + text + self._sentinel if text and self._hazards.has_white_space else text
        start = text.index(body)
        before, after = text[:start], text[start + len(body) :]
        is_word = body.isidentifier() and body in self._words
        everywhere = self._hazards.has_white_space and not is_word
        if everywhere or self._hazards.begins_with_an_end(body) or (not is_word and self._hazards.is_a_middle(body)):
            body = self._sentinel + body
        if everywhere or self._hazards.ends_with_a_beginning(body):
            body += self._sentinel
        if everywhere and before:
            before = self._sentinel + before
        if everywhere and after:
            after += self._sentinel
        return before + body + after

    def _break_tokens(self, text: str) -> str:
        # Breaking one token can uncover another that overlapped it, hence the repetition; each round breaks some.
        while found := self._hazards.control.occurrences(text):
            parts, done = [], 0
            for at, _ in found:
                parts += [text[done : at + 1], self._sentinel]
                done = at + 1
            text = "".join(parts) + text[done:]
        return text


def _strings(value: Any, depth: int) -> Iterator[str]:
    """Every string in a JSON value, keys included."""
    if depth > MAX_DEPTH:
        raise TemplateError(f"the request is nested deeper than {MAX_DEPTH} levels; flatten it")
    if isinstance(value, str):
        require_characters(value)
        yield value
    elif isinstance(value, (dict, list, tuple)):
        parts: Iterable[Any] = [*value.keys(), *value.values()] if isinstance(value, dict) else value
        for part in parts:
            yield from _strings(part, depth + 1)
    elif value is not None and not isinstance(value, (bool, int, float)):
        raise TemplateError(f"the request holds a {type(value).__name__}; only JSON values may reach a chat template")


def _unused(used: set[str], count: int) -> list[str]:
    free = (chr(code) for codes in _CANDIDATES for code in codes if chr(code) not in used)
    sentinels = [sentinel for _, sentinel in zip(range(count), free, strict=False)]
    if len(sentinels) < count:
        raise TemplateError("the request uses every private code point of Unicode; leave one of them out")
    return sentinels
