from __future__ import annotations

import logging
import re
import socket
import stat
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from core.access.identity import Identity
from core.config.settings import MIN_SECRET_BYTES, Admin, Bind, Settings
from process.file_limit import Capacity
from process.sockets import Listeners
from process.start_report import ADMIN_TOKEN_PREFIX, DEMO_TRADER, demo_admin_token, report_start, with_demo_secret

CAPACITY = Capacity(connections=100, clients=90)


@pytest.fixture
def listeners() -> Iterator[Listeners]:
    with socket.create_server(("127.0.0.1", 0)) as clients, socket.create_server(("127.0.0.1", 0)) as metrics:
        yield Listeners(((clients,),), (metrics,))


def demo(secret: str | None = None) -> Settings:
    settings = Settings()
    return replace(settings, demo=replace(settings.demo, trader=True), auth=replace(settings.auth, secret=secret))


def test_demo_has_another_secret_at_each_start() -> None:
    first, second = with_demo_secret(demo()).auth, with_demo_secret(demo()).auth
    assert first.secret and second.secret
    assert first.secret != second.secret
    assert "HS256" in first.algorithms


@pytest.mark.parametrize("settings", [Settings(), demo("a secret of the operator's own choice")])
def test_settings_stay_as_they_are_where_there_is_no_demo_or_a_secret_was_set(settings: Settings) -> None:
    assert with_demo_secret(settings) == settings


def test_operators_of_the_demo_have_a_token_in_a_file_of_their_own(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "gateway")
    settings = replace(demo(), admin=Admin(Bind("127.0.0.1", 0)))
    with demo_admin_token(settings) as ready, demo_admin_token(settings) as other:
        token = ready.admin.token
        assert token and other.admin.token and token != other.admin.token
        assert len(token) >= MIN_SECRET_BYTES
        path = Path(caplog.records[0].getMessage().rpartition(" ")[2])
        assert path.name.startswith(ADMIN_TOKEN_PREFIX)
        assert path.read_text() == token + "\n"
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert not path.exists()
    assert token not in caplog.text


def test_operators_keep_the_token_that_was_set() -> None:
    for admin in (Admin(), Admin(Bind("127.0.0.1", 0), "x" * 32)):
        with demo_admin_token(replace(demo(), admin=admin)) as ready:
            assert ready.admin == admin


def test_demo_without_a_place_for_the_token_has_no_operators_address(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", "/nowhere")
    with demo_admin_token(replace(demo(), admin=Admin(Bind("127.0.0.1", 0)))) as ready:
        assert ready.admin.bind is None


def test_start_tells_in_the_log_where_it_listens(
    listeners: Listeners, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(logging.INFO, "gateway")
    report_start(Settings(), listeners, replace(CAPACITY, shortage="too few descriptors"))
    address = f"http://127.0.0.1:{listeners.bound.port}"
    said = [record.getMessage() for record in caplog.records]
    assert said[0] == f"listening on {address} (bound to {listeners.bound})"
    assert said[1] == f"metrics: bound to 127.0.0.1:{listeners.metrics[0].getsockname()[1]}"
    assert said[2:] == [f"console: {address}/", "too few descriptors"]
    assert capsys.readouterr().out == ""


def test_token_of_the_demo_is_printed_and_not_logged(
    listeners: Listeners, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(logging.INFO, "gateway")
    settings = with_demo_secret(demo())
    report_start(settings, listeners, CAPACITY)
    found = re.search(r"http://127\.0\.0\.1:\d+/#token=(\S+)", capsys.readouterr().out)
    assert found is not None
    assert Identity(settings.auth, None).authenticate(found[1]).user_id == DEMO_TRADER
    assert found[1] not in caplog.text
