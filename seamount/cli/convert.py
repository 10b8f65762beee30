"""`seamount convert`: a checkpoint with packed weights, made from any other."""

from pathlib import Path
from typing import Annotated

import typer

from seamount.cli.options import FormatName, JsonOption, ModelArgument
from seamount.cli.output import print_json, progress_bar


def convert(
    model: ModelArgument,
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="Where to write; must hold no checkpoint yet.")],
    to: Annotated[FormatName, typer.Option("--to", help="int4: 4.25 bits a weight; int8: 8 bits, closer.")],
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a checkpoint in DIR.")] = False,
    json: JsonOption = False,
) -> None:
    """Pack a checkpoint's weights, tensor by tensor, so that it may be larger than memory; loading then maps them."""
    # Imported here because torch costs seconds that other verbs' --help must not pay.
    from seamount.models import convert as write_packed

    with progress_bar(f"packing {model}") as progress:
        write_packed(model, directory, to=to, overwrite=overwrite, progress=progress)
    nbytes = sum(path.stat().st_size for path in directory.glob("*.safetensors"))
    if json:
        print_json({"model": model, "directory": str(directory), "to": to, "bytes": nbytes})
    else:
        print(f"{directory}: {nbytes:,} bytes of weights, {to}")
