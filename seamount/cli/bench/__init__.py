"""`seamount bench ...`: what this machine can do, and how close a model comes to it."""

import typer

from seamount.cli.bench.decode import decode
from seamount.cli.bench.limits import limits
from seamount.cli.bench.prefill import prefill
from seamount.cli.bench.serve import serve
from seamount.cli.failures import FailingCleanly

bench = typer.Typer(cls=FailingCleanly, no_args_is_help=True, help="Measure this machine, and models on it.")
bench.command("limits")(limits)
bench.command("decode")(decode)
bench.command("prefill")(prefill)
bench.command("serve")(serve)
