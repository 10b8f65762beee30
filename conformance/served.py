"""The server that is tried: the embedded model, and the same weights under a template that knows tools and thinking.

The embedded model calls no tools and does not think. Its weights under a template of the Hermes form do both as far as
form goes, and form is what is tried here.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import seamount

PLAIN, CALLING, SHORT = "embedded", "calling", "short"
TIMEOUT = 1800.0
"""Seconds that a client waits: all that is found here is right or wrong, and nothing is slow."""
TEMPLATE = (
    "{%- for m in messages %}{{ '<|im_start|>' + m.role + '\\n' }}"
    "{%- if loop.first and tools %}{{ 'Tools: ' + (tools | tojson) + ' Call one as <tool_call>\\n"
    '{"name": NAME, "arguments": OBJECT}\\n</tool_call>\\n\' }}{% endif %}'
    "{{- (m.content or '') if m.content is not none else '' }}"
    '{%- for call in m.tool_calls or [] %}{{ \'<tool_call>\\n{"name": "\' + call.function.name + '
    "'\", \"arguments\": ' + (call.function.arguments | string) + '}\\n</tool_call>' }}{% endfor %}"
    "{{- '<|im_end|>\\n' }}{% endfor %}"
    "{%- if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}"
    "{%- if enable_thinking is defined and not enable_thinking %}{{ '<think>\\n\\n</think>\\n\\n' }}{% endif %}"
    "{% endif %}"
)


@dataclass(frozen=True)
class Served:
    """Where the server is, and which models it has."""

    url: str
    folder: Path


def write_models(folder: Path) -> None:
    """Three checkpoints of the embedded weights in int4: as they are, with the template above, with a short context.

    The last is for suites that name no limit: a small model's answers may have no end.
    """
    # Packed once, since that takes a minute.
    seamount.save(seamount.load(PLAIN, quantize="int4"), folder / PLAIN)
    path = Path(shutil.copytree(folder / PLAIN, folder / CALLING))
    _change(path / "tokenizer_config.json", chat_template=TEMPLATE)
    (path / "chat_template.jinja").unlink(missing_ok=True)
    shutil.copytree(folder / PLAIN, folder / SHORT)
    _change(folder / SHORT / "config.json", max_position_embeddings=512)


def _change(path: Path, **values: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text(encoding="utf-8")) | values), encoding="utf-8")


@contextmanager
def serving(folder: Path) -> Iterator[Served]:
    """`seamount serve` on a free port, over a database of its own; stopped at the end."""
    write_models(folder)
    models = [f"{name}={folder / name}" for name in (PLAIN, CALLING, SHORT)]
    options = ["--memory", "1.5GiB", "--port", "0", "--database", str(folder / "server.db")]
    with (folder / "log").open("w", encoding="utf-8") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "seamount", "serve", *models, *options],
            stdout=subprocess.PIPE, stderr=log, text=True,
        )  # fmt: skip
        assert process.stdout is not None
        try:
            first = process.stdout.readline().strip()
            if " at " not in first:
                raise SystemExit(f"no server: {first} {(folder / 'log').read_text(encoding='utf-8')[-2000:]}")
            yield Served(first.rpartition(" ")[2], folder)
        finally:
            process.terminate()
            try:
                process.wait(60)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
