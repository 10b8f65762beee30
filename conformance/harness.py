"""lm-eval over HTTP, and the same figures in process: they must be the same numbers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import httpx
import torch
from features import Result, try_each
from lm_eval import simple_evaluate
from lm_eval.tasks import TaskManager
from served import PLAIN, TIMEOUT, Served

import seamount
from seamount import kernels
from seamount.engine import Engine, SamplingParams
from seamount.evaluate import perplexity, shipped_texts

CLOZE, CONTINUING = "seamount_cloze", "seamount_continuing"
_TASKS = {
    CLOZE: {
        "output_type": "multiple_choice",
        "doc_to_choice": "{{choices}}",
        "doc_to_target": "{{answer}}",
        "metric_list": [{"metric": "acc"}, {"metric": "acc_norm"}],
    },
    CONTINUING: {
        "output_type": "generate_until",
        "doc_to_target": "{{choices[answer]}}",
        "generation_kwargs": {"until": ["\n\n"], "max_gen_toks": 24, "temperature": 0},
        "metric_list": [{"metric": "exact_match"}],
    },
}


def documents(count: int = 16) -> list[dict[str, Any]]:
    """From Python's own documentation: two sentences, and four that may come next, of which one does."""
    sentences = [" ".join(one.split()) for one in shipped_texts()[0].content.split(".")]
    sentences = [one for one in sentences if 40 < len(one) < 200 and one.isascii()]
    found = []
    for number in range(count):
        place = number * 5
        true = sentences[place + 2]
        others = [sentences[(place + 37 * step) % len(sentences)] for step in (1, 2, 3)]
        answer = number % 4
        choices = [*others[:answer], true, *others[answer:]]
        found.append({"context": ". ".join(sentences[place : place + 2]) + ".", "choices": choices, "answer": answer})
    return found


def write_tasks(folder: Path) -> None:
    """The tasks' files: JSON lines, and what lm-eval reads. JSON is YAML, too."""
    data = folder / "documents.jsonl"
    data.write_text("".join(json.dumps(one) + "\n" for one in documents()), encoding="utf-8")
    for name, task in _TASKS.items():
        said = {
            "task": name,
            "dataset_path": "json",
            "dataset_kwargs": {"data_files": {"test": str(data)}},
            "test_split": "test",
            "doc_to_text": "{{context}}",
            "target_delimiter": " ",
            **task,
        }
        (folder / f"{name}.yaml").write_text(json.dumps(said), encoding="utf-8")


class InProcess:
    """The same model without a server."""

    def __init__(self, folder: Path) -> None:
        self.model = seamount.load(folder / PLAIN)
        assert self.model.tokenizer is not None
        self.tokenizer = self.model.tokenizer
        self.engine = Engine(self.model, "512MiB")

    def loglikelihood(self, context: str, continuation: str) -> float:
        """The sum over the continuation's tokens, cut as lm-eval cuts them."""
        spaces = len(context) - len(context.rstrip())
        if spaces:
            context, continuation = context[:-spaces], context[-spaces:] + continuation
        whole, start = self.tokenizer.encode(context + continuation), len(self.tokenizer.encode(context))
        params = SamplingParams(max_tokens=1, temperature=0, logprobs=1, prompt_logprobs=1)
        (completion,) = self.engine.generate([whole], params)
        scored = completion.prompt_logprobs or ()
        return sum(one.logprob for one in scored[start:] if one is not None)

    def text(self, context: str) -> str:
        """What follows, as lm-eval asks for it."""
        params = SamplingParams(max_tokens=24, temperature=0, stop=("\n\n",))
        (completion,) = self.engine.generate([self.tokenizer.encode(context)], params)
        return completion.text


