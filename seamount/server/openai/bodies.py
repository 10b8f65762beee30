"""What clients may send, in OpenAI's and DeepSeek's words."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field

from seamount.engine import SamplingParams
from seamount.server.bodies import Part, RefusedField, Sampling, require_small_schema
from seamount.server.limits import MAX_MESSAGES, MAX_PROMPTS, MAX_TOOLS

# Fields of the one path on the other would go unheard, too.
_CHAT_REFUSES: dict[str, tuple[Any, ...]] = {
    "audio": (),
    "echo": (False,),
    "function_call": ("none", "auto"),
    "functions": ([],),
    "modalities": (["text"],),
    "prediction": (),
    "prompt": (),
    "suffix": ("",),
    "web_search_options": (),
}
_COMPLETION_REFUSES: dict[str, tuple[Any, ...]] = {
    "best_of": (1,),
    "messages": (),
    "reasoning_effort": ("none",),
    "response_format": ({"type": "text"},),
    "tool_choice": ("none", "auto"),
    "tools": ([],),
    "top_logprobs": (0,),
}


class StreamOptions(Part):
    """What a stream tells besides the answer."""

    include_usage: bool = False
    """Whether the last event counts the tokens."""


class OpenAIBody(Sampling):
    """What both kinds of requests have."""

    model: str | None = None
    """One of /v1/models; may be left out where only one is served."""
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    max_tokens: Annotated[int, Field(ge=0)] | None = None

    @property
    def includes_usage(self) -> bool:
        """Whether a stream ends with the token counts."""
        return self.stream_options is not None and self.stream_options.include_usage


class TextPart(Part):
    """A part of a message's content; only text is implemented."""

    type: str
    text: str | None = None


class FunctionCall(Part):
    """What a tool was called with."""

    name: str
    arguments: str


class ToolCall(Part):
    """A call that an earlier answer made."""

    id: str | None = None
    type: Literal["function"] = "function"
    function: FunctionCall


class Message(Part):
    """One message of a chat. Fields beyond these reach the chat template as they are."""

    model_config = ConfigDict(extra="allow")

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: str | list[TextPart] | None = None
    reasoning_content: str | None = None
    """The reasoning of an earlier answer; `reasoning` is taken too."""
    tool_calls: list[ToolCall] | None = None
    tool_call_id: str | None = None
    prefix: bool | None = None
    """In a last message of the assistant's: the answer goes on from its content."""

    @property
    def text(self) -> str:
        """The content as one text.

        Errors: RefusedField for parts that are not text.
        """
        if isinstance(self.content, list):
            for part in self.content:
                if part.type != "text" or part.text is None:
                    raise RefusedField(f"messages.content: a part of type {part.type!r}; allowed is 'text'", "messages")
            return "".join(part.text or "" for part in self.content)
        return self.content or ""

    def for_template(self) -> dict[str, Any]:
        """The message as chat templates expect it.

        Errors: RefusedField.
        """
        others = {name: value for name, value in (self.model_extra or {}).items() if value is not None}
        reasoning = self.reasoning_content or others.pop("reasoning", None)
        calls = [call.model_dump(exclude_none=True) for call in self.tool_calls or ()]
        message: dict[str, Any] = {
            **others,
            # OpenAI's newer name for the same role, which templates of open models do not know.
            "role": "system" if self.role == "developer" else self.role,
            "content": self.text,
            "reasoning_content": reasoning,
            "tool_call_id": self.tool_call_id,
            "tool_calls": calls or None,
        }
        return {name: value for name, value in message.items() if value is not None}


class Function(Part):
    """A function that the model may call."""

    name: Annotated[str, Field(min_length=1, max_length=128, pattern=r"^[a-zA-Z0-9_.-]+$")]
    description: str | None = None
    parameters: dict[str, Any] | None = None
    """A JSON schema."""
    strict: bool | None = None
    """Whether calls are held to the schema."""


class Tool(Part):
    """A tool; functions are the only kind."""

    type: Literal["function"]
    function: Function


class FunctionName(Part):
    """Which function."""

    name: str


class NamedTool(Part):
    """The one tool that must be called."""

    type: Literal["function"] = "function"
    function: FunctionName


class JsonSchema(Part):
    """A schema for the answer."""

    model_config = ConfigDict(populate_by_name=True)

    name: str | None = None
    json_schema: Annotated[dict[str, Any], Field(alias="schema")]
    strict: bool | None = None


class ResponseFormat(Part):
    """What the answer must be."""

    type: Literal["text", "json_object", "json_schema"]
    json_schema: JsonSchema | None = None


class Thinking(Part):
    """Whether the model reasons before it answers."""

    type: Literal["enabled", "disabled"]


