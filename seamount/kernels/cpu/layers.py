"""Whole layers in one parallel region: every thread runs the same phases and meets the others at barriers.

`run_layers` is what a step launches. It calls the halves of each layer by their addresses, which stand in the records,
because LLVM works through a function again for each one that holds it: apart, they compile in a third of the time.
"""

import numpy as np

from seamount.kernels.cpu import attending, experts, mixing, routing
from seamount.kernels.cpu.activations import quantise
from seamount.kernels.cpu.compiling import inlined, inner
from seamount.kernels.cpu.launch import argument, call_kernel
from seamount.kernels.cpu.mixing import ADD, STORE
from seamount.kernels.cpu.records import LAYER_BYTES, L, S, get, get_float
from seamount.kernels.cpu.rowwise import norm
from seamount.kernels.cpu.team import barrier, next_unit
from seamount.kernels.cpu.tiles import configure_tiles, release_tiles
from seamount.kernels.cpu.vector import apart, load_bfloat16, read_int64, store_floats

_HEAD_PAIRS = 8  # pairs of row blocks of the vocabulary in one unit of work


@inner
def _latent_values(step, layer, number, team, threads, scratch):
    """MLA up to each head's value in y."""
    apart()
    if get(layer, L.q_a) != 0:
        mixing.two_products(
            step, layer + L.q_a, get(step, S.y), get(step, S.y_stride), get(layer, L.q_bias), layer + L.kv_a,
            get(step, S.z), get(step, S.z_stride), get(layer, L.kv_bias), scratch,
        )  # fmt: skip
        barrier(team, threads)
        mixing.quantise_rows(
            step,
            get(step, S.y),
            get(step, S.y_stride),
            get(layer, L.q_rank),
            get(layer, L.q_norm),
            get_float(layer, L.latent_eps),
        )
        barrier(team, threads)
        mixing.product(step, layer + L.q, get(step, S.y), get(step, S.y_stride), 0, STORE, scratch)
    else:
        mixing.two_products(
            step, layer + L.q, get(step, S.y), get(step, S.y_stride), get(layer, L.q_bias), layer + L.kv_a,
            get(step, S.z), get(step, S.z_stride), get(layer, L.kv_bias), scratch,
        )  # fmt: skip
    barrier(team, threads)
    mixing.latent_rows(step, layer, number, scratch)
    barrier(team, threads)
    mixing.latent_queries(step, layer, scratch)
    barrier(team, threads)
    _attend(step, layer, number, team, threads, scratch)
    mixing.latent_values(step, layer, scratch)


@inner
def _attend(step, layer, number, team, threads, scratch):
    apart()
    is_split = attending.is_worth_splitting(step, layer)
    attending.attend(step, layer, number, is_split, scratch)
    barrier(team, threads)
    if is_split:
        attending.join_segments(step, layer, scratch)
        barrier(team, threads)


@inner
def _feed_forward(step, layer, me, team, threads, scratch):
    apart()
    if get(layer, L.experts) > 0:
        barrier(team, threads)
        routing.score_experts(step, layer, get(step, S.z), get(step, S.z_stride))
        barrier(team, threads)
        routing.choose_experts(step, layer, scratch)
        barrier(team, threads)
    if me == 0:
        experts.group_tokens(step, layer)
    barrier(team, threads)
    if get(layer, L.experts) > 0 and get(step, S.tokens) > 1:
        experts.gather(step)
        barrier(team, threads)
    experts.gate_and_up(step, scratch)
    barrier(team, threads)
    experts.requantise(step)
    barrier(team, threads)
    experts.down(step, scratch)
    barrier(team, threads)


@inner
def _head(step, team, threads, scratch):
    """Final norm and logits of the wanted tokens."""
    apart()
    D, rows = get(step, S.hidden), get(step, S.wanted_rows)
    kb = (D + 63) // 64
    unit = next_unit(team)
    while unit < get(step, S.wanted_count):
        token = read_int64(get(step, S.wanted) + unit * 8)
        z = get(step, S.z) + unit * get(step, S.z_stride)
        norm(get(step, S.x) + token * get(step, S.x_stride), get(step, S.norm), D, get_float(step, S.eps), z)
        out = get(step, S.act) + unit // rows * kb * rows * 64 + unit % rows * 64
        quantise(z, 64, D, out, rows * 64, get(step, S.act_notes) + unit * get(step, S.note_step))
        unit = next_unit(team)
    barrier(team, threads)
    matrix = step + S.head
    nb = get(matrix, 24)
    pairs = (nb + 1) // 2
    unit = next_unit(team)
    while unit * _HEAD_PAIRS < pairs:
        mixing.products(
            get(matrix, 16), get(matrix, 0), get(matrix, 8), nb, get(matrix, 32), unit * _HEAD_PAIRS,
            min(pairs, unit * _HEAD_PAIRS + _HEAD_PAIRS), (unit + threads) * _HEAD_PAIRS, get(step, S.wanted_count),
            get(step, S.act), rows, get(step, S.act_notes), get(step, S.note_step), get(step, S.logits),
            get(step, S.logits_stride), 0, STORE, scratch,
        )  # fmt: skip
        unit = next_unit(team)
    barrier(team, threads)


