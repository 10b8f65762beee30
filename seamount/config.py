"""Typed configs: validated when read, with errors that name the field, its value and what is allowed."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, ValidationError

from seamount.errors import ConfigError, ModelNotFound, UnsupportedField

# Pydantic's names for "this field or this value exists elsewhere, but not here".
_UNSUPPORTED = {"extra_forbidden", "literal_error", "union_tag_invalid"}


class Config(BaseModel):
    """The base of every config: frozen, and a field it does not know is an error rather than silence."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, protected_namespaces=())

    @classmethod
    def parse(cls, values: Mapping[str, Any], *, source: str) -> Self:
        """The config that `values` describe.

        Errors: UnsupportedField for a field or value that is not implemented, ConfigError for one that is malformed;
        both list every fault, and `source` says where the values come from.
        """
        try:
            return cls.model_validate(dict(values))
        except ValidationError as error:
            faults = error.errors(include_url=False, include_context=False)
            kind = UnsupportedField if any(fault["type"] in _UNSUPPORTED for fault in faults) else ConfigError
            lines = "\n".join(f"  {_describe(fault)}" for fault in faults)
            raise kind(f"{source} cannot be used as {cls.__name__}:\n{lines}") from None


def _describe(fault: Mapping[str, Any]) -> str:
    field = ".".join(str(part) for part in fault["loc"]) or "(whole config)"
    shown = repr(fault.get("input"))
    shown = shown if len(shown) <= 80 else shown[:77] + "..."
    if fault["type"] == "missing":
        return f"{field}: required, and missing"
    if fault["type"] == "extra_forbidden":
        return f"{field} = {shown}: not known here, and it may change the result; remove it if it does not"
    return f"{field} = {shown}: {fault['msg']}"


def read_json_object(path: Path) -> dict[str, Any]:
    """The JSON object in a file.

    Errors: ModelNotFound if there is no such file, ConfigError if it is not a JSON object.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ModelNotFound(f"{path} does not exist") from None
    except (UnicodeDecodeError, OSError) as error:
        raise ConfigError(f"{path} cannot be read as text: {error}") from None
    try:
        values = json.loads(text)
    except (json.JSONDecodeError, RecursionError) as error:
        raise ConfigError(f"{path} is not JSON: {error}") from None
    if not isinstance(values, dict):
        raise ConfigError(f"{path} holds a JSON {type(values).__name__}, but an object is needed")
    return values


def write_json(path: Path, values: Mapping[str, Any]) -> None:
    """Write a JSON object, readable and with its keys in the order given."""
    path.write_text(json.dumps(values, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
