"""`seamount init`: a checkpoint with random weights."""

import json as json_format
from pathlib import Path
from typing import Annotated, Any

import typer

from seamount.cli.options import InitialFormatOption, JsonOption
from seamount.cli.output import print_json, progress_bar
from seamount.errors import ConfigError


def initialise(
    preset: Annotated[str, typer.Argument(metavar="PRESET", help="A preset's name, such as deepseek-v2-lite.")],
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="Where to write; must be empty or new.")],
    seed: Annotated[int, typer.Option("--seed", help="The same seed gives the same weights.")] = 0,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Change a config field; the value is JSON, else text."),
    ] = None,
    quantize: InitialFormatOption = None,
    json: JsonOption = False,
) -> None:
    """Write a random-weight checkpoint of a preset's shape, layer by layer, so that it may be larger than memory."""
    # Imported here because torch costs seconds that other verbs' --help must not pay.
    from seamount.models import cost, load_spec
    from seamount.models import initialise as write_checkpoint

    overrides = parse_settings(settings or [])
    with progress_bar(f"writing {preset}") as progress:
        write_checkpoint(preset, directory, seed=seed, overrides=overrides, quantize=quantize, progress=progress)
    counted = cost.parameters(load_spec(str(directory)))
    if json:
        print_json(
            {
                "preset": preset,
                "directory": str(directory),
                "seed": seed,
                "quantize": quantize,
                "overrides": overrides,
                "parameters": counted.total,
                "mtp_parameters": counted.mtp,
            }
        )
    else:
        print(f"{directory}: {counted.total + counted.mtp:,} parameters of the shape {preset}, seed {seed}")


def parse_settings(settings: list[str]) -> dict[str, Any]:
    """The config fields that `key=value` texts set.

    Errors: ConfigError for a text without key or `=`, or a key given twice.
    """
    overrides: dict[str, Any] = {}
    for setting in settings:
        key, separator, value = setting.partition("=")
        if not separator or not key:
            raise ConfigError(f"--set {setting!r} is not of the form key=value")
        if key in overrides:
            raise ConfigError(f"--set {key} is given twice")
        try:
            overrides[key] = json_format.loads(value)
        except json_format.JSONDecodeError:
            overrides[key] = value
    return overrides
