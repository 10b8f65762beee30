"""Reasoning and tool calls in Anthropic's form."""

from __future__ import annotations

import re
import time
from functools import partial
from typing import Any

import anthropic
import httpx
import pytest
from test_anthropic_client import sent_events
from toy_model import ToyModel, toy_tokenizer

from seamount.server import Service

# Calls and reasoning in the tags of Qwen and Hermes.
TEMPLATE = """{%- for t in tools or [] %}{{ t.function.name }};{% endfor %}
{%- for m in messages -%}
{{ m.role }}{% if m.tool_call_id %}#{{ m.tool_call_id }}{% endif %}:
{%- if m.reasoning_content %}<think>{{ m.reasoning_content }}</think>{% endif %}
{{- m.content or '' }}
{%- for c in m.tool_calls or [] -%}
<tool_call>{"name": "{{ c.function.name }}", "arguments": {{ c.function.arguments | tojson }}}</tool_call>
{%- endfor %};
{%- endfor -%}
{%- if add_generation_prompt %}a:{% if enable_thinking is false %}<think></think>{% endif %}{% endif %}"""
TOOLS: Any = [{"name": name, "input_schema": {"type": "object"}} for name in ("read", "list")]
ASK: dict[str, Any] = {"model": "org/toy", "max_tokens": 200, "messages": [{"role": "user", "content": "Hi"}]}


def call(name: str, arguments: str) -> str:
    """As the model writes it."""
    return f'<tool_call>{{"name": "{name}", "arguments": {arguments}}}</tool_call>'


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> ToyModel:
    return ToyModel(toy_tokenizer(tmp_path_factory.mktemp("toy"), template=TEMPLATE))


def asked(service: Service, http: httpx.Client, body: dict[str, Any]) -> str:
    """The prompt that a body becomes."""
    prompts = []
    backend = service.models["org/toy"].backend
    submit = backend.submit
    backend.submit = lambda tokens, params: (prompts.append(tokens[0]), submit(tokens, params))[1]  # type: ignore
    try:
        response = http.post("/v1/messages", json={**ASK, "max_tokens": 1, **body})
        assert response.status_code == 200, response.text
    finally:
        backend.submit = submit  # type: ignore[method-assign]
    return backend.tokenizer.decode(prompts[0])


def test_an_answer_with_reasoning_and_calls(claude: anthropic.Anthropic, model: ToyModel) -> None:
    model.speak("<think>Well.</think>Now:" + call("read", '{"path": "a\\"b", "n": [1]}') + call("list", "{}"))
    answer = claude.messages.create(**ASK, tools=TOOLS, thinking={"type": "enabled", "budget_tokens": 1024})
    thinking, text, *calls = answer.content
    assert (thinking.type, text.type) == ("thinking", "text")
    assert (thinking.thinking, text.text) == ("Well.", "Now:")
    assert thinking.signature
    assert [(call.name, call.input) for call in calls] == [("read", {"path": 'a"b', "n": [1]}), ("list", {})]
    assert len({call.id for call in calls}) == 2
    assert answer.stop_reason == "tool_use"
    assert answer.usage.output_tokens_details is not None
    assert len("Well.") <= answer.usage.output_tokens_details.thinking_tokens <= len("<think>Well.</think>")


@pytest.mark.parametrize("is_eager", [False, True])
@pytest.mark.parametrize(
    "said",
    [
        "",
        "only text",
        "<think>only reasoning",
        call("read", '{"path": "Grüße ☃", "deep": {"a": [1, 2.5, null]}}') + "and more" + call("list", "{}"),
    ],
)
def test_a_stream_builds_what_a_whole_answer_is(
    claude: anthropic.Anthropic, model: ToyModel, said: str, is_eager: bool
) -> None:
    model.speak(said)
    ask: Any = {**ASK, "tools": [{**tool, "eager_input_streaming": is_eager} for tool in TOOLS]}
    answer = claude.messages.create(**ask)
    with claude.messages.stream(**ask) as stream:
        built = stream.get_final_message()

    def plain(message: Any) -> Any:
        ids = {"__all__": {"id", "parsed_output"}}
        return message.model_dump(exclude={"id": True, "usage": True, "content": ids})

    assert plain(built) == plain(answer)
    assert built.usage.output_tokens == answer.usage.output_tokens


@pytest.mark.parametrize(
    "arguments",
    ["{path: 1}", '{"a": "b\nc"}', '{"a": NaN}', '{"a": 1e999}', '{"a": "\\ud800"}', '{"a": }'],
)
def test_arguments_that_are_no_json_reach_the_client_as_a_text(
    claude: anthropic.Anthropic, model: ToyModel, arguments: str
) -> None:
    model.speak(call("read", arguments))
    expected = {"INVALID_JSON": arguments}
    assert claude.messages.create(**ASK, tools=TOOLS).content[0].input == expected  # type: ignore[union-attr]
    with claude.messages.stream(**ASK, tools=TOOLS) as stream:
        assert stream.get_final_message().content[0].input == expected  # type: ignore[union-attr]


