"""Draws a model in the terminal. Imports rich: import this inside a verb only."""

from itertools import groupby
from typing import Any

from rich.box import ROUNDED, SIMPLE_HEAD
from rich.console import Console, Group
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from seamount.models.spec import GQASpec, LayerSpec, ModelSpec, MoESpec

_BAR = 28


def draw(name: str, spec: ModelSpec, figures: dict[str, Any]) -> None:
    """The layers as a column, the parameters by part, and the cache, to stdout."""
    console = Console()
    console.print(Panel(_layers(spec), title=f"{name} ({spec.model_type})", box=ROUNDED, expand=False))
    console.print(_parameters(figures))
    console.print(_cache(figures))


def _layers(spec: ModelSpec) -> Group:
    lines = [Text(f"embedding   {spec.vocab_size:,} x {spec.hidden_size:,}", style="cyan")]
    numbered = groupby(enumerate(spec.layers), key=lambda pair: pair[1])
    for layer, run in numbered:
        numbers = [number for number, _ in run]
        place = f"{numbers[0]}" if len(numbers) == 1 else f"{numbers[0]}-{numbers[-1]}"
        lines.append(Text("     |", style="dim"))
        lines.append(Text(f"layers {place} ({len(numbers)} x)", style="bold"))
        lines += _layer(layer)
    lines.append(Text("     |", style="dim"))
    head = "the embedding, transposed" if spec.tie_word_embeddings else f"{spec.hidden_size:,} x {spec.vocab_size:,}"
    lines.append(Text(f"norm, head  {head}", style="cyan"))
    for layer in spec.mtp_layers:
        lines.append(Text("     + multi-token prediction", style="bold"))
        lines += _layer(layer)
    return Group(*lines)


def _layer(layer: LayerSpec) -> list[Text]:
    attention, feed_forward = layer.attention, layer.feed_forward
    if isinstance(attention, GQASpec):
        heads = f"{attention.num_attention_heads} query, {attention.num_key_value_heads} key-value heads of "
        sizes = f"{heads}{attention.head_dim}"
    else:
        query = "plain queries" if attention.q_lora_rank is None else f"query latent {attention.q_lora_rank}"
        sizes = f"{attention.num_attention_heads} heads, cached latent {attention.kv_lora_rank}"
        sizes += f" + {attention.qk_rope_head_dim} rotated, {query}"
    if isinstance(feed_forward, MoESpec):
        inner = f"{feed_forward.num_experts_per_tok} of {feed_forward.n_routed_experts} experts"
        inner += f" + {feed_forward.n_shared_experts} shared, each {feed_forward.moe_intermediate_size:,} wide"
        inner += f" ({feed_forward.topk_method}, {feed_forward.scoring_func})"
    else:
        inner = f"{feed_forward.intermediate_size:,} wide"
    return [
        Text.assemble("   ", (f"{attention.kind:<5}", "green"), "  ", sizes),
        Text.assemble("   ", (f"{feed_forward.kind:<5}", "yellow"), "  ", inner),
    ]


def _parameters(figures: dict[str, Any]) -> Table:
    table = Table(title="Parameters", box=SIMPLE_HEAD, show_footer=True, title_justify="left")
    table.add_column("part", footer="total")
    table.add_column("parameters", footer=_short(figures["parameters"]), justify="right")
    table.add_column("share", justify="left", no_wrap=True, min_width=_BAR + 8)
    table.add_column("per token", footer=_short(figures["active_parameters_with_embedding"]), justify="right")
    for part, count in figures["parts"].items():
        if count["parameters"]:
            share = count["parameters"] / figures["parameters"]
            bar = Text("█" * round(share * _BAR), style="blue").append(f" {share:.1%}", style="default")
            table.add_row(part.replace("_", " "), _short(count["parameters"]), bar, _short(count["active_parameters"]))
    table.caption_justify = "left"
    table.caption = (
        f"active: {_short(figures['active_parameters'])} per token (with the head, without the input embedding's "
        f"look-up; the published count), {_short(figures['active_parameters_in_layers'])} in the layers alone"
    )
    if figures["mtp_parameters"]:
        table.caption += f"; multi-token prediction: {_short(figures['mtp_parameters'])} more"
    return table


def _cache(figures: dict[str, Any]) -> Table:
    table = Table(title="Cache per token", box=SIMPLE_HEAD, show_header=False, title_justify="left")
    table.add_row("numbers", f"{figures['kv_numbers_per_token']:,}")
    table.add_row(f"bytes ({figures['kv_dtype']})", f"{figures['kv_bytes_per_token']:,}")
    table.add_row("multi-head attention, same heads", f"{figures['mha_kv_bytes_per_token']:,} bytes")
    table.add_row("ratio to that", f"{figures['kv_ratio']:.2%}")
    table.add_row("ratio to DeepSeek-67B, same format", f"{figures['kv_ratio_to_deepseek_67b']:.2%}")
    reduction = figures["kv_reduction_from_deepseek_67b_at_6_bits"]
    table.add_row("less than DeepSeek-67B, if 6 bits here and 16 there", f"{reduction:.1%}")
    table.add_row(
        "at the full context", f"{figures['kv_bytes_per_token'] * figures['context_length'] / 2**30:,.2f} GiB"
    )
    return table


def _short(count: int) -> str:
    for unit, size in (("B", 10**9), ("M", 10**6), ("K", 10**3)):
        if count >= size:
            return f"{count / size:,.2f}{unit}"
    return str(count)
