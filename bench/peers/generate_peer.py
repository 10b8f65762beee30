"""transformers' `generate` on a checkpoint: prompts and answers of a batch.

    python bench/peers/generate_peer.py MODEL [--threads 2] [--clients 1 4 16]

Runs in the development environment. MODEL is a directory or a GGUF file, whose weights transformers decodes. All
prompts of a batch are equally long, so that none is padded. The last line is one JSON document.
"""

import argparse
import time
from pathlib import Path
from typing import Any

import torch
import transformers
from measuring import finish, memory, report, summary
from torch_peer import prefill, random_tokens


def load(path: Path, dtype: str) -> Any:
    """The model in that number format."""
    source: dict[str, Any] = {"dtype": getattr(torch, dtype), "local_files_only": True}
    folder = path.parent if path.is_file() else path
    if path.is_file():
        source["gguf_file"] = path.name
    return transformers.AutoModelForCausalLM.from_pretrained(folder, **source).eval()


def answer(model: Any, sequences: int, prompt: int, count: int) -> float:
    """Seconds until all sequences have `count` new tokens, their prompts included."""
    prompt_BT = random_tokens(model, sequences, prompt)
    started = time.perf_counter()
    output_BT = model.generate(
        prompt_BT,
        attention_mask=torch.ones_like(prompt_BT),
        min_new_tokens=count,
        max_new_tokens=count,
        do_sample=False,
        pad_token_id=0,
    )
    seconds = time.perf_counter() - started
    assert output_BT.shape == (sequences, prompt + count), "every sequence has its tokens"
    return seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 4, 16])
    parser.add_argument("--prefill-tokens", type=int, default=512)
    parser.add_argument("--prompt-tokens", type=int, default=128)
    parser.add_argument("--answer-tokens", type=int, default=32)
    parser.add_argument("--json", action="store_true", help="print the last line alone")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    model, long, prompt = load(arguments.model, arguments.dtype), arguments.prefill_tokens, arguments.prompt_tokens
    cases = {"prefill": (lambda: prefill(model, long), long), "first": (lambda: answer(model, 1, prompt, 1), prompt)}
    count = arguments.answer_tokens
    for clients in arguments.clients:
        cases[f"clients {clients}"] = (lambda n=clients: answer(model, n, prompt, count)), clients * count
    found = {}
    with torch.inference_mode():
        for name, (case, tokens) in cases.items():
            found[name] = summary([tokens / case() for _ in range(arguments.rounds + 1)][1:], tokens)
            report(name, found[name], is_quiet=arguments.json)
    version = transformers.__version__
    finish({"peer": "transformers", "version": version, "dtype": arguments.dtype, "memory": memory(), "cases": found})


if __name__ == "__main__":
    main()
