"""Which experts a token goes to: scores in float32, one order of sums, ties to the lower number.

Source: DeepSeekMoE, arXiv 2401.06066; group limits from DeepSeek-V2, arXiv 2405.04434; `noaux_tc` from DeepSeek-V3,
arXiv 2412.19437. Equals: models.parts.router.
"""

import numpy as np

from seamount.kernels.cpu.compiling import inner
from seamount.kernels.cpu.records import L, S, get, get_float
from seamount.kernels.cpu.rowwise import exp, router_score, router_scores
from seamount.kernels.cpu.team import next_unit
from seamount.kernels.cpu.vector import (
    apart,
    floats,
    load_floats,
    read_float,
    read_int64,
    store_floats,
    subtract,
    write_float,
    write_int64,
)

_ZERO, _ONE = np.float32(0), np.float32(1)
_MINUS_INFINITY = np.float32(-np.inf)
_PART, _TOKENS = 8, 8  # experts and tokens of a unit of scoring: the experts' rows stay in the first-level cache


@inner
def score_experts(step, layer, rows, stride):
    """Every expert's product with every token's normed row: units of a few tokens by a few experts."""
    apart()
    E, D = get(layer, L.experts), get(step, S.hidden)
    parts = (E + _PART - 1) // _PART
    router, score, score_stride = get(layer, L.router), get(step, S.score), (E + 15) // 16 * 64
    unit = next_unit(get(step, S.team))
    while unit < (get(step, S.tokens) + _TOKENS - 1) // _TOKENS * parts:
        first, part = unit // parts * _TOKENS, unit % parts
        for token in range(first, min(get(step, S.tokens), first + _TOKENS)):
            row, out = rows + token * stride, score + token * score_stride
            expert, end = part * _PART, min(E, part * _PART + _PART)
            while D % 32 == 0 and expert + 4 <= end:
                router_scores(row, router + expert * D * 2, D * 2, D, out + expert * 4)
                expert += 4
            for rest in range(expert, end):
                write_float(out + rest * 4, router_score(row, router + rest * D * 2, D))
        unit = next_unit(get(step, S.team))


@inner
def _to_probabilities(score, E, is_sigmoid):
    apart()
    best = _ZERO
    if not is_sigmoid:
        best = read_float(score)
        for e in range(1, E):
            best = max(best, read_float(score + e * 4))
    for e in range(0, E, 16):
        value = load_floats(score + e * 4)
        if is_sigmoid:
            store_floats(score + e * 4, exp(subtract(floats(_ZERO), value)))
        else:
            store_floats(score + e * 4, exp(subtract(value, floats(best))))
    total = _ZERO
    for e in range(E):
        total += read_float(score + e * 4)
    for e in range(E):
        value = read_float(score + e * 4)
        write_float(score + e * 4, _ONE / (_ONE + value) if is_sigmoid else value / total)


@inner
def _choose(score, biased, layer, choice):
    """The top k of one token, best first: from the kept groups, by biased score."""
    apart()
    E, K = get(layer, L.experts), get(layer, L.top_k)
    n_group, method = get(layer, L.expert_groups), get(layer, L.method)
    bias, size = get(layer, L.router_bias), E // max(1, get(layer, L.expert_groups))
    for e in range(E):
        extra = read_float(bias + e * 4) if bias != 0 else _ZERO
        write_float(biased + e * 4, read_float(score + e * 4) + extra)
    if method > 0:
        rank = biased + E * 4
        for g in range(n_group):
            first, second = _MINUS_INFINITY, _MINUS_INFINITY
            for e in range(g * size, (g + 1) * size):
                value = read_float(biased + e * 4)
                if value > first:
                    first, second = value, first
                elif value > second:
                    second = value
            write_float(rank + g * 4, first + second if method == 2 and size > 1 else first)
        for _ in range(n_group - get(layer, L.kept_groups)):
            worst = -1
            for g in range(n_group):
                # A dropped group is marked by plus infinity; of equals the later goes first.
                value = read_float(rank + g * 4)
                if value < np.inf and (worst < 0 or value <= read_float(rank + worst * 4)):
                    worst = g
            write_float(rank + worst * 4, np.float32(np.inf))
            for e in range(worst * size, (worst + 1) * size):
                write_float(biased + e * 4, _MINUS_INFINITY)
    for k in range(K):
        best = -1
        for e in range(E):
            value = read_float(biased + e * 4)
            if value == value and (best < 0 or value > read_float(biased + best * 4)):
                best = e
        best = max(best, 0)
        write_int64(choice + k * 8, best)
        write_float(biased + best * 4, np.float32(np.nan))


@inner
def choose_experts(step, layer, scratch):
    """Experts and weights of every token: units of one token."""
    apart()
    E, K = get(layer, L.experts), get(layer, L.top_k)
    score_stride, is_sigmoid = (E + 15) // 16 * 64, get(layer, L.scoring) == 1
    token = next_unit(get(step, S.team))
    while token < get(step, S.tokens):
        score = get(step, S.score) + token * score_stride
        choice, weight = get(step, S.choice) + token * K * 8, get(step, S.choice_weight) + token * K * 4
        _to_probabilities(score, E, is_sigmoid)
        _choose(score, scratch, layer, choice)
        total = _ZERO
        for k in range(K):
            total += read_float(score + read_int64(choice + k * 8) * 4)
        for k in range(K):
            value = read_float(score + read_int64(choice + k * 8) * 4)
            if get(layer, L.is_normalised) and K > 1:
                value = value / (total + np.float32(1e-20))
            write_float(weight + k * 4, value * get_float(layer, L.routed_scale))
        token = next_unit(get(step, S.team))
