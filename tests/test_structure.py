"""The shape of the source tree: who imports whom, how long things are, and what must not appear.

Everything is read from the source with ast, nothing is imported, so that a test here fails before the fault can hide.
"""

import ast
import io
import tokenize
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from statistics import median

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = "seamount"

# A unit is a file or directory below seamount/. It imports units of lower layers, and of its own layer itself alone.
# The base is one unit in three files. `top` is what a user types: `import seamount` and `python -m seamount`.
LAYERS = {
    "base": 0,
    "kernels": 1,
    "tokenizer": 1,
    "checkpoint": 1,
    "models": 2,
    "engine": 3,
    "benchmark": 5,
    "evaluate": 5,
    "server": 7,
    "cli": 8,
    "top": 9,
}
UNIT_OF_FILE = {"errors": "base", "config": "base", "device": "base", "__init__": "top", "__main__": "top"}

# Lines of code, without blanks, comments and docstrings. Raising a number needs a reason in the commit that does it.
BUDGET = {
    "base": 130,
    "kernels": 6080,
    "tokenizer": 1180,
    "checkpoint": 1140,
    "models": 2400,
    "engine": 2270,
    "benchmark": 400,
    "evaluate": 120,
    "server": 3990,
    "cli": 1240,
    "top": 30,
}
MAX_FILE_LINES, MAX_FUNCTION_LINES, MAX_MEDIAN_LINES = 500, 80, 150

# Modules that run code from the files they read, or that are an oracle of the tests and no part of the package.
FORBIDDEN_IMPORTS = {"pickle", "cloudpickle", "dill", "joblib", "marshal", "shelve", "transformers"}
ENVIRONMENT = {"environ", "environb", "getenv", "getenvb", "putenv", "unsetenv"}


