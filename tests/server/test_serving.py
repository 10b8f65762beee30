"""The server as a process: what it prints, what it refuses, how it leaves."""

from __future__ import annotations

import contextlib
import json
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from seamount.device import process_age_seconds
from seamount.errors import ConfigError
from seamount.server import Service, open_socket, serve
from seamount.server.serving import curl_line

PROGRAM = """
import sys, time
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from toy_model import ToyModel, toy_tokenizer
from seamount.engine import Engine
from seamount.server import LocalBackend, ServedModel, Service, serve
model = ToyModel(toy_tokenizer(Path(sys.argv[2])))
model.speak("on and on ", then_end=False)
model.before_step = lambda: time.sleep(float(sys.argv[3]))
service = Service([ServedModel.of("it's a toy", LocalBackend(Engine(model)))], Path(sys.argv[2]) / "server.db")
serve(service, port=0, drain_seconds=float(sys.argv[4]), show=lambda text: print(text, flush=True))
print("left cleanly")
"""


@contextlib.contextmanager
def serving(path: Path, step_seconds: float, drain_seconds: float) -> Iterator[subprocess.Popen[str]]:
    toy = Path(__file__).parents[1] / "engine"
    command = [sys.executable, "-c", PROGRAM, str(toy), str(path), str(step_seconds), str(drain_seconds)]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2]
    ) as process:
        yield process
        process.kill()


@pytest.mark.parametrize(
    ("kind", "step_seconds", "drain_seconds"),
    [(signal.SIGINT, 0.01, 300), (signal.SIGTERM, 0.01, 2), (signal.SIGTERM, 4, 0.5)],
    ids=["interrupted", "terminated", "within-a-long-step"],
)
def test_it_says_where_and_how_to_ask_and_leaves_cleanly_with_a_stream_open(
    tmp_path: Path, kind: signal.Signals, step_seconds: float, drain_seconds: float
) -> None:
    with serving(tmp_path, step_seconds, drain_seconds) as process:
        assert process.stdout is not None
        address, age, curl, pages = (process.stdout.readline().strip() for _ in range(4))
        url = address.split()[-1]
        assert 0 < float(age.split()[1]) < 300
        _, endpoint, _, header, _, body = shlex.split(curl)
        request = {**json.loads(body), "stream": True, "temperature": 0}
        name, _, value = header.partition(": ")
        assert endpoint.startswith(url)
        assert f"{url}/ledger" in pages
        assert pages.endswith("server.db")
        with httpx.stream("POST", endpoint, content=json.dumps(request), headers={name: value}, timeout=60) as response:
            lines = response.iter_lines()
            assert response.status_code == 200
            assert any('"content":"o' in line for line in lines)
            process.send_signal(kind)
            # Left alone, the stream would end by itself after forty seconds, and say nothing of the kind.
            assert any("the server is stopping" in line for line in lines)
            output, errors = process.communicate(timeout=60)
        assert process.returncode == 0, errors
        assert output == "left cleanly\n"
        assert "Traceback" not in errors


def test_a_taken_port_is_an_error_that_names_it() -> None:
    with open_socket("127.0.0.1", 0) as taken:
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(ConfigError, match=f"port = {port}.*another port"):
            open_socket("127.0.0.1", port)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "example.org", ""])
@pytest.mark.parametrize("told", [{}, {"allow_remote": True}, {"without_keys": True}])
def test_addresses_that_others_reach_need_keys_or_two_options(
    service: Service, host: str, told: dict[str, bool]
) -> None:
    with pytest.raises(ConfigError, match="seamount keys add"):
        serve(service, host, 0, **told)


@pytest.mark.parametrize(("host", "port"), [("127.0.0.1", -1), ("127.0.0.1", 65536), ("localhost", 70000)])
def test_impossible_ports_are_refused(host: str, port: int) -> None:
    with pytest.raises(ConfigError, match="port"):
        open_socket(host, port)


def test_the_curl_line_survives_a_shell() -> None:
    for has_template in (True, False):
        words = shlex.split(curl_line("http://127.0.0.1:1", 'it\'s "quoted"', has_template))
        assert json.loads(words[-1])["model"] == 'it\'s "quoted"'


def test_the_age_of_a_process_grows_from_its_start() -> None:
    first = process_age_seconds()
    assert first > 0
    time.sleep(0.05)
    assert 0.03 < process_age_seconds() - first < 30
    code = "from seamount.device import process_age_seconds as age; print(age())"
    young = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert 0 <= float(young.stdout) < 30
