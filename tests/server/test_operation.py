"""What an operator relies on: keys, limits, the ledger, deadlines, leaving, logs, metrics."""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn
from toy_model import ToyModel

import seamount.server.exchange as exchange
from seamount.engine import Engine
from seamount.errors import ConfigError
from seamount.server import LocalBackend, ServedModel, Service, create_app, open_socket
from seamount.server.metering import Keys, KeyTerms, Prices, Records

CHAT = {"messages": [{"role": "user", "content": "Hi"}], "temperature": 0}


@pytest.fixture
def database(tmp_path: Path) -> Path:
    return tmp_path / "server.db"


class Server:
    """A server over a database of its own, that a test may stop."""

    def __init__(self, service: Service, **options: Any) -> None:
        self.service = service
        self._listener = open_socket("127.0.0.1", 0)
        self._server = uvicorn.Server(uvicorn.Config(create_app(service, **options), log_level="critical"))
        self._thread = threading.Thread(target=self._server.run, kwargs={"sockets": [self._listener]})
        self._thread.start()
        while not self._server.started:
            time.sleep(0.01)
        self.http = httpx.Client(base_url=f"http://127.0.0.1:{self._listener.getsockname()[1]}", timeout=20)

    def stop(self) -> None:
        self.http.close()
        self._server.should_exit = True
        self._thread.join(20)
        self._listener.close()


@pytest.fixture
def served(model: ToyModel, database: Path) -> Iterator[Any]:
    """Makes a server of its own engine over the toy model."""
    servers: list[Server] = []

    def make(names: tuple[str, ...] = ("toy",), **options: Any) -> Server:
        app = {name: options.pop(name) for name in ("cors_origins", "hosts") if name in options}
        models = [ServedModel.of(name, LocalBackend(Engine(model))) for name in names]
        servers.append(Server(Service(models, database, **options), **app))
        return servers[-1]

    yield make
    for server in servers:
        server.stop()


def rows(database: Path) -> list[Any]:
    return list(Records(database).rows())


def test_a_row_is_durable_before_the_answer_ends(served: Any, database: Path) -> None:
    prices = Prices.parse({"currency": "EUR", "models": {"*": {"hit": 1, "miss": 10, "output": 100}}}, source="test")
    http = served(prices=prices).http
    with http.stream("POST", "/v1/chat/completions", json={**CHAT, "stream": True}) as response:
        for line in response.iter_lines():
            if '"finish_reason":"stop"' in line:
                (row,) = rows(database)
    answer = http.post("/v1/completions", json={"prompt": "Hello", "temperature": 0}).json()
    assert (row.outcome, row.status, row.model, row.route) == ("answered", 200, "toy", "chat")
    assert (row.hit_tokens, row.miss_tokens, row.output_tokens) == (0, len("user:Hi\na:"), 13)
    assert row.price == (10 * 10 + 13 * 100) * 10**6
    assert row.request_id == response.headers["x-request-id"]
    assert 0 < row.first_token_seconds <= row.seconds
    assert row.compute_seconds > 0
    usage = answer["usage"]["seamount"]
    assert (usage["price"], usage["currency"]) == ((5 * 10 + 13 * 100) / 10**6, "EUR")


def test_who_hangs_up_and_whom_we_fail_are_in_the_ledger(served: Any, database: Path, model: ToyModel) -> None:
    http = served().http
    model.speak("on and on ", then_end=False)
    model.before_step = lambda: time.sleep(0.01)
    with http.stream("POST", "/v1/chat/completions", json={**CHAT, "stream": True}) as response:
        assert any('"content":"o' in line for line in response.iter_lines())

    def fail() -> None:
        raise ZeroDivisionError("a secret")

    while not rows(database):
        time.sleep(0.02)
    model.before_step = fail
    assert http.post("/v1/completions", json={"prompt": "x"}).status_code == 500
    cancelled, failed = rows(database)
    assert (cancelled.outcome, failed.outcome, failed.status) == ("cancelled", "failed", 500)
    assert cancelled.output_tokens > 0
    assert failed.output_tokens == failed.miss_tokens == failed.price == 0


