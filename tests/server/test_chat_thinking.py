"""DeepSeek's additions to chats: thinking, and answers that go on from a prefix."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest
from toy_model import ToyModel, toy_tokenizer

from seamount.server import Service
from seamount.server.chats import Chat, prompt_of

# As V3.1 has it: the prompt opens the reasoning, or closes it before it begins.
TEMPLATE = """{%- for m in messages -%}{{ m.role }}:{{ m.content }};{%- endfor -%}
{%- if add_generation_prompt %}a:{% if thinking %}<think>{% else %}</think>{% endif %}{% endif %}"""
MESSAGES = [{"role": "user", "content": "Hi"}]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> ToyModel:
    return ToyModel(toy_tokenizer(tmp_path_factory.mktemp("toy"), template=TEMPLATE))


def ask(http: httpx.Client, **body: Any) -> dict[str, Any]:
    response = http.post("/v1/chat/completions", json={"messages": MESSAGES, "temperature": 0, **body})
    assert response.status_code == 200, response.text
    answer: dict[str, Any] = response.json()
    return answer


@pytest.mark.parametrize(
    "options",
    [
        {"thinking": {"type": "enabled"}},
        {"reasoning_effort": "high"},
        {"chat_template_kwargs": {"thinking": True}},
    ],
)
def test_reasoning_comes_apart_under_both_names(http: httpx.Client, model: ToyModel, options: dict[str, Any]) -> None:
    model.speak("Let me see.</think>\n\nYes.")
    answer = ask(http, **options)
    message = answer["choices"][0]["message"]
    assert (message["content"], message["reasoning_content"]) == ("Yes.", "Let me see.")
    assert message["reasoning"] == message["reasoning_content"]
    details = answer["usage"]["completion_tokens_details"]
    # With its closing tag, and the white space that belongs to it.
    assert len("Let me see.") <= details["reasoning_tokens"] <= len("Let me see.</think>\n\nY")
    body = {"messages": MESSAGES, "temperature": 0, "stream": True, **options}
    with http.stream("POST", "/chat/completions", json=body) as response:
        data = [json.loads(line[6:]) for line in response.iter_lines() if line.startswith("data: {")]
    deltas = [one["choices"][0]["delta"] for one in data]
    assert "".join(delta.get("reasoning_content", "") for delta in deltas) == "Let me see."
    assert "".join(delta.get("content", "") for delta in deltas) == "Yes."
    assert not [delta for delta in deltas if delta.get("content") and "reasoning_content" in delta]
    assert all(delta.get("reasoning") == delta.get("reasoning_content") for delta in deltas)


@pytest.mark.parametrize("options", [{}, {"thinking": {"type": "disabled"}}, {"reasoning_effort": "none"}])
def test_without_thinking_all_is_content(http: httpx.Client, model: ToyModel, options: dict[str, Any]) -> None:
    model.speak("Yes.")
    answer = ask(http, **options)
    message = answer["choices"][0]["message"]
    assert message["content"] == "Yes."
    assert not {"reasoning", "reasoning_content", "tool_calls"} & set(message)
    assert answer["usage"]["completion_tokens_details"]["reasoning_tokens"] == 0


def test_the_two_fields_may_not_contradict_each_other(http: httpx.Client) -> None:
    body = {"messages": MESSAGES, "thinking": {"type": "disabled"}, "reasoning_effort": "low"}
    refused = http.post("/v1/chat/completions", json=body)
    assert (refused.status_code, refused.json()["error"]["param"]) == (400, "reasoning_effort")


@pytest.mark.parametrize(
    ("chat", "end"),
    [
        ({"prefix": "It is"}, "a:</think>It is"),
        ({"prefix": "It is", "thinking": True}, "a:<think>\n</think>\n\nIt is"),
        ({"prefix": "It is", "prefix_reasoning": "Hm.", "thinking": True}, "a:<think>Hm.\n</think>\n\nIt is"),
    ],
)
def test_a_prefix_stands_where_the_answer_would(service: Service, chat: dict[str, Any], end: str) -> None:
    model = service.model(None)
    prompt = prompt_of(Chat([*MESSAGES], **chat), model)
    assert model.backend.tokenizer.decode(prompt) == f"user:Hi;{end}"


def test_an_answer_goes_on_from_a_prefix(http: httpx.Client, model: ToyModel) -> None:
    model.speak(" a fish.")
    messages = [*MESSAGES, {"role": "assistant", "content": "It is", "prefix": True}]
    assert ask(http, messages=messages)["choices"][0]["message"]["content"] == " a fish."
    for wrong in (
        [{"role": "assistant", "content": "x", "prefix": True}],
        [{"role": "assistant", "content": "x", "prefix": True}, *MESSAGES],
        [{"role": "user", "content": "x", "prefix": True}],
    ):
        refused = http.post("/v1/chat/completions", json={"messages": wrong})
        assert (refused.status_code, refused.json()["error"]["param"]) == (400, "messages")


def test_a_prefix_takes_reasoning_under_either_name(http: httpx.Client, model: ToyModel) -> None:
    def num_tokens(**reasoning: str) -> int:
        last = {"role": "assistant", "content": "It is", "prefix": True, **reasoning}
        return int(ask(http, messages=[*MESSAGES, last], max_tokens=1)["usage"]["prompt_tokens"])

    assert num_tokens(reasoning="Hm.") == num_tokens(reasoning_content="Hm.") > num_tokens()


def test_models_say_whether_they_think(http: httpx.Client) -> None:
    assert http.get("/v1/models").json()["data"][0]["seamount"]["can_think"] is True
