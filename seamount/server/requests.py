"""What clients may send, in OpenAI's words."""

from __future__ import annotations

from typing import Annotated, Any, Self

from pydantic import BaseModel, ConfigDict, Field, StrictInt, StrictStr, ValidationError

from seamount.engine import SamplingParams
from seamount.errors import RequestError

# Options that would change the answer and are not implemented, with the values that ask for nothing.
_NEUTRAL_VALUES: dict[str, tuple[Any, ...]] = {
    "audio": (),
    "best_of": (1,),
    "echo": (False,),
    "frequency_penalty": (0,),
    "function_call": ("none", "auto"),
    "functions": ([],),
    "ignore_eos": (False,),
    "logit_bias": ({},),
    "logprobs": (False,),
    "min_p": (0,),
    "min_tokens": (0,),
    "modalities": (["text"],),
    "n": (1,),
    "presence_penalty": (0,),
    "reasoning_effort": (),
    "repetition_penalty": (1,),
    "response_format": ({"type": "text"},),
    "stop_token_ids": ([],),
    "suffix": ("",),
    "tool_choice": ("none", "auto"),
    "tools": ([],),
    "top_k": (-1, 0),
    "top_logprobs": (0,),
    "web_search_options": (),
}


class RefusedField(RequestError):
    """A request's field is malformed or not implemented; `field` names it."""

    def __init__(self, message: str, field: str | None = None) -> None:
        super().__init__(message)
        self.field = field


class StreamOptions(BaseModel):
    """What a stream tells besides the answer."""

    include_usage: bool = False


class _Body(BaseModel):
    # Other fields are kept to be compared with the table above, and ignored if they are not in it.
    model_config = ConfigDict(extra="allow", allow_inf_nan=False, protected_namespaces=())

    model: str | None = None
    """None: the one that is served."""
    stream: bool = False
    stream_options: StreamOptions | None = None
    temperature: float | None = None
    top_p: float | None = None
    seed: int | None = None
    stop: str | list[str] | None = None

    @classmethod
    def parse(cls, body: bytes) -> Self:
        """The request in a body of JSON.

        Errors: RefusedField for the first field that is malformed or not implemented.
        """
        try:
            request = cls.model_validate_json(body)
        except ValidationError as error:
            fault = error.errors(include_url=False, include_context=False, include_input=False)[0]
            field = ".".join(str(part) for part in fault["loc"]) or None
            raise RefusedField(f"{field or 'request body'}: {fault['msg']}", field) from None
        for name, value in (request.model_extra or {}).items():
            neutral = _NEUTRAL_VALUES.get(name)
            # Beside equality the kind: Python takes 0 for False, but logprobs = 0 asks for something.
            is_neutral = value is None or any(
                value == one and isinstance(value, bool) == isinstance(one, bool) for one in neutral or ()
            )
            if neutral is not None and not is_neutral:
                allowed = " or ".join([*map(repr, neutral), "leaving it out"])
                raise RefusedField(f"{name} = {repr(value)[:80]} is not implemented; allowed is {allowed}", name)
        return request

    @property
    def includes_usage(self) -> bool:
        """Whether a stream ends with the token counts."""
        return self.stream_options is not None and self.stream_options.include_usage

    def sampling(self, max_tokens: int | None) -> SamplingParams:
        """How the answer is to be drawn.

        Errors: RequestError for values out of range.
        """
        stop = [self.stop] if isinstance(self.stop, str) else self.stop or []
        return SamplingParams(
            max_tokens=max_tokens,
            temperature=1.0 if self.temperature is None else self.temperature,
            top_p=1.0 if self.top_p is None else self.top_p,
            seed=self.seed,
            # Clients send "" for no stop string.
            stop=tuple(text for text in stop if text),
        )


class TextPart(BaseModel):
    """A part of a message's content."""

    type: StrictStr
    text: StrictStr | None = None


class Message(BaseModel):
    """One message of a chat; fields beyond these reach the template as they are."""

    model_config = ConfigDict(extra="allow")

    role: StrictStr
    content: StrictStr | list[TextPart] | None = None

    def for_template(self) -> dict[str, Any]:
        """The message with its content as one text, as chat templates expect it.

        Errors: RefusedField for parts that are not text.
        """
        content = self.content or ""
        if not isinstance(content, str):
            for part in content:
                if part.type != "text" or part.text is None:
                    raise RefusedField(f"messages.content: a part of type {part.type!r}; allowed is 'text'", "messages")
            content = "".join(part.text or "" for part in content)
        # OpenAI's newer name for the same role, which templates of open models do not know.
        role = "system" if self.role == "developer" else self.role
        others = {name: value for name, value in (self.model_extra or {}).items() if value is not None}
        return {**others, "role": role, "content": content}


class ChatBody(_Body):
    """A request for the next message of a chat."""

    messages: Annotated[list[Message], Field(min_length=1)]
    max_tokens: int | None = None
    max_completion_tokens: int | None = None
    """The newer name; it wins over max_tokens."""

    def params(self) -> SamplingParams:
        """How the answer is to be drawn."""
        return self.sampling(self.max_tokens if self.max_completion_tokens is None else self.max_completion_tokens)


class CompletionBody(_Body):
    """A request to continue a text."""

    prompt: StrictStr | list[StrictInt]
    max_tokens: int | None = None
    """None: 16, as OpenAI has it for this path."""

    def params(self) -> SamplingParams:
        """How the answer is to be drawn."""
        return self.sampling(16 if self.max_tokens is None else self.max_tokens)