@inlined
def _scratch(step, me):
    return get(step, S.scratch) + me * get(step, S.scratch_bytes)


@inner
def _quantise_values(step, layer, dim, team, threads):
    """y, every head's values, as int8 activations."""
    apart()
    mixing.quantise_rows(step, get(step, S.y), get(step, S.y_stride), get(layer, L.heads) * dim, 0, np.float32(0))
    barrier(team, threads)


@inner
def _project(step, layer, team, threads, scratch):
    """x += o_proj of the int8 activations, and z = the feed-forward's normed input; ends without a barrier."""
    apart()
    mixing.product(step, layer + L.o, get(step, S.x), get(step, S.x_stride), get(layer, L.o_bias), ADD, scratch)
    barrier(team, threads)
    mixing.norm_rows(step, get(layer, L.ff_norm), get_float(layer, L.eps))


def latent_attention(step, layer, number, me):
    """The attention half of an MLA layer, up to the feed-forward's int8 input."""
    team, threads, scratch = get(step, S.team), get(step, S.threads), _scratch(step, me)
    mixing.norm_rows(step, get(layer, L.norm), get_float(layer, L.eps))
    barrier(team, threads)
    _latent_values(step, layer, number, team, threads, scratch)
    barrier(team, threads)
    _quantise_values(step, layer, get(layer, L.value_head), team, threads)
    _project(step, layer, team, threads, scratch)


def dense_attention(step, layer, number, me):
    """The attention half of a GQA layer, up to the feed-forward's int8 input."""
    team, threads, scratch = get(step, S.team), get(step, S.threads), _scratch(step, me)
    mixing.norm_rows(step, get(layer, L.norm), get_float(layer, L.eps))
    barrier(team, threads)
    mixing.product(step, layer + L.q, get(step, S.y), get(step, S.y_stride), get(layer, L.q_bias), STORE, scratch)
    barrier(team, threads)
    if get(step, S.is_alone) != 0 and get(layer, L.beside) > 0:
        attending.rows_and_values(step, layer, number, scratch)
        barrier(team, threads)
    else:
        mixing.dense_rows(step, layer, number, scratch)
        barrier(team, threads)
        _attend(step, layer, number, team, threads, scratch)
        _quantise_values(step, layer, get(layer, L.value_dim), team, threads)
    _project(step, layer, team, threads, scratch)


def feed_forward(step, layer, number, me):
    """The feed-forward half of a layer, routed, shared or dense."""
    _feed_forward(step, layer, me, get(step, S.team), get(step, S.threads), _scratch(step, me))


def head(step, layer, number, me):
    """Final norm and logits of the wanted tokens."""
    _head(step, get(step, S.team), get(step, S.threads), _scratch(step, me))


@inner
def _embed(step, team):
    """x = the tokens' rows of the embedding: units of one token."""
    D, token = get(step, S.hidden), next_unit(team)
    while token < get(step, S.tokens):
        row = get(step, S.embedding) + read_int64(get(step, S.token) + token * 8) * D * 2
        x = get(step, S.x) + token * get(step, S.x_stride)
        for i in range(0, D, 16):
            store_floats(x + i * 4, load_bfloat16(row + i * 2))
        token = next_unit(team)


def run_layers(arguments, phase, me, threads):
    """A whole step on one thread of the team; the only argument is the address of the step's record."""
    step = argument(arguments, 0)
    configure_tiles(get(step, S.tile))
    _embed(step, get(step, S.team))
    barrier(get(step, S.team), threads)
    for number in range(get(step, S.layer_count)):
        layer = get(step, S.layers) + number * LAYER_BYTES
        call_kernel(get(layer, L.attention), step, layer, number, me)
        call_kernel(get(step, S.feed_forward), step, layer, number, me)
    if get(step, S.wanted_count) > 0:
        call_kernel(get(step, S.head_kernel), step, 0, 0, me)
    release_tiles()