def test_keys_are_asked_for_once_there_are_any(served: Any, database: Path) -> None:
    http = served(("toy", "other")).http
    assert http.get("/v1/models").status_code == 200
    with Keys(database) as keys:
        secret = keys.add("someone", KeyTerms(models=("toy",), requests_per_minute=3))
    time.sleep(0.7)
    assert http.get("/v1/models").status_code == 401
    refused = http.post("/v1/chat/completions", json=CHAT, headers={"Authorization": "Bearer sk-none"})
    assert (refused.status_code, refused.json()["error"]["code"]) == (401, "invalid_api_key")
    for header in ({"Authorization": f"Bearer {secret}"}, {"x-api-key": secret}):
        answer = http.post("/v1/chat/completions", json={**CHAT, "model": "toy"}, headers=header)
        assert answer.status_code == 200, answer.text
        assert answer.headers["x-ratelimit-limit-requests"] == "3"
    header = {"x-api-key": secret}
    assert http.post("/v1/completions", json={"prompt": "x", "model": "other"}, headers=header).status_code == 403
    allowed = {"prompt": "x", "model": "toy"}
    assert http.post("/v1/completions", json=allowed, headers=header).status_code == 200
    limited = http.post("/v1/completions", json=allowed, headers=header)
    assert (limited.status_code, limited.json()["error"]["code"]) == (429, "rate_limit_exceeded")
    assert 1 <= int(limited.headers["retry-after"]) <= 60
    assert http.get("/metrics", headers=header).status_code == 403
    assert http.get("/health").status_code == 200
    assert {row.key_id for row in rows(database)} == {secret.split("-")[1]}


def test_a_spent_budget_is_refused(served: Any, database: Path) -> None:
    prices = Prices.parse({"models": {"*": {"hit": 1, "miss": 1, "output": 1}}}, source="test")
    http = served(prices=prices).http
    with Keys(database) as keys:
        header = {"x-api-key": keys.add("poor", KeyTerms(budget=10 * 10**6))}
    time.sleep(0.7)
    assert http.post("/v1/completions", json={"prompt": "x" * 20}, headers=header).status_code == 200
    spent = http.post("/v1/completions", json={"prompt": "x"}, headers=header)
    assert (spent.status_code, spent.json()["error"]["code"]) == (402, "insufficient_balance")


def test_several_models_answer_by_name(served: Any, model: ToyModel) -> None:
    http = served(("one", "two")).http
    assert [card["id"] for card in http.get("/v1/models").json()["data"]] == ["one", "two"]
    for name in ("two", "one", "two"):
        answer = http.post("/v1/chat/completions", json={**CHAT, "model": name}).json()
        assert (answer["model"], answer["choices"][0]["message"]["content"]) == (name, "Grüße ☃!")
    for path, named, status in (
        ("/v1/completions", {"prompt": "x", "model": "no"}, 404),
        ("/v1/completions", {"prompt": "x"}, 400),
        ("/v1/chat/completions", CHAT, 400),
    ):
        refused = http.post(path, json=named)
        error = refused.json()["error"]
        assert (refused.status_code, error["param"]) == (status, "model")
        assert "'one' or 'two'" in error["message"]


def test_models_without_a_price_are_refused_at_the_start(engine: Engine, database: Path) -> None:
    prices = Prices.parse({"models": {"other": {"hit": 1, "miss": 1, "output": 1}}}, source="test")
    with pytest.raises(ConfigError, match="no price"):
        Service([ServedModel.of("toy", LocalBackend(engine))], database, prices)


def test_two_models_of_one_name_are_refused(engine: Engine, database: Path) -> None:
    with pytest.raises(ConfigError, match="different names"):
        Service([ServedModel.of("toy", LocalBackend(engine))] * 2, database)


@pytest.mark.parametrize("stream", [False, True])
def test_a_deadline_ends_an_answer(served: Any, database: Path, model: ToyModel, stream: bool) -> None:
    model.speak("on and on ", then_end=False)
    model.before_step = lambda: time.sleep(0.02)
    http = served(deadline=1.5).http
    response = http.post("/v1/chat/completions", json={**CHAT, "stream": stream})
    assert response.status_code == (200 if stream else 504)
    assert "no whole answer within 1.5 seconds" in response.text
    (row,) = rows(database)
    assert (row.outcome, row.status) == ("failed", 504)


