"""A model that costs nothing and whose every answer is known, over a real tokenizer."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace

import tokenizers
import torch
from tokenizers import decoders, models, pre_tokenizers

from seamount.tokenizer import Tokenizer

TEMPLATE = (
    "{% for m in messages %}{{ m.role }}:{{ m.content }}\n{% endfor %}{% if add_generation_prompt %}a:{% endif %}"
)
PIECES = ("ab", "bc", "abc", "cab", "ababc", "b c")
EOS = "<eos>"


def toy_tokenizer(directory: Path) -> Tokenizer:
    """All bytes, some longer pieces that only a model writes, and an end; the vocabulary is not in byte order."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    words = [*alphabet, *(piece.replace(" ", "Ġ") for piece in PIECES)]
    backend = tokenizers.Tokenizer(models.BPE({word: index for index, word in enumerate(words)}, []))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens([EOS])
    backend.save(str(directory / "tokenizer.json"))
    config = {"eos_token": EOS, "chat_template": TEMPLATE}
    (directory / "tokenizer_config.json").write_text(json.dumps(config), encoding="utf-8")
    return Tokenizer.from_directory(directory)


class ToyModel:
    """Answers every prompt with its script, again and again; without one, with logits that depend on all tokens."""

    def __init__(self, tokenizer: Tokenizer, context_length: int = 4096, padding_rows: int = 3) -> None:
        self.tokenizer = tokenizer
        self.spec = SimpleNamespace(vocab_size=tokenizer.vocab_size + padding_rows, context_length=context_length)
        self.script: list[int] = []
        self.before_step: Callable[[], None] = lambda: None
        self.step_sizes: list[int] = []
        self.active = 0
        self._guard = threading.Lock()

    def new_cache(self, capacity: int) -> SimpleNamespace:
        return SimpleNamespace(capacity=capacity, tokens=[], prompt_count=0)

    def step(self, tokens: Sequence[int], cache: SimpleNamespace) -> torch.Tensor:
        with self._guard:
            self.active += 1
            assert self.active == 1, "two steps at once"
        self.before_step()
        cache.tokens += tokens
        assert len(cache.tokens) <= cache.capacity
        self.step_sizes.append(len(tokens))
        if len(tokens) > 1 or not cache.prompt_count:
            cache.prompt_count = len(cache.tokens)
        with self._guard:
            self.active -= 1
        return self._logits(cache)

    def _logits(self, cache: SimpleNamespace) -> torch.Tensor:
        size = self.spec.vocab_size
        if not self.script:
            generator = torch.Generator().manual_seed(hash(tuple(cache.tokens)) % 2**31)
            logits_W = torch.randn(size, generator=generator) * 2
        else:
            answered = len(cache.tokens) - cache.prompt_count
            logits_W = torch.zeros(size)
            logits_W[self.script[answered % len(self.script)]] = 50
        # Rows that stand for no token: drawing one would be an error.
        logits_W[self.tokenizer.vocab_size :] = 100
        return logits_W

    def speak(self, text: str, *, then_end: bool = True) -> None:
        """Makes a text the script, byte by byte."""
        self.script = self.tokenizer.encode(text) + ([self.end] if then_end else [])

    @property
    def end(self) -> int:
        return self.tokenizer.eos_token_ids[0]