class Harness:
    """lm-eval's answers, asked for once."""

    def __init__(self, served: Served) -> None:
        self.served = served
        self.ours = InProcess(served.folder)
        folder = served.folder / "tasks"
        folder.mkdir()
        write_tasks(folder)
        found = simple_evaluate(
            model="local-completions",
            model_args={
                "model": PLAIN,
                "base_url": f"{served.url}/v1/completions",
                "num_concurrent": 4,
                "batch_size": 4,
                "max_length": 1024,
                "max_retries": 1,
                "timeout": TIMEOUT,
            },
            tasks=[CLOZE, CONTINUING],
            task_manager=TaskManager(include_path=str(folder), include_defaults=False),
            log_samples=True,
            bootstrap_iters=0,
        )
        assert found is not None
        self.results: dict[str, Any] = found["results"]
        self.samples: dict[str, list[dict[str, Any]]] = found["samples"]


def likelihoods(harness: Harness) -> str:
    """local-completions, multiple choice: log-likelihoods identical to the engine's."""
    count = 0
    for sample in harness.samples[CLOZE]:
        for asked, answered in zip(sample["arguments"], sample["resps"], strict=True):
            theirs, ours = float(answered[0][0]), harness.ours.loglikelihood(*asked)
            assert theirs == ours, f"{theirs!r} over HTTP, {ours!r} in process, for {asked}"
            count += 1
    return f"{count} sums, each the identical float; acc {harness.results[CLOZE]['acc,none']:.3f}"


def generations(harness: Harness) -> str:
    """local-completions, generation: texts identical to the engine's."""
    samples = harness.samples[CONTINUING]
    for sample in samples:
        theirs, ours = sample["resps"][0][0], harness.ours.text(sample["arguments"][0][0])
        assert theirs == ours, f"{theirs!r} over HTTP, {ours!r} in process"
    return f"{len(samples)} texts; exact_match {harness.results[CONTINUING]['exact_match,none']:.3f}"


def tokenizer(harness: Harness) -> str:
    """The server's tokenizer (`/tokenizer_info`, `/tokenize`, `/detokenize`), which lm-eval finds by itself."""
    from lm_eval.utils import RemoteTokenizer

    remote = RemoteTokenizer(f"{harness.served.url}/v1/completions")
    text = shipped_texts()[0].content[:500]
    assert remote.encode(text) == harness.ours.tokenizer.encode(text)
    assert remote.decode(remote.encode(text)) == text
    return ""


def like_seamount_eval(harness: Harness) -> str:
    """The window of `seamount eval`, by echo over HTTP: log-probabilities identical to those of the model's logits."""
    model, text = harness.ours.model, shipped_texts()[0].content
    tokens = harness.ours.tokenizer.encode(text)[:256]
    body = {"model": PLAIN, "prompt": tokens, "echo": True, "max_tokens": 0, "logprobs": 0}
    answer = httpx.post(f"{harness.served.url}/v1/completions", json=body, timeout=TIMEOUT).raise_for_status().json()
    theirs = answer["choices"][0]["logprobs"]["token_logprobs"][1:]
    logits_TW = model.logits(torch.tensor([tokens[:-1]]))[0]
    scored_TW = kernels.log_softmax(logits_TW[:, : harness.ours.tokenizer.vocab_size])
    ours = [float(scored_TW[place, token]) for place, token in enumerate(tokens[1:])]
    differing = [pair for pair in zip(theirs, ours, strict=True) if len(set(pair)) > 1]
    assert not differing, f"{len(differing)} of {len(ours)} differ, first {differing[0]}"
    nats, measured = -sum(theirs) / len(theirs), perplexity(model, text, window=256, max_tokens=256).nats_per_token
    # One sums the softmax in float32, as the sampler does, the other in float64.
    assert abs(nats - measured) < 1e-4, f"{nats} over HTTP, {measured} in process"
    return f"{len(ours)} identical floats; {nats:.5f} nats per token, {measured:.5f} by `seamount eval`"


def results(served: Served) -> list[Result]:
    """What lm-eval finds."""
    try:
        harness = Harness(served)
    except Exception as error:  # noqa: BLE001 - whatever it raises is the finding
        return [Result("lm-eval", "local-completions", "fails", f"{type(error).__name__}: {error}"[:300])]
    return try_each("lm-eval", (tokenizer, likelihoods, generations, like_seamount_eval), harness)
