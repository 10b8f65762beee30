"""OpenAI's own client against the server."""

from __future__ import annotations

import threading
from typing import Any

import openai
import pytest
from toy_model import ToyModel

MODEL = "org/toy"
TEXT = "Grüße ☃!"
MESSAGES: Any = [{"role": "system", "content": "s"}, {"role": "user", "content": [{"type": "text", "text": "Hi"}]}]
PROMPT_TOKENS = len("system:s\nuser:Hi\na:")
COMPLETION_TOKENS = len(TEXT.encode()) + 1


def test_chat(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(model=MODEL, messages=MESSAGES, temperature=0)
    assert answer.object == "chat.completion"
    assert answer.model == MODEL
    assert answer.choices[0].message.role == "assistant"
    assert answer.choices[0].message.content == TEXT
    assert answer.choices[0].finish_reason == "stop"
    assert answer.usage is not None
    assert answer.usage.prompt_tokens == PROMPT_TOKENS
    assert answer.usage.completion_tokens == COMPLETION_TOKENS
    assert answer.usage.total_tokens == PROMPT_TOKENS + COMPLETION_TOKENS


def test_fields_that_openais_messages_have_are_there_without_a_value(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(model=MODEL, messages=MESSAGES)
    message = answer.choices[0].message.to_dict()
    assert (message["refusal"], message["annotations"]) == (None, [])


def test_chat_stream(client: openai.OpenAI) -> None:
    stream = client.chat.completions.create(
        model=MODEL, messages=MESSAGES, temperature=0, stream=True, stream_options={"include_usage": True}
    )
    *pieces, counted = stream
    assert (pieces[0].choices[0].delta.role, pieces[0].choices[0].delta.content) == ("assistant", "")
    assert "".join(piece.choices[0].delta.content or "" for piece in pieces) == TEXT
    assert [piece.choices[0].finish_reason for piece in pieces] == [None] * (len(pieces) - 1) + ["stop"]
    assert all(piece.usage is None for piece in pieces)
    assert counted.choices == []
    assert counted.usage is not None
    assert counted.usage.total_tokens == PROMPT_TOKENS + COMPLETION_TOKENS
    assert len({piece.id for piece in [*pieces, counted]}) == 1


@pytest.mark.parametrize("prompt", ["Hi", [1, 2]])
def test_completions(client: openai.OpenAI, prompt: Any) -> None:
    answer = client.completions.create(model=MODEL, prompt=prompt, temperature=0, max_tokens=6)
    assert answer.object == "text_completion"
    assert (answer.choices[0].text, answer.choices[0].finish_reason) == ("Grüß", "length")
    assert answer.usage is not None
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (2, 6)
    stream = client.completions.create(model=MODEL, prompt=prompt, temperature=0, max_tokens=6, stream=True)
    pieces = list(stream)
    assert "".join(piece.choices[0].text for piece in pieces) == "Grüß"
    assert pieces[-1].choices[0].finish_reason == "length"


def test_stop_max_tokens_and_seed_arrive(client: openai.OpenAI, model: ToyModel) -> None:
    def ask(**options: Any) -> Any:
        return client.chat.completions.create(model=MODEL, messages=MESSAGES, **options).choices[0]

    assert ask(temperature=0, stop="☃").message.content == "Grüße "
    assert ask(temperature=0, stop=["x", "ß"]).message.content == "Grü"
    assert ask(temperature=0, max_tokens=2).finish_reason == "length"
    assert ask(temperature=0, max_tokens=9, max_completion_tokens=2).message.content == "Gr"
    model.script = []
    texts = [ask(seed=seed, max_tokens=30).message.content for seed in (1, 1, 2)]
    assert texts[0] == texts[1] != texts[2]
    assert ask(seed=1, max_tokens=30, top_p=1e-9).message.content == ask(temperature=0, max_tokens=30).message.content


def test_models(client: openai.OpenAI) -> None:
    assert [card.id for card in client.models.list()] == [MODEL]
    assert client.models.retrieve(MODEL).id == MODEL
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("other")


def test_errors_are_the_clients_own(client: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError) as unknown:
        client.chat.completions.create(model="other", messages=MESSAGES)
    assert (unknown.value.code, unknown.value.param) == ("model_not_found", "model")
    with pytest.raises(openai.BadRequestError, match="4096") as overflow:
        client.chat.completions.create(model=MODEL, messages=MESSAGES, max_tokens=5000)
    assert overflow.value.code == "context_length_exceeded"
    with pytest.raises(openai.BadRequestError, match="temperature = -1"):
        client.chat.completions.create(model=MODEL, messages=MESSAGES, temperature=-1, stream=True)


def test_a_failure_within_a_stream_reaches_the_client(client: openai.OpenAI, model: ToyModel) -> None:
    def fail_later() -> None:
        if model.step_sizes[-1] == 1:
            raise ZeroDivisionError("a secret")

    model.step_sizes.append(0)
    model.before_step = fail_later
    with pytest.raises(openai.APIError, match="failed on this request") as caught:
        list(client.chat.completions.create(model=MODEL, messages=MESSAGES, temperature=0, stream=True))
    assert "secret" not in str(caught.value)


def test_concurrent_requests_are_all_answered(client: openai.OpenAI) -> None:
    texts: list[str | None] = []

    def ask() -> None:
        answer = client.chat.completions.create(model=MODEL, messages=MESSAGES, temperature=0)
        texts.append(answer.choices[0].message.content)

    threads = [threading.Thread(target=ask) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert texts == [TEXT] * 6
