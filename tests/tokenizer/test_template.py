"""Templates of strangers: the dialect they are written in, and the sandbox around them."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from seamount.errors import TemplateError
from seamount.tokenizer.template import MAX_RANGE, ChatTemplate

_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=8,
)


def _render(source: str, **variables: Any) -> str:
    return ChatTemplate(source).render(variables)


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("{% if true %}\na\n{% endif %}\nb", "a\nb"),
        ("   {% set x = 1 %}\n{{ x }}", "1"),
        (
            "{% for i in range(9) %}{% if i == 2 %}{% continue %}{% endif %}"
            "{% if i == 4 %}{% break %}{% endif %}{{ i }}{% endfor %}",
            "013",
        ),
        ("{% generation %}a{{ 1 }}{% endgeneration %}b", "a1b"),
        ("{{ missing }}|{{ missing is defined }}", "|False"),
        ("{{ '<a> & é' | tojson }}", '"<a> & é"'),
        ("{{ {'b': [1], 'a': none} | tojson(indent=1) }}", '{\n "b": [\n  1\n ],\n "a": null\n}'),
        ("{{ {'b': 1, 'a': 2} | tojson(separators=(',', ':'), sort_keys=true) }}", '{"a":2,"b":1}'),
        ("{% set ns = namespace(n=0) %}{% for i in range(3) %}{% set ns.n = ns.n + i %}{% endfor %}{{ ns.n }}", "3"),
        ("{{ '-' * 3 }}{{ 7 % 4 }}{{ 2 ** 5 }}{{ '%s!' % 'a' }}{{ '{} {:>3}'.format('a', 'b') }}", "---332a!a   b"),
        ("{{ 'a\nb' | indent(2) }}{{ '%s' | format('x') }}", "a\n  bx"),
    ],
)
def test_the_dialect(source: str, expected: str) -> None:
    assert _render(source) == expected


def test_dialect_equals_transformers() -> None:
    compile_theirs = pytest.importorskip("transformers.utils.chat_template_utils")._compile_jinja_template
    source = "  {% for m in messages %}\n  {{ m.role | upper }}: {{ m | tojson }}\n  {% endfor %}\n"
    source += "{{ tools | tojson(indent=2) }}"
    variables = {"messages": [{"role": "u", "content": "<é>\n"}] * 2, "tools": [{"a": {"b": [1, None]}}]}
    assert _render(source, **variables) == compile_theirs(source).render(**variables)


@given(_JSON)
def test_tojson_is_json(value: Any) -> None:
    assert json.loads(_render("{{ value | tojson }}", value=value)) == value


def test_today() -> None:
    assert re.fullmatch(r"\d{4}-\d\d", _render("{{ strftime_now('%Y-%m') }}"))


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("{{ raise_exception('roles must alternate') }}", "roles must alternate"),
        ("a\n{% if %}", "line 2"),
        ("{{ 1 / 0 }}", "division by zero"),
        ("{{ 1 + 'a' }}", "unsupported operand"),
        ("{{ missing.attribute }}", "missing"),
        ("{% for a in range(100001) %}{% endfor %}", str(MAX_RANGE)),
        ("{% for a in range(400) %}{% for b in range(400) %}{% endfor %}{% endfor %}", str(MAX_RANGE)),
        ("{% for a in range(40) %}{{ text }}{% endfor %}", "wrote more than"),
        ("{{ 'a' * 99999999 }}", "may make at most"),
        ("{{ 99999999 * [1] }}", "may make at most"),
        ("{{ 9 ** 99999 }}", "operands so large"),
        ("{{ '%099999d' % 1 }}", "may not pad"),
        ("{{ '%099999d' | format(1) }}", "may not pad"),
        ("{{ '{:099999}'.format(1) }}", "may not pad"),
        ("{{ '{:{}}'.format(1, 99999) }}", "may not pad"),
        ("{{ 'a' | center(99999) }}", "may not pad"),
        ("{{ 'a'.ljust(99999) }}", "unsafe"),
        ("{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}", "recursion"),
        ("{{ messages.append(1) }}", "unsafe"),
        ("{{ ''.__class__.__mro__ }}", "unsafe"),
        ("{{ raise_exception.__globals__.keys() }}", "unsafe"),
        ("{{ cycler.__init__.__globals__ }}", "unsafe"),
        ("{% include 'x' %}", "loader"),
    ],
)
def test_the_sandbox(source: str, message: str) -> None:
    with pytest.raises(TemplateError, match=message):
        _render(source, messages=[], text="x" * 2**20)