class ChatBody(OpenAIBody):
    """A request for the next message of a chat."""

    messages: Annotated[list[Message], Field(min_length=1, max_length=MAX_MESSAGES)]
    max_completion_tokens: Annotated[int, Field(ge=1)] | None = None
    """The newer name of max_tokens; it wins over it."""
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=20)] | None = None
    tools: Annotated[list[Tool], Field(max_length=MAX_TOOLS)] | None = None
    tool_choice: Literal["none", "auto", "required"] | NamedTool | None = None
    parallel_tool_calls: bool | None = None
    response_format: ResponseFormat | None = None
    thinking: Thinking | None = None
    reasoning_effort: Literal["none", "minimal", "low", "medium", "high", "xhigh", "max", "ultra"] | None = None
    """`none` turns thinking off, the others turn it on; a model whose template knows levels gets the level."""
    chat_template_kwargs: dict[str, Any] | None = None
    """Further variables of the chat template."""

    @classmethod
    def neutral_values(cls) -> dict[str, tuple[Any, ...]]:
        """See Body."""
        return _CHAT_REFUSES

    def check(self) -> None:
        """Errors: RefusedField for fields that do not go together, and for schemas that are too large."""
        for index, tool in enumerate(self.tools or ()):
            require_small_schema(tool.function.parameters, f"tools.{index}.function.parameters")
        names = [tool.function.name for tool in self.tools or ()]
        if len(set(names)) < len(names):
            raise RefusedField("tools: two functions of one name; give each its own", "tools")
        if isinstance(self.tool_choice, NamedTool) and self.tool_choice.function.name not in names:
            raise RefusedField(
                f"tool_choice = {self.tool_choice.function.name[:80]!r} is none of the tools; allowed are {names}",
                "tool_choice",
            )
        if self.tool_choice == "required" and not names:
            raise RefusedField("tool_choice = 'required', and there are no tools", "tool_choice")
        if self.top_logprobs and not self.logprobs:
            raise RefusedField("top_logprobs needs logprobs = true", "top_logprobs")
        if self.response_format is not None and self.response_format.type == "json_schema":
            if self.response_format.json_schema is None:
                raise RefusedField("response_format.json_schema is missing", "response_format")
            require_small_schema(self.response_format.json_schema.json_schema, "response_format.json_schema.schema")
        if any(message.prefix for message in self.messages[:-1]):
            raise RefusedField("messages: prefix is for the last message alone", "messages")
        if self.messages[-1].prefix and self.messages[-1].role != "assistant":
            raise RefusedField("messages: prefix is for a message of the assistant's", "messages")

    def params(self, **more: Any) -> SamplingParams:
        """How the answer is to be drawn."""
        most = self.max_tokens if self.max_completion_tokens is None else self.max_completion_tokens
        logprobs = (self.top_logprobs or 0) if self.logprobs else None
        return SamplingParams(max_tokens=most, logprobs=logprobs, **self.drawing(), **more)


class CompletionBody(OpenAIBody):
    """A request to continue texts."""

    prompt: (
        str
        | Annotated[list[str], Field(min_length=1, max_length=MAX_PROMPTS)]
        | Annotated[list[int], Field(min_length=1)]
        | Annotated[list[list[int]], Field(min_length=1, max_length=MAX_PROMPTS)]
    )
    """A text, tokens, or several of one kind."""
    suffix: str | None = None
    """What comes after the gap that is to be filled."""
    echo: bool | None = None
    """Whether the prompt is part of the answer."""
    logprobs: Annotated[int, Field(ge=0, le=20)] | None = None
    """How many of the likeliest tokens are told for each place."""

    @classmethod
    def neutral_values(cls) -> dict[str, tuple[Any, ...]]:
        """See Body."""
        return _COMPLETION_REFUSES

    @property
    def prompts(self) -> list[str] | list[list[int]]:
        """One or several."""
        if isinstance(self.prompt, str):
            return [self.prompt]
        if isinstance(self.prompt[0], int):
            return [self.prompt]
        return self.prompt

    @property
    def wants_prompt_alone(self) -> bool:
        """Whether nothing is to follow the prompt, which is to be scored."""
        return self.max_tokens == 0 and bool(self.echo)

    def params(self) -> SamplingParams:
        """How the answers are to be drawn: 16 tokens unless told otherwise, as OpenAI has it for this path."""
        most = 16 if self.max_tokens is None else self.max_tokens
        scored = self.logprobs if self.echo else None
        # The engine draws one token at least.
        most = 1 if self.wants_prompt_alone else most
        return SamplingParams(max_tokens=most, logprobs=self.logprobs, prompt_logprobs=scored, **self.drawing())
