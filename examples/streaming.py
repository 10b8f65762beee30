"""One chat answer, shown as it is made."""

import seamount
from seamount.engine import Engine, SamplingParams

engine = Engine(seamount.load("embedded"))
messages = [{"role": "user", "content": "Name three animals of the deep sea."}]
prompt_tokens = engine.tokenizer.chat(messages)
with engine.stream(prompt_tokens, SamplingParams(max_tokens=64, temperature=0)) as chunks:
    for chunk in chunks:
        print(chunk.text, end="", flush=True)
print()
