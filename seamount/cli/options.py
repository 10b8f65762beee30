"""Arguments and options that several verbs share."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer


class DtypeName(StrEnum):
    """Number formats for weights and arithmetic."""

    float32 = "float32"
    bfloat16 = "bfloat16"
    float16 = "float16"


class FormatName(StrEnum):
    """Formats of packed weights."""

    int4 = "int4"
    int8 = "int8"


class DraftsName(StrEnum):
    """Where guesses of the next tokens come from."""

    off = "off"
    ngram = "ngram"
    mtp = "mtp"


class LoadedFormatName(StrEnum):
    """What weights may be as they are loaded: packed, a GGUF file's own blocks, or numbers of the `dtype`."""

    int4 = "int4"
    int8 = "int8"
    gguf = "gguf"
    none = "none"


MODEL_HELP = 'A directory, a .gguf file, a hub id, or "embedded".'

ModelArgument = Annotated[str, typer.Argument(metavar="MODEL", help=MODEL_HELP)]
EmbeddedModelArgument = Annotated[str, typer.Argument(metavar="[MODEL]", help=MODEL_HELP)]
DtypeOption = Annotated[DtypeName | None, typer.Option("--dtype", help="Number format; by default the checkpoint's.")]
QuantizeOption = Annotated[
    LoadedFormatName | None,
    typer.Option(
        "--quantize",
        help="Pack weights; gguf keeps a GGUF file's own, as by default where that is fast; none: pack nothing.",
    ),
]
InitialFormatOption = Annotated[FormatName | None, typer.Option("--quantize", help="Packed weights, in this format.")]
MemoryOption = Annotated[
    str | None,
    typer.Option(
        "--memory",
        metavar="SIZE",
        help="Most memory for cached rows and work, as 8GiB; by default half of what is free.",
    ),
]
CacheDirOption = Annotated[
    Path | None,
    typer.Option("--cache-dir", metavar="DIRECTORY", help="Keep cached rows of known beginnings here, for later runs."),
]
CacheSizeOption = Annotated[
    str | None,
    typer.Option("--cache-size", metavar="SIZE", help="The most that the directory may hold; by default 8GiB."),
]
DraftsOption = Annotated[
    DraftsName, typer.Option("--drafts", help="Guess tokens ahead: answers stay the same, and may come faster.")
]
DatabaseOption = Annotated[
    Path | None,
    typer.Option(
        "--database",
        metavar="FILE",
        help="Ledger and keys; by default seamount/server.db in the user's data.",
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON document as the last line of stdout.")]
MaxTokensOption = Annotated[int, typer.Option("--max-tokens", min=1, help="Longest answer, in tokens.")]
TemperatureOption = Annotated[
    float, typer.Option("--temperature", min=0.0, help="0 takes the likeliest token; 1 samples as the model says.")
]
TopPOption = Annotated[float, typer.Option("--top-p", min=0.0, max=1.0, help="Sample from this share of probability.")]
SeedOption = Annotated[int | None, typer.Option("--seed", help="Makes sampling repeatable.")]
