"""The verbs and their flags: people's scripts depend on them, so a change here is a change to announce."""

import typer

from seamount.cli import app

FLAGS = {
    "serve": {"model", "--host", "--port", "--allow-remote", "--dtype", "--quantize", "--json"},
    "chat": {
        "model",
        "--system",
        "--max-tokens",
        "--temperature",
        "--top-p",
        "--seed",
        "--dtype",
        "--quantize",
        "--json",
    },
    "generate": {
        *("model", "prompt", "--max-tokens", "--temperature", "--top-p", "--seed", "--stop", "--dtype", "--quantize"),
        *("--chat", "--raw", "--json"),
    },
    "bench": set(),
    "inspect": {"model", "--dtype", "--json"},
    "convert": {"model", "directory", "--to", "--overwrite", "--json"},
    "init": {"preset", "directory", "--seed", "--set", "--quantize", "--json"},
    "eval": {"model", "--text", "--tokens", "--window", "--dtype", "--quantize", "--json"},
}


def test_verbs_and_flags():
    commands = typer.main.get_command(app).commands
    found = {
        verb: {
            flag
            for parameter in command.params
            if parameter.name != "help"
            for flag in (
                [parameter.name]
                if parameter.param_type_name == "argument"
                else [*parameter.opts, *parameter.secondary_opts]
            )
        }
        for verb, command in commands.items()
    }
    assert found == FLAGS


def test_what_can_be_measured():
    group = typer.main.get_command(app).commands["bench"]
    found = {
        name: {flag for parameter in command.params for flag in parameter.opts}
        for name, command in group.commands.items()
    }
    assert {name: flags - {"--help"} for name, flags in found.items()} == {"limits": {"--json"}}
