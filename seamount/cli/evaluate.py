"""`seamount eval`: perplexity on real texts."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from seamount.cli.options import DtypeOption, JsonOption, LoadedFormatName, ModelArgument, QuantizeOption
from seamount.cli.output import print_json


def evaluate(
    model: ModelArgument,
    text: Annotated[
        Path | None,
        typer.Option("--text", metavar="FILE", help="A UTF-8 text; by default English and code that Python ships."),
    ] = None,
    tokens: Annotated[int, typer.Option("--tokens", min=2, help="Measure on this many first tokens.")] = 2048,
    window: Annotated[int, typer.Option("--window", min=2, help="Tokens per window; half of them overlap.")] = 512,
    dtype: DtypeOption = None,
    quantize: QuantizeOption = None,
    json: JsonOption = False,
) -> None:
    """Measure a model's perplexity on a text."""
    # Imported here because torch costs seconds that other verbs' --help must not pay.
    from seamount.cli.loading import load_model
    from seamount.evaluate import file_text, perplexity, shipped_texts

    texts = shipped_texts() if text is None else (file_text(text),)
    loaded = load_model(model, dtype, quantize or LoadedFormatName.none)
    window = min(window, loaded.spec.context_length)
    results = []
    for one in texts:
        measured = perplexity(loaded, one.content, window=window, max_tokens=tokens)
        results.append({"text": one.name, "source": one.source, **asdict(measured)})
        if not json:
            print(
                f"{one.name}: perplexity {measured.perplexity:.3f}, {measured.nats_per_token:.4f} nats per token, "
                f"{measured.bits_per_byte:.4f} bits per byte, {measured.tokens} tokens ({one.source})",
                flush=True,
            )
    if json:
        print_json({"model": model, "window": window, "results": results})
