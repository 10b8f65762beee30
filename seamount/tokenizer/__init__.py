"""Text to tokens and back: tokenizer.json or GGUF vocabularies, chat templates, streaming detokenisation."""

from seamount.tokenizer.detokenize import Detokenizer
from seamount.tokenizer.tokenizer import Tokenizer

__all__ = ["Detokenizer", "Tokenizer"]
