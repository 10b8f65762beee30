"""Perplexity against numbers worked out by hand."""

import math

import pytest
import torch

from seamount.errors import ConfigError, ModelNotFound
from seamount.evaluate import file_text, perplexity, shipped_texts
from seamount.evaluate.perplexity import sum_nats


class Letters:
    """A tokenizer with one token for each of 8 letters."""

    def encode(self, text):
        return ["abcdefgh".index(letter) for letter in text]

    def decode(self, token_ids, *, skip_control_tokens=True):
        return "".join("abcdefgh"[token_id] for token_id in token_ids)


class Successor:
    """Gives the last token's successor the logit `sureness`, and all else 0."""

    def __init__(self, sureness):
        self.sureness, self.tokenizer, self.widths = sureness, Letters(), []

    def logits(self, tokens_BT):
        self.widths.append(tokens_BT.shape[1])
        return self.sureness * torch.nn.functional.one_hot((tokens_BT + 1) % 8, 8).float()


class Counter:
    """Looks back over all of its context: the logit of token 0 is the number of tokens before it."""

    tokenizer = Letters()

    def logits(self, tokens_BT):
        B, T = tokens_BT.shape
        logits_BTW = torch.zeros(B, T, 8)
        logits_BTW[..., 0] = torch.arange(1, T + 1)
        return logits_BTW


@pytest.mark.parametrize("window", [2, 3, 5, 8, 100])
def test_uniform_model(window):
    measured = perplexity(Successor(0.0), "abcdefgh" * 4, window=window)
    assert measured.tokens == measured.bytes == 31
    assert measured.perplexity == pytest.approx(8)
    assert measured.bits_per_byte == pytest.approx(3)


@pytest.mark.parametrize("window", [2, 3, 5, 8, 100])
def test_each_token_is_scored_once_in_windows_of_the_asked_size(window):
    model = Successor(2.0)
    measured = perplexity(model, "abcdefgh" * 3 + "aa", window=window)
    right, wrong = math.log(math.e**2 + 7) - 2, math.log(math.e**2 + 7)
    assert measured.nats_per_token * measured.tokens == pytest.approx(24 * right + wrong)
    assert max(model.widths) < window


def test_windows_overlap_by_half():
    tokens = torch.zeros(7, dtype=torch.int64)
    # Window 4: tokens 1-3 see 1-3 tokens; then 4-5 see 2-3, and 6 sees 2.
    seen = [1, 2, 3, 2, 3, 2]
    expected = sum(math.log(math.exp(count) + 7) - count for count in seen)
    assert sum_nats(Counter(), tokens, window=4) == pytest.approx(expected)


def test_max_tokens_cuts_the_text():
    assert perplexity(Successor(0.0), "abcdefgh", max_tokens=5).tokens == 4


@pytest.mark.parametrize(("text", "window"), [("a", 8), ("", 8), ("abc", 1)])
def test_too_little_to_measure(text, window):
    with pytest.raises(ConfigError, match="at least 2"):
        perplexity(Successor(0.0), text, window=window)


def test_shipped_texts_are_real_and_say_where_they_come_from():
    english, code = shipped_texts()
    assert len(english.content) > 20_000
    assert "pydoc_data.topics" in english.source
    assert len(code.content) > 20_000
    compile(code.content.replace("from __future__", "#"), "code", "exec")


def test_file_text(tmp_path):
    with pytest.raises(ModelNotFound, match="missing"):
        file_text(tmp_path / "missing.txt")
    (tmp_path / "binary.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match="UTF-8"):
        file_text(tmp_path / "binary.txt")
