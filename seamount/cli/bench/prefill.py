"""`seamount bench prefill`: one prompt at a time."""

from typing import Annotated

import typer

from seamount.cli.bench.options import RoundsOption
from seamount.cli.options import DtypeOption, JsonOption, MemoryOption, ModelArgument, QuantizeOption
from seamount.cli.output import print_json


def prefill(
    model: ModelArgument,
    tokens: Annotated[int, typer.Option("--tokens", min=1, help="Length of the prompts.")] = 512,
    rounds: RoundsOption = 5,
    dtype: DtypeOption = None,
    quantize: QuantizeOption = None,
    memory: MemoryOption = None,
    json: JsonOption = False,
) -> None:
    """Measure prompts under the engine, beside the model's bare steps and the limit of arithmetic."""
    # Imported here because torch costs seconds that other verbs' --help must not pay.
    from seamount import benchmark
    from seamount.cli.bench.report import measured, rates, share, show

    subject, document = measured("prefill", model, dtype, quantize, memory)
    document["options"] = {"tokens": tokens, "rounds": rounds}
    document["cases"] = [benchmark.prefill(subject, tokens, rounds)]
    subject.engine.close()
    if json:
        print_json(document)
        return
    rows = [(str(case["tokens"]), *rates(case), share(case["share"])) for case in document["cases"]]
    show(document, ("prompt", "tokens/s", "bare loop", "ratio", "of limit"), rows)