def test_what_is_cut_off_within_a_call_is_no_call_to_run(claude: anthropic.Anthropic, model: ToyModel) -> None:
    model.speak(call("read", '{"path": "abc"}'))
    cut = claude.messages.create(**{**ASK, "max_tokens": len(call("read", "")) - 6}, tools=TOOLS)
    assert (cut.stop_reason, cut.content[0].input) == ("max_tokens", {"INVALID_JSON": '{"path"'})  # type: ignore
    cut = claude.messages.create(**ASK, tools=TOOLS, stop_sequences=["bc"])
    assert (cut.stop_reason, cut.stop_sequence) == ("stop_sequence", "bc")


@pytest.mark.parametrize("is_eager", [False, True])
def test_the_events_of_blocks(http: httpx.Client, model: ToyModel, is_eager: bool) -> None:
    model.speak("<think>Hm</think>" + call("read", '{"a": 1}'))
    model.before_step = lambda: time.sleep(0.05)  # tokens that come faster are put together
    tools = [{**TOOLS[0], "eager_input_streaming": is_eager}]
    events = sent_events(http.post("/v1/messages", json={**ASK, "tools": tools, "stream": True}).text)
    blocks = [data for name, data in events if name.startswith("content_block")]
    kinds = re.sub(r"(\S+ )\1+", r"\1", "".join(f"{one['type']}/{one['index']} " for one in blocks)).split()
    assert kinds == [
        *("content_block_start/0", "content_block_delta/0", "content_block_stop/0"),
        *("content_block_start/1", "content_block_delta/1", "content_block_stop/1"),
    ]
    starts = [one["content_block"] for one in blocks if one["type"] == "content_block_start"]
    assert starts[0] == {"type": "thinking", "thinking": "", "signature": ""}
    direct = {"type": "direct"}
    assert {**starts[1], "id": ""} == {"type": "tool_use", "id": "", "name": "read", "input": {}, "caller": direct}
    deltas = [one["delta"] for one in blocks if one["type"] == "content_block_delta"]
    assert [one["type"] for one in deltas[:3]] == ["thinking_delta", "thinking_delta", "signature_delta"]
    inputs = [one["partial_json"] for one in deltas[3:]]
    assert "".join(inputs) == '{"a": 1}'
    assert (len(inputs) > 1) == is_eager


def test_reasoning_is_counted_however_its_tokens_arrive(claude: anthropic.Anthropic, model: ToyModel) -> None:
    """Tokens that wait together are read at once, and each letter of the mark is a token of its own here."""
    model.speak("<think>Hm</think>" + "Yes. " * 10)
    for seconds in (0.0, 0.02):
        model.before_step = partial(time.sleep, seconds)
        usage = claude.messages.create(**ASK).usage
        assert usage.output_tokens_details is not None
        assert usage.output_tokens_details.thinking_tokens == len("Hm</think>")


def test_reasoning_may_be_kept_from_view(claude: anthropic.Anthropic, model: ToyModel) -> None:
    model.speak("<think>Secret</think>Yes.")
    thinking: Any = {"type": "adaptive", "display": "omitted"}
    content = [block.to_dict() for block in claude.messages.create(**ASK, thinking=thinking).content]
    with claude.messages.stream(**ASK, thinking=thinking) as stream:
        assert [block.to_dict() for block in stream.get_final_message().content] == content
    assert content == [
        {"type": "thinking", "thinking": "", "signature": content[0]["signature"]},
        {"type": "text", "text": "Yes.", "citations": None},
    ]


def test_a_stream_is_never_silent_for_long(
    claude: anthropic.Anthropic, http: httpx.Client, model: ToyModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("exchange", "anthropic.messages"):
        monkeypatch.setattr(f"seamount.server.{module}.KEEP_ALIVE_SECONDS", -1)
    model.speak(call("read", '{"path": "abc"}'))
    model.before_step = lambda: time.sleep(0.05 if model.step_sizes[-1:] == [1] else 1.5)
    model.step_sizes.append(0)
    ask: Any = {**ASK, "tools": TOOLS}
    names = [name for name, _ in sent_events(http.post("/v1/messages", json={**ask, "stream": True}).text)]
    assert names[0] == "ping"
    assert "ping" in names[names.index("content_block_start") : names.index("content_block_stop")]
    model.step_sizes.append(0)
    with claude.messages.stream(**ask) as stream:
        assert stream.get_final_message().content[0].input == {"path": "abc"}  # type: ignore[union-attr]


def test_messages_become_turns_of_the_template(service: Service, http: httpx.Client) -> None:
    use = {"type": "tool_use", "id": "c1", "name": "read", "input": {"path": "ä"}}
    result = {"type": "tool_result", "tool_use_id": "c1", "content": [{"type": "text", "text": "ENOENT"}]}
    messages = [
        {"role": "user", "content": "one"},
        {"role": "user", "content": [{"type": "text", "text": "two", "cache_control": {"type": "ephemeral"}}]},
        {
            "role": "assistant",
            "content": [
                {"type": "thinking", "thinking": "hm", "signature": "of another"},
                {"type": "redacted_thinking", "data": "x"},
                {"type": "text", "text": "A"},
                use,
                {"type": "text", "text": "B"},
            ],
        },
        {"role": "user", "content": [{**result, "is_error": True}, {"type": "text", "text": "so?"}]},
        {"role": "system", "content": "be kind"},
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "c2"}]},
    ]
    system = [
        {"type": "text", "text": "x-anthropic-billing-header: cch=abc12;"},
        {"type": "text", "text": "S1"},
        {"type": "text", "text": "S2"},
    ]
    prompt = asked(service, http, {"messages": messages, "system": system, "tools": TOOLS})
    assert prompt == (
        "read;list;system:S1\n\nS2;user:one\n\ntwo;"
        "assistant:<think>hm</think>AB" + call("read", '{"path": "ä"}') + ";"
        "tool#c1:Error: ENOENT;user:so?;system:be kind;tool#c2:;a:"
    )


