"""How good a model is: perplexity on texts."""

from seamount.evaluate.perplexity import Perplexity, perplexity
from seamount.evaluate.texts import Text, file_text, shipped_texts

__all__ = ["Perplexity", "Text", "file_text", "perplexity", "shipped_texts"]
