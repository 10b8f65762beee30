"""What each weight format costs in quality: error of the weights, and perplexity and divergence of the embedded model.

    python bench/quality.py [--ggml libggml-base.so] [--tokens 1024] [--only NAME]... [--synthetic | --rows]

Every product takes quantised weights and quantised activations, in float32 otherwise, so that nothing but the format
counts: ours with one scale for a token's activations, llama.cpp's types with one for each 32 numbers, as it computes
with most of them (IQ4_XS and Q6_K have one for 256). IQ4_NL, IQ4_XS and Q6_K are encoded by llama.cpp's own library
(`--ggml`), the others by the package gguf. Rows that 256 does not divide are Q8_0 under Q6_K and IQ4_NL under IQ4_XS,
as llama.cpp has it.
Divergence is the mean of KL(unquantised || quantised) over all positions, in nats: far less noisy than perplexity.
The embedded model's stored weights are Q4_1 themselves, with groups of 32 inputs; encoding them so again is free, and
is no measure of that type. Only the row "as stored" runs the packed kernels themselves, bfloat16 in attention included,
on the file's own weights (quantize="gguf"). With --rows it is the cached rows that differ, not the weights: bfloat16,
and int8 with scales (RowFormat), on the embedded model in float32, and for attention alone on random rows of V3's
shape. The last line is one JSON document.
"""

import argparse
import ctypes
import json
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import gguf
import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

import seamount
from seamount import kernels
from seamount.evaluate import shipped_texts
from seamount.kernels import RowFormat, packing
from seamount.models import Model
from seamount.models.parts.batch import Batch
from seamount.models.parts.pages import PageLayout, new_caches

WINDOW = 512
LLAMA_BITS = {"Q4_0": 4.5, "Q4_1": 5.0, "IQ4_NL": 4.5, "IQ4_XS": 4.25, "Q6_K": 6.5625, "Q8_0": 8.5}
AS_STORED, STORED_BITS = "as stored", 5.0
BY_LIBRARY = ("IQ4_NL", "IQ4_XS", "Q6_K")

Encode = Callable[[Tensor], Tensor]  # a weight (N, K) as the format gives it back, float32


@dataclass(frozen=True)
class Case:
    """One row of the result: how weights, activations, and the head's two are encoded."""

    bits: float
    weight: Encode
    activation: Encode
    head_weight: Encode
    head_activation: Encode
    kinds: tuple[str, ...] = ("qkv_proj", "o_proj", "gate_up_proj", "down_proj", "head")


def exact(x: Tensor) -> Tensor:
    """Not quantised."""
    return x


def ours(format: packing.Format) -> Encode:
    """One of our packed formats."""
    return lambda weight_NK: packing.unpack(packing.pack(weight_NK, format))


def per_token(x_TD: Tensor) -> Tensor:
    """One scale a token, int8 but for its large quads: the packed kernels' own."""
    code_TD, scale_T = packing.quantise_rows(x_TD)
    return code_TD.float() * scale_T[:, None]


def per_token_int8(x_TD: Tensor) -> Tensor:
    """One scale a token, int8 for all of it."""
    scale_T1 = x_TD.abs().amax(-1, keepdim=True) / 127
    return (x_TD / scale_T1.clamp(min=1e-30)).round() * scale_T1


def per_32(x_TD: Tensor) -> Tensor:
    """int8 with one scale for 32 numbers, as llama.cpp's Q8_0."""
    return per_token_int8(x_TD.reshape(-1, 32)).view(x_TD.shape)