def test_a_stream_that_waits_is_kept_alive(served: Any, model: ToyModel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exchange, "KEEP_ALIVE_SECONDS", 0.3)
    model.before_step = lambda: time.sleep(2.5 if model.num_steps == 0 else 0)
    model.num_steps = 0
    response = served().http.post("/v1/chat/completions", json={**CHAT, "stream": True})
    lines = [line for line in response.text.splitlines() if line]
    first_text = next(index for index, line in enumerate(lines) if '"content":"G' in line)
    assert ": still waiting" in lines[:first_text]
    assert lines[-1] == "data: [DONE]"


def test_no_request_is_taken_while_it_leaves(served: Any) -> None:
    server = served()
    assert server.http.get("/ready").json() == {"status": "ready", "models": ["toy"]}
    server.service.is_draining = True
    assert server.http.get("/ready").status_code == 503
    assert server.http.get("/health").status_code == 200
    refused = server.http.post("/v1/completions", json={"prompt": "x"})
    assert (refused.status_code, refused.headers["retry-after"]) == (503, "5")


def test_logs_tell_of_requests_and_not_what_they_say(served: Any, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "seamount.requests")
    http = served().http
    answer = http.post("/v1/completions", json={"prompt": "very private"}, headers={"x-request-id": "my-own.id"})
    assert answer.headers["x-request-id"] == "my-own.id"
    odd = http.get("/health", headers={"x-request-id": "not {one}"}).headers["x-request-id"]
    assert odd != "not {one}"
    fields = [record.__dict__["fields"] for record in caplog.records if record.name == "seamount.requests"]
    assert [one["request_id"] for one in fields] == ["my-own.id", odd]
    assert (fields[0]["path"], fields[0]["status"], fields[0]["model"]) == ("/v1/completions", 200, "toy")
    assert fields[0]["output_tokens"] > 0
    assert "private" not in json.dumps(fields) + caplog.text
    assert answer.json()["choices"][0]["text"] not in caplog.text


def test_metrics_count_and_keep_their_names(served: Any) -> None:
    http = served().http
    http.post("/v1/completions", json={"prompt": "Hello", "temperature": 0})
    text = http.get("/metrics").text
    assert 'seamount_requests_total{model="toy",outcome="answered",route="completions"} 1.0' in text
    assert 'seamount_prompt_tokens_total{cache="miss",model="toy"} 5.0' in text
    assert 'seamount_output_tokens_total{kind="content",model="toy"} 13.0' in text
    assert 'seamount_running_answers{model="toy"} 0.0' in text
    types = [line.split()[2] for line in text.splitlines() if line.startswith("# TYPE") and "_created" not in line]
    named = {name.removesuffix("_total") for name in types}
    documented = Path(__file__).parents[2].joinpath("docs", "server.md").read_text(encoding="utf-8")
    assert {name for name in named if f"`{name}`" not in documented} == set()


def test_pages_of_other_origins_are_let_in_only_if_told(served: Any) -> None:
    asking = {"Origin": "https://chat.example", "Access-Control-Request-Method": "POST"}
    assert "access-control-allow-origin" not in served().http.options("/v1/models", headers=asking).headers
    http = served(cors_origins=["https://chat.example"]).http
    assert http.options("/v1/models", headers=asking).headers["access-control-allow-origin"] == "https://chat.example"
    other = {**asking, "Origin": "https://evil.example"}
    assert "access-control-allow-origin" not in http.options("/v1/models", headers=other).headers


def test_a_name_that_somebody_points_here_is_refused(served: Any) -> None:
    http = served(hosts=["127.0.0.1"]).http
    assert http.get("/health").status_code == 200
    rebound = http.get("/v1/models", headers={"Host": "evil.example"})
    assert rebound.status_code == 400
    assert rebound.headers["x-request-id"]
