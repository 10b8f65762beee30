"""Writes embedded_reference.json: what transformers makes of the embedded model's GGUF. Run it by hand; half a minute.

python tests/models/make_embedded_reference.py
"""

import json
from pathlib import Path

import torch

from seamount.checkpoint import locate

PROMPTS = [
    "The capital of France is",
    "Once upon a time, in a village by the sea,",
    "def fibonacci(n):\n",
    "import json\nfrom pathlib import Path\n\n\ndef read_settings(path: Path) -> dict:\n",
    "Water boils at",
    "The three laws of thermodynamics are",
    "Q: What is 17 + 25?\nA:",
    "To bake bread you need flour,",
    "La Révolution française a commencé en",
    "<|im_start|>user\nName three primary colours.<|im_end|>\n<|im_start|>assistant\n",
    "<|im_start|>user\nWrite a haiku about mountains under the sea.<|im_end|>\n<|im_start|>assistant\n",
    "The quick brown fox jumps over the lazy dog. The quick brown fox",
]
TOP = 20


def main() -> None:
    """Greedy answers of 64 tokens and the top logits behind each prompt, in float32."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    path = locate("embedded").path
    tokenizer = AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name)
    model = AutoModelForCausalLM.from_pretrained(path.parent, gguf_file=path.name, dtype=torch.float32).eval()
    cases = []
    for prompt in PROMPTS:
        ids = tokenizer(prompt, return_tensors="pt").input_ids
        with torch.no_grad():
            logits_W = model(ids).logits[0, -1]
            answer = model.generate(
                ids, attention_mask=torch.ones_like(ids), max_new_tokens=64, do_sample=False, eos_token_id=None
            )
        top = logits_W.topk(TOP)
        cases.append(
            {
                "prompt": prompt,
                "prompt_ids": ids[0].tolist(),
                "answer_ids": answer[0, ids.shape[1] :].tolist(),
                "deviation": float(logits_W.std()),
                "top_ids": top.indices.tolist(),
                "top_logits": top.values.tolist(),
            }
        )
    lines = ",\n".join(json.dumps(case) for case in cases)
    Path(__file__).with_name("embedded_reference.json").write_text(f"[\n{lines}\n]\n")


if __name__ == "__main__":
    main()
