"""The verbs and their flags: people's scripts depend on them, so a change here is a change to announce."""

import typer

from seamount.cli import app

FLAGS = {
    "serve": {"model", "--host", "--port", "--allow-remote", "--dtype", "--json"},
    "chat": {"model", "--system", "--max-tokens", "--temperature", "--top-p", "--seed", "--dtype", "--json"},
    "generate": {
        *("model", "prompt", "--max-tokens", "--temperature", "--top-p", "--seed", "--stop", "--dtype"),
        *("--chat", "--raw", "--json"),
    },
    "inspect": {"model", "--dtype", "--json"},
    "init": {"preset", "directory", "--seed", "--set", "--json"},
    "eval": {"model", "--text", "--tokens", "--window", "--dtype", "--json"},
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