def test_an_answer_that_comes_last_is_gone_on_from(service: Service, http: httpx.Client) -> None:
    user = {"role": "user", "content": "u"}
    thinking = {"type": "thinking", "thinking": "hm", "signature": ""}
    for content, tail in [
        ("Once", "Once"),
        ([thinking, {"type": "text", "text": "A"}], "<think>\nhm\n</think>\n\nA"),
        ("", ""),
    ]:
        messages = [user, {"role": "assistant", "content": content}]
        assert asked(service, http, {"messages": messages}) == f"user:u;a:{tail}"
    use = {"type": "tool_use", "id": "c1", "name": "read", "input": {}}
    messages = [user, {"role": "assistant", "content": [use]}]
    assert http.post("/v1/messages", json={**ASK, "messages": messages}).status_code == 400


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, (None, None)),
        ({"thinking": {"type": "enabled", "budget_tokens": 2000}}, (True, None)),
        ({"thinking": {"type": "adaptive"}, "output_config": {"effort": "max"}}, (True, "max")),
        ({"thinking": {"type": "disabled"}, "output_config": {"effort": "max"}}, (False, None)),
        ({"output_config": {"effort": "low"}}, (None, "low")),
    ],
)
def test_thinking_is_asked_of_the_model(
    service: Service,
    http: httpx.Client,
    options: dict[str, Any],
    expected: tuple[bool | None, str | None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    form = service.models["org/toy"].format
    variables, wanted = form.thinking_variables, []
    monkeypatch.setattr(form, "thinking_variables", lambda *asked: (wanted.append(asked), variables(*asked))[1])
    prompt = asked(service, http, options)
    assert wanted == [expected]
    assert prompt.endswith("<think></think>") == (expected[0] is False)


@pytest.mark.parametrize(
    ("choice", "expected"),
    [
        (None, (None, True)),
        ({"type": "auto", "disable_parallel_tool_use": True}, ("auto", False)),
        ({"type": "any"}, ("required", True)),
        ({"type": "tool", "name": "list"}, ({"type": "function", "function": {"name": "list"}}, True)),
    ],
)
def test_tools_and_forms_reach_the_grammar(
    service: Service, http: httpx.Client, choice: Any, expected: tuple[Any, bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    form = service.models["org/toy"].format
    grammar, wanted = form.grammar, {}
    monkeypatch.setattr(form, "grammar", lambda **asked: (wanted.update(asked), grammar(**asked))[1])
    tool = {**TOOLS[1], "description": "d", "strict": True, "type": "custom"}
    schema = {"type": "object", "properties": {"a": {"type": "integer"}}}
    output = {"format": {"type": "json_schema", "schema": schema}}
    asked(service, http, {"tools": [tool], "tool_choice": choice, "output_config": output})
    assert (wanted["tool_choice"], wanted["parallel"]) == expected
    function = {"name": "list", "description": "d", "parameters": {"type": "object"}, "strict": True}
    assert wanted["tools"] == [{"type": "function", "function": function}]
    assert wanted["response_format"] == {"type": "json_schema", "json_schema": {"schema": schema}}


def test_a_forced_tool_is_called_and_a_forbidden_one_is_not(claude: anthropic.Anthropic, model: ToyModel) -> None:
    tool: Any = {"name": "set", "input_schema": {"type": "object", "properties": {"on": {"type": "boolean"}}}}
    tool["input_schema"] |= {"required": ["on"], "additionalProperties": False}
    tool["strict"] = True
    model.speak("no")
    answer = claude.messages.create(
        **ASK, tools=[tool], tool_choice={"type": "tool", "name": "set"}, thinking={"type": "disabled"}
    )
    assert answer.stop_reason == "tool_use"
    assert answer.content[-1].input in ({"on": True}, {"on": False})  # type: ignore[union-attr]
    model.speak(call("set", "{}"))
    answer = claude.messages.create(**ASK, tools=[tool], tool_choice={"type": "none"})
    assert [block.type for block in answer.content] == ["text"]
