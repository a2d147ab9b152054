from __future__ import annotations

import io
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from core.messages.control_records import TradingState
from tools.admin import DONE, NOT_WANTED, REFUSED, STATES, TOKEN_VARIABLE, UNKNOWN, UNREACHABLE, USAGE, main

TOKEN = "t" * 40
HOSTILE = "mallory\x1b[2J\u202e"
CLIENT = {
    "client": "c-1", "user_id": HOSTILE, "address": "192.0.2.7", "since_ms": 1_760_000_000_000,
    "subscriptions": 2, "channels": [], "waiting_bytes": 0,
}  # fmt: skip


class FakeGateway(HTTPServer):
    """Answers as it is told; keeps what it was asked."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.asked: list[tuple[str, str, Any]] = []
        self.answers: list[tuple[int, bytes]] = []

    def will_answer(self, status: int, body: object) -> None:
        self.answers.append((status, body if isinstance(body, bytes) else json.dumps(body).encode()))

    def call(self, *arguments: str, token: str = TOKEN) -> int:
        url = f"http://127.0.0.1:{self.server_port}"
        return main(["--url", url, *arguments], {TOKEN_VARIABLE: token})


class _Handler(BaseHTTPRequestHandler):
    server: FakeGateway

    def do_GET(self) -> None:
        length = int(self.headers.get("Content-Length", 0))
        body = json.loads(self.rfile.read(length)) if length else None
        assert self.headers["Authorization"] == f"Bearer {TOKEN}"
        self.server.asked.append((self.command, self.path, body))
        status, answer = self.server.answers.pop(0)
        if not status:
            return
        self.send_response(status)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    do_POST = do_GET

    def log_message(self, *_arguments: object) -> None:
        pass


@pytest.fixture
def gateway() -> Iterator[FakeGateway]:
    with FakeGateway() as served:
        thread = threading.Thread(target=served.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield served
        served.shutdown()
        thread.join()


@pytest.mark.parametrize(
    ("arguments", "path", "body"),
    [
        (["disconnect", "--user", "a"], "disconnect", {"user_id": "a"}),
        (["disconnect", "--client", "c-1"], "disconnect", {"client": "c-1"}),
        (["block", "a"], "block", {"user_id": "a", "reason": None, "cancel_open": False}),
        (
            ["block", "a", "--reason", "r", "--cancel-open"],
            "block",
            {"user_id": "a", "reason": "r", "cancel_open": True},
        ),
        (["unblock", "a"], "unblock", {"user_id": "a"}),
        (["halt", "KCN/EUR", "--reason", "r"], "halt", {"symbol": "KCN/EUR", "reason": "r"}),
        (["halt", "--all"], "halt", {"symbol": None, "reason": None}),
        (["resume", "KCN/EUR"], "resume", {"symbol": "KCN/EUR"}),
        (["resume", "--all"], "resume", {"symbol": None}),
        (
            ["announce", "halted", "--symbol", "A/B", "--symbol", "C/D", "--message", "m", "--until-ms", "2"],
            "announce",
            {"state": "halted", "symbols": ["A/B", "C/D"], "message": "m", "from_ms": None, "until_ms": 2},
        ),
        (["withdraw"], "withdraw", {}),
    ],
)
def test_command_asks_for_what_it_says(
    gateway: FakeGateway, arguments: list[str], path: str, body: object, capsys: pytest.CaptureFixture[str]
) -> None:
    gateway.will_answer(200, {"status": "done"})
    assert gateway.call("--yes", *arguments) == DONE
    assert gateway.asked == [("POST", f"/admin/{path}", body)]
    assert capsys.readouterr().out == "done\n"


@pytest.mark.parametrize(("said", "code"), [("y\n", DONE), ("yes\n", DONE), ("n\n", NOT_WANTED), ("", NOT_WANTED)])
def test_nothing_is_done_without_a_yes(
    gateway: FakeGateway, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], said: str, code: int
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO(said))
    gateway.will_answer(200, {"status": "blocked", "order_ids": ["o-1", "o-2"]})
    assert gateway.call("block", HOSTILE, "--cancel-open") == code
    told = capsys.readouterr()
    assert "cancel all open orders on every instance? [y/N]" in told.err
    assert "\x1b" not in told.err
    assert len(gateway.asked) == (code == DONE)
    assert ("blocked; 2 open orders are being cancelled" in told.out) == (code == DONE)


def test_symbol_of_which_nothing_is_known_is_told_as_perhaps_misspelt(
    gateway: FakeGateway, capsys: pytest.CaptureFixture[str]
) -> None:
    gateway.will_answer(200, {"status": "halted", "unknown_symbols": [HOSTILE]})
    assert gateway.call("--yes", "halt", HOSTILE) == DONE
    told = capsys.readouterr()
    assert told.out == "halted\n"
    assert "is it spelt right?" in told.err
    assert "\x1b" not in told.err


def test_clients_of_all_pages_are_listed(gateway: FakeGateway, capsys: pytest.CaptureFixture[str]) -> None:
    for then in ("0.1", None):
        gateway.will_answer(200, {"clients": [CLIENT], "next": then, "open": 2, "silent_workers": [1]})
    assert gateway.call("clients", "--user", "m&m") == DONE
    told = capsys.readouterr()
    line = "c-1\tmallory\\u001b[2J\\u202e\t192.0.2.7\t2025-10-09T08:53:20Z\t2\t0"
    assert told.out.splitlines()[1:] == [line, line]
    assert "worker 1 does not answer" in told.err
    assert [path for _, path, _ in gateway.asked] == [
        "/admin/clients?limit=1000&user_id=m%26m",
        "/admin/clients?limit=1000&user_id=m%26m&after=0.1",
    ]


def test_state_is_told_in_lines(gateway: FakeGateway, capsys: pytest.CaptureFixture[str]) -> None:
    one = {"since_ms": 0, "reason": None}
    whole = {
        "blocks": [{"user_id": HOSTILE, **one}],
        "blocked_users": 3,
        "halts": [{"symbol": None, **one, "reason": "why"}],
        "announcement": {"state": "halted", "symbols": None, "message": "m", "from_ms": 0, "until_ms": None},
        "problem": "no topic",
    }
    gateway.will_answer(200, whole)
    assert gateway.call("state") == DONE
    told = capsys.readouterr()
    assert told.out.splitlines() == [
        "blocked: mallory\\u001b[2J\\u202e since 1970-01-01T00:00:00Z",
        "blocked: 2 more",
        "halted: all symbols since 1970-01-01T00:00:00Z: why",
        "announced: halted, all symbols from 1970-01-01T00:00:00Z: m",
    ]
    assert "no topic" in told.err
    gateway.will_answer(200, whole)
    assert gateway.call("--json", "state") == DONE
    assert json.loads(capsys.readouterr().out) == whole
    gateway.will_answer(200, {"blocks": [], "blocked_users": 0, "halts": [], "announcement": None, "problem": None})
    assert gateway.call("state") == DONE
    assert capsys.readouterr().out == "nobody is blocked, nothing is halted or announced\n"


@pytest.mark.parametrize(
    ("status", "body", "code", "said"),
    [
        (401, {"error": "the token is not that of the operators"}, REFUSED, "401: the token"),
        (503, {"error": "not sent: no topic"}, REFUSED, "503: not sent"),
        (504, {"error": "it is not known"}, UNKNOWN, "504: it is not known"),
        (200, b"<html>", REFUSED, "not as a gateway does"),
        (200, b"[]", REFUSED, "not as a gateway does"),
        (0, b"", UNKNOWN, "may or may not be done"),
    ],
)
def test_exit_code_says_what_came_of_it(
    gateway: FakeGateway, capsys: pytest.CaptureFixture[str], status: int, body: object, code: int, said: str
) -> None:
    gateway.will_answer(status, body)
    assert gateway.call("--yes", "unblock", "a") == code
    told = capsys.readouterr()
    assert said in told.err and told.out == ""
    assert TOKEN not in told.err


def test_gateway_that_is_not_there_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    with FakeGateway() as gone:
        port = gone.server_port
    assert main(["--url", f"http://127.0.0.1:{port}", "state"], {TOKEN_VARIABLE: TOKEN}) == UNREACHABLE
    assert "cannot be reached" in capsys.readouterr().err


def test_token_is_taken_from_a_file(gateway: FakeGateway, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "token"
    file.write_text(TOKEN + "\n")
    gateway.will_answer(200, {"status": "done"})
    assert gateway.call("--yes", "--token-file", str(file), "withdraw", token="") == DONE
    for arguments in (["--token-file", str(tmp_path / "none"), "state"], ["state"]):
        assert gateway.call(*arguments, token="") == USAGE
    capsys.readouterr()


def test_states_are_the_gateways() -> None:
    assert list(TradingState) == list(STATES)
