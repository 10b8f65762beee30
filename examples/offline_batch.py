"""Many prompts at once, and several answers to one prompt, as JSON of a given form."""

import seamount
from seamount.engine import Engine, Grammar, SamplingParams

engine = Engine(seamount.load("embedded"), memory="1GiB")
beginning = "The following is a short, factual text about the sea.\n\n"
topics = ["A seamount is", "The deepest point of the ocean is", "Coral reefs are", "Plankton lives"]
params = SamplingParams(max_tokens=32, temperature=0.7, top_p=0.95, seed=1, stop=("\n\n",))
for topic, completion in zip(topics, engine.generate([beginning + topic for topic in topics], params), strict=True):
    print(f"{topic}{completion.text}")
    print(f"  [{len(completion.token_ids)} tokens, ended by {completion.finish_reason}]\n")

schema = {"type": "object", "properties": {"name": {"type": "string", "maxLength": 20}, "depth": {"type": "integer"}}}
schema |= {"required": ["name", "depth"], "additionalProperties": False}
prompt = engine.tokenizer.chat(
    [{"role": "user", "content": "Name an animal of the deep sea and its depth in metres, as JSON."}]
)
params = SamplingParams(max_tokens=64, seed=2, n=3, grammar=Grammar.json_schema(schema))
(completion,) = engine.generate([prompt], params)
for sample in completion.samples:
    print(sample.text)
metrics = engine.metrics
print(f"\n{metrics.generated_tokens} tokens in {metrics.steps} steps")
