"""How a verb ends when it does not succeed: one clear message and an exit status, no traceback."""

from typing import Any

import typer
from typer.core import TyperGroup

from seamount.errors import ConfigError, RequestError, SeamountError

FAILED, WRONG_USE, INTERRUPTED = 1, 2, 130


class FailingCleanly(TyperGroup):
    """The group of verbs: turns Seamount's errors and Ctrl-C into messages and exit statuses."""

    def invoke(self, ctx: Any) -> Any:
        """Run the verb."""
        try:
            return super().invoke(ctx)
        except (ConfigError, RequestError) as error:
            status, message = WRONG_USE, str(error)
        except SeamountError as error:
            status, message = FAILED, str(error)
        except KeyboardInterrupt:
            status, message = INTERRUPTED, "interrupted"
        typer.echo(f"seamount: {message}", err=True)
        raise typer.Exit(status)