def module_files(root: Path) -> dict[str, Path]:
    """Every module below `root`, by its dotted name; a package is named without its __init__."""
    files = {}
    for path in sorted(root.rglob("*.py")):
        parts = (PACKAGE, *path.relative_to(root).with_suffix("").parts)
        files[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return files


def imports(tree: ast.AST, module: str, is_package: bool, modules: set[str]) -> Iterator[str]:
    """The package's own modules that a module imports, at whatever depth of the code and for whatever purpose."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = module.split(".")
            base = base[: len(base) - node.level + is_package] if node.level else []
            source = ".".join([*base, *([node.module] if node.module else [])])
            names = [f"{source}.{alias.name}" for alias in node.names]
            names = [name if name in modules else source for name in names]
        elif isinstance(node, ast.Call) and called(node) == "import_module":
            names = names_at_run_time(node, tree)
        else:
            continue
        for name in names:
            if name.split(".")[0] == PACKAGE:
                yield name


def called(node: ast.Call) -> str:
    """The last part of the called name."""
    return getattr(node.func, "attr", getattr(node.func, "id", ""))


def names_at_run_time(node: ast.Call, tree: ast.AST) -> list[str]:
    """What import_module may import: its text, an f-string's beginning, or else any module that the source spells."""
    name = node.args[0]
    if len(node.args) + len(node.keywords) > 1:
        return [PACKAGE]  # relative to a package that is not in sight, so to be taken for the worst
    if isinstance(name, ast.JoinedStr) and name.values and is_text(name.values[0]):
        name = name.values[0]
    if isinstance(name, ast.Constant):
        return [str(name.value).rstrip(".")]
    texts = [str(text.value) for text in ast.walk(tree) if isinstance(text, ast.Constant) and is_text(text)]
    return [text.rstrip(".") for text in texts if text.split(".")[0] == PACKAGE and " " not in text]


def unit(module: str) -> str:
    """The unit that a module belongs to."""
    first = module.split(".")[1] if "." in module else "__init__"
    return UNIT_OF_FILE.get(first, first)


def upward(graph: dict[str, set[str]]) -> list[str]:
    """The imports that the layers do not allow."""
    return [
        f"{module} ({unit(module)}) imports {target} ({unit(target)})"
        for module, targets in graph.items()
        for target in sorted(targets)
        if unit(module) != unit(target) and LAYERS[unit(target)] >= LAYERS[unit(module)]
    ]


def cycle(graph: dict[str, set[str]]) -> list[str]:
    """The modules of one import cycle, or nothing."""
    try:
        tuple(TopologicalSorter(graph).static_order())
    except CycleError as error:
        return list(error.args[1])
    return []


def code_lines(source: str) -> int:
    """Lines that hold code: no blank, no comment, no docstring."""
    lines: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type not in {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT}:
            lines.update(range(token.start[0], token.end[0] + 1) if token.string else ())
    for node in ast.walk(ast.parse(source)):
        body = getattr(node, "body", None)
        if isinstance(body, list) and body and isinstance(body[0], ast.Expr) and is_text(body[0].value):
            lines.difference_update(range(body[0].lineno, (body[0].end_lineno or body[0].lineno) + 1))
    return len(lines)


def is_text(node: ast.expr) -> bool:
    """Whether an expression is a string literal."""
    return isinstance(node, ast.Constant) and isinstance(node.value, str)


FILES = module_files(ROOT / PACKAGE)
SOURCES = {module: path.read_text(encoding="utf-8") for module, path in FILES.items()}
TREES = {module: ast.parse(source) for module, source in SOURCES.items()}
GRAPH = {
    module: set(imports(tree, module, FILES[module].name == "__init__.py", set(FILES)))
    for module, tree in TREES.items()
}
OUR_PYTHON = [
    path
    for folder in (PACKAGE, "tests", "bench", "conformance", "examples")
    for path in sorted((ROOT / folder).rglob("*.py"))
]


def test_every_module_belongs_to_a_known_unit() -> None:
    assert {unit(module) for module in FILES} <= set(LAYERS)


def test_imports_point_to_lower_layers_only() -> None:
    assert upward(GRAPH) == []


def test_no_module_imports_itself_through_others() -> None:
    assert cycle(GRAPH) == []


@pytest.mark.parametrize(
    ("module", "line", "target"),
    [
        ("seamount.models.loading", "import seamount.cli.main", "seamount.cli.main"),
        ("seamount.models.loading", "def f():\n    from seamount.cli import main", "seamount.cli"),
        ("seamount.models.loading", "from ..cli import main", "seamount.cli"),
        ("seamount.tokenizer.template", "from seamount import checkpoint", "seamount.checkpoint"),
        ("seamount.config", "from seamount import load", "seamount"),
        ("seamount.models.loading", "from .. import load", "seamount"),
        ("seamount.models.loading", "import_module(f'seamount.server.{name}')", "seamount.server"),
        ("seamount.models.loading", "verbs = {'a': 'seamount.cli.a'}\nimport_module(verbs[name])", "seamount.cli.a"),
        ("seamount.models.loading", "import_module('..cli', __package__)", "seamount"),
    ],
)
def test_a_forbidden_import_is_seen_in_every_disguise(module: str, line: str, target: str) -> None:
    found = set(imports(ast.parse(line), module, False, {"seamount.checkpoint"}))
    assert found == {target}
    assert len(upward({module: found})) == 1


def test_a_cycle_is_seen() -> None:
    assert set(cycle({"a": {"b"}, "b": {"c"}, "c": {"a"}})) == {"a", "b", "c"}
    assert cycle({"a": {"b", "c"}, "b": {"c"}}) == []


def test_no_file_and_no_function_is_too_long() -> None:
    long = []
    for path in OUR_PYTHON:
        source = path.read_text(encoding="utf-8")
        if (lines := len(source.splitlines())) > MAX_FILE_LINES:
            long.append(f"{path.relative_to(ROOT)}: {lines} lines")
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                lines = (node.end_lineno or node.lineno) - node.lineno + 1
                if lines > MAX_FUNCTION_LINES:
                    long.append(f"{path.relative_to(ROOT)}, {node.name}: {lines} lines")
    assert long == []


def test_the_median_source_file_is_short() -> None:
    assert median(len(source.splitlines()) for source in SOURCES.values()) <= MAX_MEDIAN_LINES


@pytest.mark.parametrize("name", LAYERS)
def test_unit_keeps_its_budget(name: str) -> None:
    assert sum(code_lines(source) for module, source in SOURCES.items() if unit(module) == name) <= BUDGET[name]


def test_code_lines_are_counted_without_prose() -> None:
    source = '"""Doc."""\n\n# Why.\nx = (\n    1,  # one\n)\n\n\ndef f():\n    """Doc,\n    more."""\n'
    source += '    return """a\nb"""\n'
    assert code_lines(source) == 6


def test_no_two_test_files_share_a_name() -> None:
    names = [path.name for path in sorted((ROOT / "tests").rglob("test_*.py"))]
    assert {name for name in names if names.count(name) > 1} == set(), "pytest imports a test file by its name alone"


def test_no_file_is_a_drawer_for_everything() -> None:
    assert [str(path) for path in OUR_PYTHON if path.stem in {"utils", "util", "helpers", "misc", "common"}] == []


def faults(tree: ast.AST, *, reads_environment: bool) -> list[str]:
    """What a module of the package must not do: run code from files, need the oracle, read the environment."""
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names if alias.name.split(".")[0] in FORBIDDEN_IMPORTS]
        elif isinstance(node, ast.ImportFrom) and not node.level:
            names = {alias.name for alias in node.names}
            if (node.module or "").split(".")[0] in FORBIDDEN_IMPORTS or (node.module == "torch" and "load" in names):
                found.append(f"from {node.module} import {', '.join(sorted(names))}")
            if node.module == "os" and names & ENVIRONMENT and not reads_environment:
                found.append("from os import an environment")
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            name = f"{node.value.id}.{node.attr}"
            if name == "torch.load" or (node.value.id == "os" and node.attr in ENVIRONMENT and not reads_environment):
                found.append(name)
        elif isinstance(node, ast.keyword) and node.arg == "trust_remote_code":
            found.append("trust_remote_code")
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in {"eval", "exec"}:
            found.append(f"{node.func.id}(...)")
    return found