def llama(name: str, library: ctypes.CDLL | None) -> Encode:
    """A type of llama.cpp, encoded and decoded again."""
    kind = gguf.GGMLQuantizationType[name]

    def encode(weight_NK: Tensor) -> Tensor:
        N, K = weight_NK.shape
        block, size = gguf.GGML_QUANT_SIZES[kind]
        chosen = kind
        if K % block:  # as llama.cpp does where a super-block does not divide the row
            chosen = gguf.GGMLQuantizationType["Q8_0" if name == "Q6_K" else "IQ4_NL"]
            block, size = gguf.GGML_QUANT_SIZES[chosen]
        source = np.ascontiguousarray(weight_NK.float().numpy())
        if library is None:
            code = gguf.quants.quantize(source, chosen)
        else:
            code = np.empty((N, K // block * size), np.uint8)
            library.ggml_quantize_chunk(
                ctypes.c_int(chosen),
                source.ctypes.data_as(ctypes.c_void_p),
                code.ctypes.data_as(ctypes.c_void_p),
                *(ctypes.c_int64(0), ctypes.c_int64(N), ctypes.c_int64(K)),
                ctypes.c_void_p(None),
            )
        return torch.from_numpy(gguf.quants.dequantize(code, chosen))

    return encode


def cases(library: ctypes.CDLL | None) -> dict[str, Case]:
    """All rows."""
    int4, int8 = ours("int4"), ours("int8")
    rows = {
        "int4": Case(4.25, int4, per_token, int8, per_token),
        "int4, head int4": Case(4.25, int4, per_token, int4, per_token),
        "int4, activations exact": Case(4.25, int4, exact, int8, exact),
        "int8": Case(8, int8, per_token, int8, per_token),
        "int4, activations plain int8": Case(4.25, int4, per_token_int8, int8, per_token_int8),
        "int8, activations exact": Case(8, int8, exact, int8, exact),
        "int8, activations plain int8": Case(8, int8, per_token_int8, int8, per_token_int8),
        "only activations": Case(32, exact, per_token, exact, per_token),
        "only activations, plain int8": Case(32, exact, per_token_int8, exact, per_token_int8),
        "only activations, 32": Case(32, exact, per_32, exact, per_32),
    }
    for kind in ("qkv_proj", "o_proj", "gate_up_proj", "down_proj", "head"):
        rows[f"only activations, {kind}"] = Case(32, exact, per_token, exact, per_token, (kind,))
    q8 = llama("Q8_0", library)
    for name, bits in LLAMA_BITS.items():
        if library is not None or name not in BY_LIBRARY:
            rows[name] = Case(bits, llama(name, library), per_32, q8, per_32)
    return rows


class Encoded:
    """The layers' weights as formats give them back; the last format's are kept for the next case."""

    def __init__(self, model: Model) -> None:
        self.modules = {name: module for name, module in model.layers.named_modules() if name.endswith("_proj")}
        self.plain = {name: module.weight for name, module in self.modules.items()}
        self.format: Encode = exact
        self.weights: dict[str, Tensor] = {}
        self.error = 0.0

    def encode(self, format: Encode) -> None:
        """Work out `weights`, and `error`: the root of the mean over all weights of |W' - W|^2 / |W|^2."""
        if format is not self.format:
            self.weights, errors = {}, []
            for name, weight in self.plain.items():
                self.weights[name] = format(weight.detach())
                difference = self.weights[name] - weight.detach()
                errors.append(float(difference.square().sum() / weight.detach().square().sum()))
            self.format, self.error = format, math.sqrt(sum(errors) / len(errors))
        elif format is exact:
            self.weights, self.error = {name: weight.detach() for name, weight in self.plain.items()}, 0.0


@contextmanager
def encoded(model: Model, weights: Encoded, case: Case) -> Iterator[None]:
    """The model with its products replaced; undone at the end."""
    weights.encode(case.weight)
    kind_of: dict[int, str] = {}
    for name, module in weights.modules.items():
        kind = name.rsplit(".", 1)[-1]
        if kind in case.kinds:
            module.weight = nn.Parameter(weights.weights[name], requires_grad=False)
            kind_of[id(module.weight)] = kind
    table = model.embed_tokens.weight
    head = case.head_weight(table.detach()) if "head" in case.kinds else table
    plain = kernels.linear

    def linear(x_TD: Tensor, weight_FD: Tensor, bias_F: Tensor | None = None) -> Tensor:
        if weight_FD is table:
            x_TD = case.head_activation(x_TD) if "head" in case.kinds else x_TD
            return functional.linear(x_TD, head)
        return functional.linear(case.activation(x_TD) if id(weight_FD) in kind_of else x_TD, weight_FD, bias_F)

    kernels.linear = linear
    try:
        yield
    finally:
        kernels.linear = plain
        for name, module in weights.modules.items():
            module.weight = weights.plain[name]


def whole(model: Model) -> Callable[[Tensor], Tensor]:
    """Logits (T, W) of tokens (T)."""
    return lambda tokens_T: model.logits(tokens_T[None])[0]


def over(model: Model, layout: PageLayout) -> Callable[[Tensor], Tensor]:
    """The same with cached rows as the layout has them."""

    def run(tokens_T: Tensor) -> Tensor:
        batch = Batch.of([len(tokens_T)], new_caches(layout, [len(tokens_T)], model.device), model.device)
        return model.logits_at(tokens_T, batch, range(len(tokens_T)))

    return run


def rows_quality(model: Model, windows: list[Tensor], wanted: list[Tensor]) -> dict[str, dict[str, float]]:
    """What formats of cached rows cost, printed and returned."""
    layouts = {
        "bfloat16": PageLayout(model.page_layout.dims, torch.bfloat16),
        "compressed": model.compressed_layout,
    }
    found = {"float32": measure(whole(model), windows, wanted) | {"bytes": sum(model.page_layout.row_bytes)}}
    for name, layout in layouts.items():
        found[name] = measure(over(model, layout), windows, wanted) | {"bytes": sum(layout.row_bytes)}
    for name, shown in found.items():
        figures = f"perplexity {shown['perplexity']:.4f}, divergence {shown['divergence']:.7f}"
        print(f"embedded, rows of {name:<12}{shown['bytes']:>8} bytes a token, {figures}", flush=True)
    for kind, errors in attention_errors().items():
        print(f"attention, latents {kind:<16}", *(f"{name} {error:.3%} " for name, error in errors.items()), flush=True)
        found[f"attention, latents {kind}"] = errors
    return found


def attention_errors() -> dict[str, dict[str, float]]:
    """Error of MLA's attention, before the values' projection, by the format of its rows: |o' - o| / |o|, in float64.

    Rows are 2,048 of V3's shape, normed latents of several kinds; queries make scores of a deviation of 2.
    """
    S, H, C, R = 2048, 128, 512, 64
    format, generator = RowFormat(C + R, C, 128), torch.Generator().manual_seed(0)
    found: dict[str, dict[str, float]] = {}
    for kind, weight in synthetic().items():
        latent_SC = weight.flatten()[: S * C].view(S, C)
        latent_SC = latent_SC / latent_SC.square().mean(-1, keepdim=True).sqrt()
        rows_SQ = torch.cat((latent_SC, torch.randn(S, R, generator=generator)), dim=1)
        q_1HQ = torch.randn(1, H, C + R, generator=generator)
        scores_SH = rows_SQ @ q_1HQ[0].T
        q_1HQ = q_1HQ * (2 / scores_SH.std(0))[None, :, None]
        results = [
            kernels.latent_attention(q_1HQ.double(), rows.double(), C, 1.0)
            for rows in (rows_SQ, rows_SQ.bfloat16(), format.decode(format.encode(rows_SQ), torch.bfloat16))
        ]
        errors = [float((result - results[0]).norm() / results[0].norm()) for result in results[1:]]
        found[kind] = dict(zip(("bfloat16", "compressed"), errors, strict=True))
    return found


@torch.inference_mode()
def measure(run: Callable[[Tensor], Tensor], windows: list[Tensor], wanted: list[Tensor]) -> dict[str, float]:
    """Perplexity and divergence over all windows; `wanted` are the unquantised model's log-probabilities."""
    nats = divergence = 0.0
    count = 0
    for tokens_T, wanted_TW in zip(windows, wanted, strict=True):
        log_TW = run(tokens_T).log_softmax(-1)
        nats -= float(log_TW[:-1].gather(1, tokens_T[1:, None]).double().sum())
        divergence += float((wanted_TW.exp() * (wanted_TW - log_TW)).sum(-1).double().sum())
        count += len(tokens_T)
    return {"perplexity": math.exp(nats / (count - len(windows))), "divergence": divergence / count}


def synthetic() -> dict[str, Tensor]:
    """Weights of several distributions, (512, 2048)."""
    generator = torch.Generator().manual_seed(0)
    normal = torch.randn(512, 2048, generator=generator)
    torch.manual_seed(0)
    columns, rows = normal.clone(), normal * torch.randn(512, 1, generator=generator).exp()
    columns[:, ::97] *= 8
    return {
        "normal": normal,
        "student-t, 5": torch.distributions.StudentT(5.0).sample(normal.shape),
        "student-t, 3": torch.distributions.StudentT(3.0).sample(normal.shape),
        "outlier columns": columns,
        "uneven rows": rows,
        "uneven columns": normal * (torch.randn(2048, generator=generator) / 2).exp(),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--ggml", help="llama.cpp's libggml-base, to encode its types")
    parser.add_argument("--tokens", type=int, default=1024, help="of each of two texts")
    parser.add_argument("--only", action="append", help="a row's name; may be repeated")
    parser.add_argument("--rows", action="store_true", help="formats of cached rows instead of weights")
    parser.add_argument("--synthetic", action="store_true", help="errors of synthetic weights only")
    arguments = parser.parse_args()
    library = ctypes.CDLL(arguments.ggml) if arguments.ggml else None
    if library is not None:
        library.ggml_quantize_chunk.restype = ctypes.c_size_t
    rows: dict[str, Case | None] = {**cases(library), AS_STORED: None}
    if arguments.only:
        rows = {name: rows[name] for name in arguments.only}
    results: dict[str, dict[str, float]] = {}
    if arguments.synthetic:
        weights = synthetic()
        for name, encode in {"int4": ours("int4"), "int8": ours("int8")} | {
            name: llama(name, library) for name in LLAMA_BITS if library is not None or name not in BY_LIBRARY
        }.items():
            results[name] = {kind: float((encode(w) - w).norm() / w.norm()) for kind, w in weights.items()}
            print(f"{name:<8}", *(f"{kind} {error:.3%} " for kind, error in results[name].items()), flush=True)
        print(json.dumps({"bench": "quality", "synthetic": results}))
        return
    model = seamount.load("embedded", dtype="float32")
    assert model.tokenizer is not None
    windows = [
        window_T
        for text in shipped_texts()
        for window_T in torch.tensor(model.tokenizer.encode(text.content)[: arguments.tokens]).split(WINDOW)
    ]
    with torch.inference_mode():
        wanted = [whole(model)(tokens_T).log_softmax(-1) for tokens_T in windows]
    if arguments.rows:
        print(json.dumps({"bench": "quality", "rows": rows_quality(model, windows, wanted)}))
        return
    results["unquantised"] = measure(whole(model), windows, wanted)
    print(f"{'format':<32}{'bits':>6}{'weight error':>14}{'perplexity':>12}{'divergence':>12}")
    print(f"{'unquantised':<32}{32:>6}{0:>14.3%}{results['unquantised']['perplexity']:>12.4f}{0:>12.5f}")
    weights = Encoded(model)
    for name, case in rows.items():
        if case is None:
            stored = seamount.load("embedded", quantize="gguf")
            results[name] = {"bits": STORED_BITS, "weight_error": 0.0, **measure(whole(stored), windows, wanted)}
        else:
            with encoded(model, weights, case):
                results[name] = {
                    "bits": case.bits,
                    "weight_error": weights.error,
                    **measure(whole(model), windows, wanted),
                }
        shown = results[name]
        figures = f"{shown['weight_error']:>14.3%}{shown['perplexity']:>12.4f}{shown['divergence']:>12.5f}"
        print(f"{name:<32}{shown['bits']:>6}{figures}", flush=True)
    print(json.dumps({"bench": "quality", "window": WINDOW, "tokens": sum(map(len, windows)), "results": results}))


if __name__ == "__main__":
    main()
