"""Several prompts, several answers: the embedded model completes texts without a server."""

import seamount
from seamount.engine import Engine, SamplingParams

engine = Engine(seamount.load("embedded"))
prompts = ["A seamount is", "The deepest point of the ocean is", "def fibonacci(n):\n"]
params = SamplingParams(max_tokens=32, temperature=0.7, top_p=0.95, seed=1, stop=("\n\n",))
for prompt, completion in zip(prompts, engine.generate(prompts, params), strict=True):
    seconds = completion.timing.total_seconds
    print(f"{prompt}{completion.text}")
    print(f"  [{len(completion.token_ids)} tokens in {seconds:.1f} s, ended by {completion.finish_reason}]\n")
