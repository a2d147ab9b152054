from __future__ import annotations

from typing import Any

import pytest

from core.accounts.account_balances import USERS_A_BEAT
from tests.core.accounts.accounts import NOW_MS, Accounts, record
from tests.core.fakes import Client

STALE: dict[str, Any] = {"balances": {}, "time": None, "stale": True}


def told(client: Client) -> list[dict[str, Any]]:
    found = client.messages()
    assert [set(message) for message in found] == [{"channel_name", "notification"}] * len(found)
    return [message["notification"] for message in found]


def eur(available: str, reserved: str = "0", **more: Any) -> dict[str, Any]:
    return {"balances": {"EUR": {"available": available, "reserved": reserved}}, "time": NOW_MS / 1000, **more}


def test_subscriber_is_told_all_and_then_what_changed() -> None:
    accounts = Accounts()
    accounts.say(record(EUR=("10.00", "0"), KCN=("1", "0")))
    client = accounts.listen()
    [first] = told(client)
    assert first == {
        "balances": {"EUR": {"available": "10.00", "reserved": "0"}, "KCN": {"available": "1", "reserved": "0"}},
        "time": NOW_MS / 1000,
        "snapshot": True,
    }
    accounts.say(record(EUR=("9.00", "1.00"), KCN=("1", "0")))
    accounts.say(record(EUR=("9.50", "0.50"), KCN=("1", "0")))
    assert accounts.channel.flush() is False
    assert told(client) == [eur("9.50", "0.50")]
    accounts.say(record(EUR=("9.50", "0.50"), KCN=("1", "0")))
    accounts.say(record("bob", EUR=("1", "0")), b"bob")
    accounts.channel.flush()
    assert told(client) == []


def test_what_is_gone_is_told_as_nothing() -> None:
    accounts = Accounts()
    accounts.say(record(EUR=("10", "0")))
    client = accounts.listen()
    accounts.say(None)
    accounts.channel.flush()
    assert told(client)[1:] == [{**eur("0"), "time": None}]
    assert told(accounts.listen()) == [{"balances": {}, "time": None, "snapshot": True}]


def test_who_joins_begins_with_the_present_and_the_others_are_told_it_once() -> None:
    accounts = Accounts()
    first = accounts.listen()
    accounts.say(record(EUR=("10", "0")))
    second = accounts.listen()
    accounts.channel.flush()
    assert told(first) == [{"balances": {}, "time": None, "snapshot": True}, eur("10")]
    assert told(second) == [eur("10", snapshot=True)]
    accounts.channel.subscribe("alice", second.subscriber)
    assert told(second) == [eur("10", snapshot=True)]
    assert accounts.channel.listeners == 2


def test_what_cannot_be_told_is_told_once_and_a_snapshot_when_it_can() -> None:
    accounts = Accounts()
    accounts.say(record(EUR=("10", "0")))
    client = accounts.listen()
    accounts.unread = {0}
    for _ in range(2):
        accounts.channel.look_at_all()
        accounts.channel.flush()
    assert told(client)[1:] == [STALE]
    assert told(accounts.listen()) == [STALE]
    accounts.known.forget(0)
    accounts.say(record(EUR=("11", "0")))
    accounts.channel.flush()
    assert told(client) == []
    accounts.unread = set()
    accounts.channel.look_at_all()
    accounts.channel.flush()
    assert told(client) == [eur("11", snapshot=True)]


def test_partitions_of_others_are_nothing_to_who_is_known() -> None:
    accounts = Accounts()
    accounts.say(record(EUR=("10", "0")))
    client, stranger = accounts.listen(), accounts.listen("bob")
    accounts.unread = {3}
    accounts.channel.look_at_all()
    accounts.channel.flush()
    assert (len(told(client)), told(stranger)[1:]) == (1, [STALE])


def test_many_are_told_some_at_a_time() -> None:
    accounts = Accounts()
    clients = [accounts.listen(f"user-{number}") for number in range(USERS_A_BEAT + 1)]
    accounts.unread = {0}
    accounts.channel.look_at_all()
    assert accounts.channel.flush() is True
    assert [len(told(client)) for client in clients] == [2] * USERS_A_BEAT + [1]
    assert accounts.channel.flush() is False
    assert len(told(clients[-1])) == 1


def test_who_has_left_is_told_no_more() -> None:
    accounts = Accounts()
    first, second = accounts.listen(), accounts.listen()
    accounts.say(record(EUR=("10", "0")))
    for _ in range(2):
        accounts.channel.unsubscribe("alice", first.subscriber)
    accounts.channel.flush()
    assert (len(told(first)), len(told(second))) == (1, 2)
    accounts.say(record(EUR=("11", "0")))
    accounts.channel.unsubscribe("alice", second.subscriber)
    assert accounts.channel.flush() is False
    assert (told(second), accounts.channel.listeners) == ([], 0)


def test_fault_at_one_user_keeps_no_other_from_being_told() -> None:
    accounts = Accounts()
    alice, bob = accounts.listen(), accounts.listen("bob")
    accounts.fails.add(alice.subscriber)
    accounts.say(record(EUR=("10", "0")))
    accounts.say(record("bob", EUR=("10", "0")), b"bob")
    with pytest.raises(RuntimeError):
        accounts.channel.flush()
    accounts.channel.flush()
    assert told(bob)[1:] == [eur("10")]


def test_who_leaves_while_another_is_told_is_told_no_more() -> None:
    accounts = Accounts()
    alice, bob = accounts.listen(), accounts.listen("bob")
    accounts.ends[alice.subscriber] = lambda: accounts.channel.unsubscribe("bob", bob.subscriber)
    for user_id in ("alice", "bob"):
        accounts.say(record(user_id, EUR=("10", "0")), user_id.encode())
    assert accounts.channel.flush() is False
    assert (len(told(alice)), len(told(bob)), accounts.channel.listeners) == (2, 1, 1)
