"""A model that costs nothing and whose every answer is known, over a real tokenizer."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace

import tokenizers
import torch
from tokenizers import decoders, models, pre_tokenizers

from seamount.models.parts.batch import Batch
from seamount.models.parts.pages import PageLayout
from seamount.tokenizer import Tokenizer

TEMPLATE = (
    "{% for m in messages %}{{ m.role }}:{{ m.content }}\n{% endfor %}{% if add_generation_prompt %}a:{% endif %}"
)
PIECES = ("ab", "bc", "abc", "cab", "ababc", "b c")
EOS = "<eos>"


def toy_tokenizer(directory: Path, more: int = 0, template: str = TEMPLATE) -> Tokenizer:
    """All bytes, some longer pieces that only a model writes, and an end; the vocabulary is not in byte order.

    `more` pieces make it larger.
    """
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    words = [*alphabet, *(piece.replace(" ", "Ġ") for piece in PIECES), *(f"t{number}" for number in range(more))]
    backend = tokenizers.Tokenizer(models.BPE({word: index for index, word in enumerate(words)}, []))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens([EOS])
    backend.save(str(directory / "tokenizer.json"))
    config = {"eos_token": EOS, "chat_template": template}
    (directory / "tokenizer_config.json").write_text(json.dumps(config), encoding="utf-8")
    return Tokenizer.from_directory(directory)


class ToyModel:
    """Answers every prompt with its script, again and again; without one, with logits that depend on all tokens.

    A cached row is the token itself, and logits come from cached rows alone: wrong pages give wrong answers.
    """

    def __init__(self, tokenizer: Tokenizer, context_length: int = 4096, padding_rows: int = 3) -> None:
        self.tokenizer = tokenizer
        self.spec = SimpleNamespace(vocab_size=tokenizer.vocab_size + padding_rows, context_length=context_length)
        self.device = torch.device("cpu")
        self.page_layout = PageLayout([1], torch.float32)
        self.script: list[int] = []
        self.salt = 0
        self.before_step: Callable[[], None] = lambda: None
        self.step_sizes: list[int] = []
        self.num_steps = 0
        self.active = 0
        self._guard = threading.Lock()

    def step_bytes(self, num_tokens: int, num_logits: int) -> int:
        return 0

    def weights_changed(self) -> None:
        pass

    def logits_at(self, tokens_T: torch.Tensor, batch: Batch, wanted: Sequence[int]) -> torch.Tensor:
        with self._guard:
            self.active += 1
            assert self.active == 1, "two steps at once"
        try:
            self.before_step()
        finally:
            with self._guard:
                self.active -= 1
        batch.checked_positions()
        self.step_sizes += batch.lengths
        self.num_steps += 1
        rows_PS = batch.pages.rows(0)[:, :, 0]
        seen: list[list[int]] = []
        start = 0
        for table_N, cache, length in zip(batch.table_BN, batch.caches or (), batch.lengths, strict=True):
            for place in range(cache.length, cache.length + length):
                rows_PS[table_N[place // 64], place % 64] = float(tokens_T[start])
                start += 1
                if start - 1 in wanted:
                    known = rows_PS[torch.from_numpy(table_N)].flatten()[: place + 1]
                    assert known.isfinite().all(), "a row was read that was never written"
                    seen.append([int(token) for token in known])
        batch.advance()
        return torch.stack([self._logits(tokens) for tokens in seen]) if seen else torch.empty(0, self.spec.vocab_size)

    def _logits(self, tokens: list[int]) -> torch.Tensor:
        size = self.spec.vocab_size
        if not self.script:
            generator = torch.Generator().manual_seed(hash((*tokens, self.salt)) % 2**31)
            logits_W = torch.randn(size, generator=generator) * 2
        else:
            logits_W = torch.zeros(size)
            logits_W[self.script[self._answered(tokens) % len(self.script)]] = 50
        # Rows that stand for no token: drawing one would be an error.
        logits_W[self.tokenizer.vocab_size :] = 100
        return logits_W

    def _answered(self, tokens: list[int]) -> int:
        """How many of the last tokens are the script's beginning: no test's prompt ends in one."""
        size, most = len(self.script), 0
        for last in range(size):
            run = 0
            while run < len(tokens) and tokens[-1 - run] == self.script[(last - run) % size]:
                run += 1
            most = max(most, run - (run - last - 1) % size)
        return most

    def speak(self, text: str, *, then_end: bool = True) -> None:
        """Makes a text the script, byte by byte."""
        self.script = self.tokenizer.encode(text) + ([self.end] if then_end else [])

    def come_to_rest(self, seconds: float = 20) -> None:
        """Waits until no step is run any more, but not for longer than that."""
        deadline, seen = time.monotonic() + seconds, -1
        while self.num_steps != seen:
            assert time.monotonic() < deadline, "steps are still run"
            seen = self.num_steps
            time.sleep(0.2)

    @property
    def end(self) -> int:
        return self.tokenizer.eos_token_ids[0]
