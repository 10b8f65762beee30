"""transformers in bfloat16 on a preset cut to a few layers, with random weights.

    python bench/peers/torch_peer.py deepseek-v2-lite [--layers 9] [--threads 2] [--cases prefill decode streams]

Runs in the development environment. The weights fill 11 GB at 9 layers. Cases as in `llama.py`, the cache
transformers' own; each is tried with two ways that transformers has to multiply experts, and measured with the
faster. The last line is one JSON document.
"""

import argparse
import time
from collections.abc import Callable
from typing import Any

import torch
import transformers
from measuring import fastest, finish, memory, report, summary
from torch import Tensor
from transformers.initialization import no_init_weights

from seamount.models import presets

_DEVIATION = 0.02
_POOL = 1 << 24
# Its third way, batched_mm, copies the experts of every token: 17 MB six times per token and layer of V2-Lite.
_EXPERTS = ("grouped_mm", "eager")


def build(preset: str, layers: int) -> Any:
    """transformers' model of the preset's shape. Errors: ModelNotFound for an unknown preset."""
    values = presets.config(preset) | {"num_hidden_layers": layers}
    values = {name: value for name, value in values.items() if name not in ("architectures", "torch_dtype")}
    config = transformers.AutoConfig.for_model(values.pop("model_type"), **values)
    with no_init_weights():
        model = transformers.AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16).eval()
    # Normal numbers by the billion take minutes: one pool of them, read from another place for every block.
    pool = (torch.randn(2 * _POOL) * _DEVIATION).bfloat16()
    offset = 0
    for parameter in model.parameters():
        if parameter.ndim == 1:
            torch.nn.init.ones_(parameter)
            continue
        for block in parameter.data.view(-1).split(_POOL):
            offset = (offset * 31 + 7_919) % _POOL
            block.copy_(pool[offset : offset + len(block)])
    return model


def random_tokens(model: Any, sequences: int, count: int) -> Tensor:
    """Token numbers, (sequences, count)."""
    return torch.randint(0, model.config.vocab_size, (sequences, count))


def prefill(model: Any, count: int) -> float:
    """Seconds for a prompt, logits of its last token."""
    prompt_BT = random_tokens(model, 1, count)
    started = time.perf_counter()
    logits_BTW = model(prompt_BT, use_cache=True, logits_to_keep=1).logits
    seconds = time.perf_counter() - started
    assert torch.isfinite(logits_BTW).all(), "finite logits"
    return seconds


def decode(model: Any, sequences: int, prompt: int, steps: int) -> float:
    """Seconds for all steps of all sequences, after a prompt."""
    cache = model(random_tokens(model, sequences, prompt), use_cache=True, logits_to_keep=1).past_key_values
    tokens_TB1 = random_tokens(model, steps, sequences).unsqueeze(-1)
    started = time.perf_counter()
    for tokens_B1 in tokens_TB1:
        logits_BTW = model(tokens_B1, past_key_values=cache, use_cache=True).logits
    seconds = time.perf_counter() - started
    assert torch.isfinite(logits_BTW).all(), "finite logits"
    return seconds


def measured(model: Any, case: Callable[[], float], tokens: int, arguments: argparse.Namespace) -> dict[str, Any]:
    """Tokens per second: a trial of each way, then the rounds with the faster."""

    def trial(experts: str) -> float:
        model.set_experts_implementation(experts)
        return tokens / case()

    experts, trials = fastest(_EXPERTS if arguments.experts == "faster" else (arguments.experts,), trial)
    model.set_experts_implementation(experts)
    return summary([tokens / case() for _ in range(arguments.rounds)], tokens) | {"experts": experts, "trials": trials}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("preset")
    parser.add_argument("--layers", type=int, default=9)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--cases", nargs="+", choices=("prefill", "decode", "streams"))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--experts", choices=("faster", *_EXPERTS), default="faster")
    parser.add_argument("--prefill-tokens", type=int, default=512)
    parser.add_argument("--prompt-tokens", type=int, default=8)
    parser.add_argument("--decode-tokens", type=int, default=16)
    parser.add_argument("--streams", type=int, default=16)
    parser.add_argument("--stream-steps", type=int, default=8)
    parser.add_argument("--json", action="store_true", help="print the last line alone")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    model = build(arguments.preset, arguments.layers)
    prompt, steps = arguments.prompt_tokens, arguments.decode_tokens
    count, each = arguments.streams, arguments.stream_steps
    cases: dict[str, tuple[Callable[[], float], int]] = {
        "prefill": (lambda: prefill(model, arguments.prefill_tokens), arguments.prefill_tokens),
        "decode": (lambda: decode(model, 1, prompt, steps), steps),
        "streams": (lambda: decode(model, count, prompt, each), count * each),
    }
    found = {}
    with torch.inference_mode():
        for name, (case, tokens) in cases.items():
            if not arguments.cases or name in arguments.cases:
                found[name] = measured(model, case, tokens, arguments)
                report(name, found[name], is_quiet=arguments.json)
    finish(
        {
            "peer": "transformers",
            "version": transformers.__version__,
            "torch": torch.__version__,
            "dtype": "bfloat16",
            "layers": arguments.layers,
            "parameters": sum(parameter.numel() for parameter in model.parameters()),
            "threads": arguments.threads,
            "memory": memory(),
            "cases": found,
        }
    )


if __name__ == "__main__":
    main()
