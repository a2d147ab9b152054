"""The channel `status`, in every dialect; what is told on it, `core.control.status_channel` knows."""

from __future__ import annotations

import json

import pytest

from core.protocol.effects import Subscribe, Unsubscribe
from tests.core.sessions import MAX_SUBSCRIPTIONS, ask, error_of, new_session, only_reply


def test_status_is_subscribed_beside_channels_of_the_market() -> None:
    session = new_session()
    effects = ask(session, "public/subscribe", {"channels": ["status", "trades.KCN/EUR"]})
    assert only_reply(effects)["result"] == ["status", "trades.KCN/EUR"]
    [subscribe] = [effect for effect in effects if isinstance(effect, Subscribe)]
    assert subscribe.status and [channel.text for channel in subscribe.channels] == ["trades.KCN/EUR"]
    [other] = [
        effect for effect in ask(session, "public/subscribe", {"channels": ["events"]}) if isinstance(effect, Subscribe)
    ]
    assert not other.status


def test_status_is_dropped_once() -> None:
    session = new_session()
    ask(session, "public/subscribe", {"channels": ["status"]})
    effects = ask(session, "unsubscribe", {"channels": ["status", "events"]})
    assert only_reply(effects)["result"] == ["status"]
    assert [effect.names for effect in effects if isinstance(effect, Unsubscribe)] == [("status",)]
    assert only_reply(ask(session, "unsubscribe", {"channels": ["status"]}))["result"] == []


def test_status_counts_as_a_subscription() -> None:
    session = new_session()
    ask(session, "public/subscribe", {"channels": ["status"]})
    ask(session, "public/subscribe", {"channels": ["status"]})
    names = [f"trades.A/{number}" for number in range(MAX_SUBSCRIPTIONS)]
    assert error_of(ask(session, "public/subscribe", {"channels": names}))[0] == 10003
    assert only_reply(ask(session, "public/subscribe", {"channels": names[:-1]}))["result"] == names[:-1]
    assert error_of(ask(session, "public/subscribe", {"channels": names[-1:]}))[0] == 10003


def test_status_outlives_the_token() -> None:
    session = new_session()
    ask(session, "public/subscribe", {"channels": ["status"]})
    session.account_channels.clear()
    assert session.subscribed == {"status"}


def test_status_is_no_channel_of_the_account() -> None:
    session = new_session()
    session.user_id = "alice"
    assert error_of(ask(session, "private/subscribe", {"channels": ["status"]}))[0] == -32602


def test_bad_channel_beside_it_changes_nothing() -> None:
    session = new_session()
    assert error_of(ask(session, "public/subscribe", {"channels": ["status", "status.KCN/EUR"]}))[0] == -32602
    assert not session.subscribed


@pytest.mark.parametrize("verb", ["type", "action"])
def test_status_is_subscribed_and_dropped_in_the_older_dialects(verb: str) -> None:
    session = new_session()
    [subscribe] = session.receive(json.dumps({verb: "subscribe", "channel": "status"}))
    assert isinstance(subscribe, Subscribe) and subscribe.status and subscribe.channels == ()
    [unsubscribe] = session.receive(json.dumps({verb: "unsubscribe", "channel": "status"}))
    assert isinstance(unsubscribe, Unsubscribe) and unsubscribe.names == ("status",)
    assert not session.subscribed
