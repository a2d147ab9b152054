from __future__ import annotations

import logging
import re
import socket
from collections.abc import Iterator
from dataclasses import replace

import pytest

from core.access.identity import Identity
from core.config.settings import Settings
from process.file_limit import Capacity
from process.sockets import Listeners
from process.start_report import DEMO_TRADER, report_start, with_demo_secret

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
