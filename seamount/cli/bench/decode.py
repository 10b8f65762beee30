"""`seamount bench decode`: one token after the other."""

from typing import Annotated

import typer

from seamount.cli.bench.options import RoundsOption, number_list
from seamount.cli.options import DtypeOption, JsonOption, MemoryOption, ModelArgument, QuantizeOption, TemperatureOption
from seamount.cli.output import print_json


def decode(
    model: ModelArgument,
    streams: Annotated[
        str, typer.Option("--streams", metavar="N,N,...", help="Numbers of answers that grow together.")
    ] = "1,16",
    context: Annotated[int, typer.Option("--context", min=1, help="Tokens that stand before each answer.")] = 8,
    tokens: Annotated[int, typer.Option("--tokens", min=1, help="Tokens of each answer in a round.")] = 32,
    rounds: RoundsOption = 3,
    temperature: TemperatureOption = 0.0,
    dtype: DtypeOption = None,
    quantize: QuantizeOption = None,
    memory: MemoryOption = None,
    json: JsonOption = False,
) -> None:
    """Measure decoding under the engine, beside the model's bare steps and the limit of memory."""
    numbers = number_list("streams", streams)
    # Imported here because torch costs seconds that other verbs' --help must not pay.
    from seamount import benchmark
    from seamount.cli.bench.report import measured, rates, share, show

    subject, document = measured("decode", model, dtype, quantize, memory, max_running=max(64, *numbers))
    document["options"] = {"context": context, "tokens": tokens, "rounds": rounds, "temperature": temperature}
    document["cases"] = [benchmark.decode(subject, number, context, tokens, rounds, temperature) for number in numbers]
    subject.engine.close()
    if json:
        print_json(document)
        return
    rows = [
        (
            str(case["streams"]),
            *rates(case),
            share(case["share"]),
            f"{case['overhead_seconds'] * 1e6:.0f} us, {share(case['overhead_share'])}",
            share(case["sampling_share"]),
        )
        for case in document["cases"]
    ]
    show(document, ("streams", "tokens/s", "bare loop", "ratio", "of limit", "overhead", "sampling"), rows)
