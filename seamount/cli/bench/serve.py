"""`seamount bench serve`: many clients at once."""

from typing import Annotated

import typer

from seamount.cli.bench.options import RoundsOption, number_list
from seamount.cli.options import DtypeOption, JsonOption, MemoryOption, ModelArgument, QuantizeOption, TemperatureOption
from seamount.cli.output import print_json


def serve(
    model: ModelArgument,
    concurrency: Annotated[
        str, typer.Option("--concurrency", metavar="N,N,...", help="Numbers of clients that ask at the same time.")
    ] = "1,4,16,64",
    prompt_tokens: Annotated[
        int, typer.Option("--prompt-tokens", min=1, help="Longest prompt; they are up to a quarter shorter.")
    ] = 128,
    answer_tokens: Annotated[
        int, typer.Option("--answer-tokens", min=1, help="Longest answer; they are up to a quarter shorter.")
    ] = 64,
    requests: Annotated[
        int, typer.Option("--requests", min=1, help="Requests of each client, one after the other.")
    ] = 2,
    prefix_tokens: Annotated[
        int, typer.Option("--prefix-tokens", min=2, help="Length of the prompt that is asked again.")
    ] = 2000,
    rounds: RoundsOption = 2,
    temperature: TemperatureOption = 1.0,
    dtype: DtypeOption = None,
    quantize: QuantizeOption = None,
    memory: MemoryOption = None,
    json: JsonOption = False,
) -> None:
    """Measure many clients at once under the engine, without HTTP; and what a known beginning saves."""
    clients = number_list("concurrency", concurrency)
    # Imported here because torch costs seconds that other verbs' --help must not pay.
    from seamount import benchmark
    from seamount.cli.bench.report import measured, milliseconds, share, show

    workload = benchmark.Workload(prompt_tokens, answer_tokens, requests, temperature)
    subject, document = measured("serve", model, dtype, quantize, memory, max_running=max(64, *clients))
    document |= {
        "options": {
            "prompt_tokens": prompt_tokens, "answer_tokens": answer_tokens, "requests": requests, "rounds": rounds,
            "temperature": temperature,
        },
        "cases": benchmark.serve(subject, workload, clients, rounds),
        "prefix": benchmark.prefixes(subject, prefix_tokens, rounds),
        "memory": subject.memory,
    }  # fmt: skip
    subject.engine.close()
    if json:
        print_json(document)
        return
    rows = [
        (
            str(case["concurrency"]),
            f"{case['tokens_per_second']:.1f}",
            milliseconds(case["first_token_seconds"]),
            milliseconds(case["between_tokens_seconds"]),
            f"{case['step_seconds'] * 1e3:.1f}",
            f"{case['overhead_seconds'] * 1e6:.0f} us, {share(case['overhead_share'])}",
            share(case["sampling_share"]),
            share(case["share"]),
        )
        for case in document["cases"]
    ]
    columns = "clients", "tokens/s", "first, p99", "between, p99", "step ms", "overhead", "sampling", "of limit"
    show(document, columns, rows)
    prefix, held = document["prefix"], document["memory"]
    print(
        f"first token of {prefix['tokens']} tokens: {prefix['miss_seconds']:.3f} s new, {prefix['hit_seconds']:.3f} s "
        f"with {prefix['found_tokens']} known, ratio {prefix['ratio']:.3f}"
    )
    grown = "not known here" if held["resident_growth"] is None else f"{held['resident_growth'] / 2**30:.2f} GiB"
    print(f"memory: grown by {grown}, budget {held['budget'] / 2**30:.2f} GiB")
