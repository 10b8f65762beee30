"""Options that several measurements share."""

from typing import Annotated

import typer

from seamount.errors import ConfigError

RoundsOption = Annotated[int, typer.Option("--rounds", min=1, help="Rounds that count; medians are taken.")]


def number_list(name: str, text: str) -> list[int]:
    """Numbers of 1 or more from a text such as 1,16.

    Errors: ConfigError.
    """
    try:
        numbers = [int(part) for part in text.split(",")]
    except ValueError:
        numbers = [0]
    if min(numbers) < 1:
        raise ConfigError(
            f"{name} = {text!r}; allowed are whole numbers of 1 or more with commas between, such as 1,16"
        )
    return numbers
