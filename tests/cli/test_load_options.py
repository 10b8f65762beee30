"""What --dtype and --quantize ask `seamount.load` for."""

from typing import Any

import pytest

from seamount.cli import loading
from seamount.cli.options import DtypeName, LoadedFormatName


@pytest.mark.parametrize(
    ("dtype", "quantize", "asked"),
    [
        (None, None, "auto"),
        (DtypeName.float32, None, None),
        (None, LoadedFormatName.none, None),
        (DtypeName.bfloat16, LoadedFormatName.gguf, "gguf"),
        (None, LoadedFormatName.int4, "int4"),
    ],
)
def test_a_format_is_chosen_only_where_nothing_was_asked_for(
    dtype: DtypeName | None, quantize: LoadedFormatName | None, asked: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[dict[str, Any]] = []
    monkeypatch.setattr(loading, "load", lambda model, **options: calls.append(options))
    loading.load_model("a", dtype, quantize)
    assert [call["quantize"] for call in calls] == [asked]