@pytest.mark.parametrize("module", FILES)
def test_module_runs_no_foreign_code_and_reads_no_environment(module: str) -> None:
    assert faults(TREES[module], reads_environment=module == f"{PACKAGE}.device") == []


@pytest.mark.parametrize(
    "line",
    [
        "import pickle",
        "from transformers import AutoModel",
        "def f():\n    import transformers.models",
        "torch.load(path)",
        "from torch import load",
        "f(x, trust_remote_code=True)",
        "eval(text)",
        "os.environ['HOME']",
        "os.getenv('HOME')",
        "from os import environ",
    ],
)
def test_a_forbidden_line_is_seen(line: str) -> None:
    assert faults(ast.parse(line), reads_environment=False)


def exported(module: str, name: str) -> ast.AST | None:
    """The function or class behind a name, followed through the `from` imports of packages."""
    for node in TREES[module].body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) and node.name == name:
            return node
        if isinstance(node, ast.ImportFrom) and node.module in TREES:
            for alias in node.names:
                if (alias.asname or alias.name) == name:
                    return exported(node.module, alias.name)
    return None


@pytest.mark.parametrize("name", [name for name in LAYERS if name not in {"base", "top"}])
def test_what_a_unit_exports_is_documented(name: str) -> None:
    module = f"{PACKAGE}.{name}"
    assert module in TREES, f"the unit {name} has no __init__.py"
    tree = TREES[module]
    assert ast.get_docstring(tree), f"{module} does not say what it is"
    listed = [
        ast.literal_eval(node.value)
        for node in tree.body
        if isinstance(node, ast.Assign) and [getattr(target, "id", "") for target in node.targets] == ["__all__"]
    ]
    defined = [node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.ClassDef)]
    names = listed[0] if listed else [defined_name for defined_name in defined if not defined_name.startswith("_")]
    assert names
    undocumented = []
    for exported_name in names:
        node = exported(module, exported_name)
        if node is None:
            continue
        members = [node, *(getattr(node, "body", []) if isinstance(node, ast.ClassDef) else [])]
        undocumented += [
            f"{exported_name}: {member.name}"
            for member in members
            if isinstance(member, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
            and not member.name.startswith("_")
            and not ast.get_docstring(member)
        ]
    assert undocumented == []
