from __future__ import annotations

from typing import Any

import pytest

from core.control.exchange_status import ExchangeStatus
from core.control.status_channel import StatusChannel
from core.messages.control_records import Restriction
from tests.core.driven_hub import DrivenHub
from tests.core.fakes import Client

ONLINE = {"state": "online", "symbols": {}}
HALTED = {"state": "halted", "symbols": {}}


class Status:
    def __init__(self) -> None:
        self.driven = DrivenHub()
        self.halted: dict[str | None, Restriction] = {}
        self.status = ExchangeStatus({}, self.halted, lambda: None)
        self.channel = StatusChannel(self.driven.hub.fanout.send, self.status)

    def subscribed(self) -> Client:
        client = self.driven.connect()
        self.channel.subscribe(client.subscriber)
        return client

    def halt(self, reason: str | None = None) -> None:
        self.halted[None] = Restriction(1, reason)
        self.status.on_change()

    def resume(self) -> None:
        self.halted.clear()
        self.status.on_change()


def told(client: Client) -> list[Any]:
    messages = client.messages()
    assert all(set(message) == {"channel_name", "notification"} for message in messages)
    assert all(message["channel_name"] == "status" for message in messages)
    return [message["notification"] for message in messages]


def test_subscriber_is_told_at_once_and_of_each_change() -> None:
    status = Status()
    client, other = status.subscribed(), status.driven.connect()
    assert told(client) == [ONLINE]
    status.channel.flush()
    assert told(client) == []
    status.halt()
    status.channel.flush()
    assert told(client) == [HALTED]
    later = status.subscribed()
    assert told(later) == [HALTED]
    status.channel.unsubscribe(later.subscriber)
    status.resume()
    status.channel.flush()
    assert told(client) == [ONLINE]
    assert told(later) == told(other) == []
    assert status.channel.listeners == 1


def test_change_that_nobody_can_see_is_not_told() -> None:
    status = Status()
    client = status.subscribed()
    told(client)
    status.halt()
    status.resume()
    status.channel.flush()
    assert told(client) == []


def test_what_is_told_has_any_text() -> None:
    status = Status()
    client = status.subscribed()
    status.halt('a "quoted" ü')
    status.channel.flush()
    assert told(client)[-1]["message"] == 'a "quoted" ü'


@pytest.mark.parametrize(("seconds", "milliseconds"), [(2.5, 2500), (0.0004, 0), (-1, 0)])
def test_who_is_subscribed_is_told_of_its_end(seconds: float, milliseconds: int) -> None:
    status = Status()
    client, other = status.subscribed(), status.driven.connect()
    told(client)
    for one in (client, other):
        status.channel.tell_closing(one.subscriber, seconds)
    assert told(client) == [{"closing_in_ms": milliseconds}]
    assert told(other) == []
