"""How each GGUF `tokenizer.ggml.pre` cuts text into the words that byte-level BPE then merges.

The patterns are those of the published tokenizer.json files; a vocabulary gives right tokens only with its own.
"""

from __future__ import annotations

from collections.abc import Callable

from tokenizers import Regex, pre_tokenizers

from seamount.errors import TokenizerError

# Letters with case, as DeepSeek-LLM's file lists them (escaped: normalisation would change some). Other scripts
# fall through to the later patterns.
_CASED_LETTERS = (
    "A-Za-z\u00b5\u00c0-\u00d6\u00d8-\u00f6\u00f8-\u01ba\u01bc-\u01bf\u01c4-\u0293\u0295-\u02af\u0370-\u0373"
    "\u0376\u0377\u037b-\u037d\u037f\u0386\u0388-\u038a\u038c\u038e-\u03a1\u03a3-\u03f5\u03f7-\u0481\u048a-\u052f"
    "\u0531-\u0556\u10a0-\u10c5\u13a0-\u13f5\u13f8-\u13fd\u1c90-\u1cba\u1cbd-\u1cbf\u1d00-\u1d2b\u1d6b-\u1d77"
    "\u1d79-\u1d9a\u1e00-\u1f15\u1f18-\u1f1d\u1f20-\u1f45\u1f48-\u1f4d\u1f50-\u1f57\u1f59\u1f5b\u1f5d"
    "\u1f5f-\u1f7d\u1f80-\u1fb4\u1fb6-\u1fbc\u1fbe\u1fc2-\u1fc4\u1fc6-\u1fcc\u1fd0-\u1fd3\u1fd6-\u1fdb"
    "\u1fe0-\u1fec\u1ff2-\u1ff4\u1ff6-\u1ffc\u2102\u2107\u210a-\u2113\u2115\u2119-\u211d\u2124\u2126\u2128"
    "\u212a-\u212d\u212f-\u2134\u2139\u213c-\u213f\u2145-\u2149\u214e\u2183\u2184\u2c00-\u2c7b\u2c7e-\u2ce4"
    "\u2ceb-\u2cee\u2cf2\u2cf3\ua640-\ua66d\ua680-\ua69b\ua722-\ua76f\ua771-\ua787\ua78b-\ua78e\uab70-\uabbf"
    "\ufb00-\ufb06\ufb13-\ufb17\uff21-\uff3a\uff41-\uff5a\U00010400-\U0001044f\U000104b0-\U000104d3"
    "\U000104d8-\U000104fb\U00010c80-\U00010cb2\U00010cc0-\U00010cf2\U000118a0-\U000118df\U0001e900-\U0001e943"
)
_CHINESE_AND_KOREAN = "[\u4e00-\u9fa5\u0800-\u4e00\uac00-\ud7ff]+"
_CONTRACTIONS = "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_LLAMA3 = _CONTRACTIONS + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_DEEPSEEK_V3_WORDS = (
    r"""[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+"""
    r"""| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"""
)


def _gpt2() -> list[pre_tokenizers.PreTokenizer]:
    return [pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)]


def _smollm() -> list[pre_tokenizers.PreTokenizer]:
    return [pre_tokenizers.Digits(individual_digits=True), *_gpt2()]


def _cuts(*patterns: str, digits: bool = False) -> list[pre_tokenizers.PreTokenizer]:
    steps: list[pre_tokenizers.PreTokenizer] = [
        pre_tokenizers.Split(Regex(pattern), behavior="isolated") for pattern in patterns
    ]
    if digits:
        steps.append(pre_tokenizers.Digits(individual_digits=True))
    return [*steps, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]


def _llama3() -> list[pre_tokenizers.PreTokenizer]:
    return _cuts(_LLAMA3)


def _qwen2() -> list[pre_tokenizers.PreTokenizer]:
    return _cuts(_LLAMA3.replace("{1,3}", ""))


def _deepseek_llm() -> list[pre_tokenizers.PreTokenizer]:
    punctuation = r"\s?[!-/:-~\uff01-\uff0f\uff1a-\uff5e\u2018-\u201f\u3000-\u3002]+"
    return _cuts(r"[\r\n]", rf"\s?[{_CASED_LETTERS}]+", punctuation, r"\s+$", _CHINESE_AND_KOREAN, digits=True)


def _deepseek_coder() -> list[pre_tokenizers.PreTokenizer]:
    return _cuts(r"[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", _CHINESE_AND_KOREAN, digits=True)


def _deepseek_v3() -> list[pre_tokenizers.PreTokenizer]:
    return _cuts(r"\p{N}{1,3}", "[\u4e00-\u9fa5\u3040-\u309f\u30a0-\u30ff]+", _DEEPSEEK_V3_WORDS)


_BUILDERS: dict[str, Callable[[], list[pre_tokenizers.PreTokenizer]]] = {
    "default": _gpt2,
    "gpt-2": _gpt2,
    "smollm": _smollm,
    "llama-bpe": _llama3,
    "llama3": _llama3,
    "llama-v3": _llama3,
    "qwen2": _qwen2,
    "deepseek-r1-qwen": _qwen2,
    "deepseek-llm": _deepseek_llm,
    "deepseek-coder": _deepseek_coder,
    "deepseek-v3": _deepseek_v3,
}


def gguf_pre_tokenizer(name: str) -> pre_tokenizers.PreTokenizer:
    """The pre-tokenizer that a GGUF names in `tokenizer.ggml.pre`.

    Errors: TokenizerError for a name outside the table; a guess would give wrong tokens silently.
    Equals: the published tokenizer.json for deepseek-v3 and, digits apart, transformers' GPT-2 for smollm.
    """
    if name not in _BUILDERS:
        raise TokenizerError(
            f"tokenizer.ggml.pre is {name!r}; known are {', '.join(sorted(_BUILDERS))}. "
            "Use the model's directory with its tokenizer.json instead of the GGUF file"
        )
    return pre_tokenizers.Sequence(_BUILDERS[name]())
