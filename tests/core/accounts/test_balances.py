from __future__ import annotations

import pytest

from core.accounts.balances import changed
from core.errors import BalancesUnavailable
from core.messages.account_records import Balance
from tests.core.accounts.accounts import NOW_MS, Accounts, record

HOUR_MS = 3_600_000


def test_last_record_of_a_user_counts_whatever_its_time() -> None:
    accounts = Accounts()
    accounts.say(record(EUR=("10.00", "0"), KCN=("1", "2")))
    accounts.say(record("bob", EUR=("7", "0")), b"bob")
    accounts.say(record(EUR=("9.50", "0.50"), timestamp=NOW_MS - HOUR_MS))
    assert accounts.has() == {"EUR": ("9.50", "0.50")}
    assert accounts.known.of("alice").time_ms == NOW_MS - HOUR_MS
    assert accounts.has("bob") == {"EUR": ("7", "0")}
    assert (len(accounts.known), accounts.has("carol"), accounts.known.of("carol").time_ms) == (2, {}, None)


def test_record_without_a_value_removes_the_user() -> None:
    accounts = Accounts()
    accounts.say(None)
    accounts.say(record(EUR=("10", "0")))
    accounts.say(None, partition=1)
    assert accounts.has() == {"EUR": ("10", "0")}
    accounts.say(None)
    assert (accounts.has(), len(accounts.known), accounts.poisoned) == ({}, 0, [])


def test_record_that_cannot_be_read_is_told_and_changes_nothing() -> None:
    accounts = Accounts()
    accounts.say(record(EUR=("10", "0")))
    accounts.say(b'{"user_id":"alice"}')
    accounts.say(record("alice", EUR=("11", "0")), None)
    accounts.say(b"", partition=3)
    assert accounts.has() == {"EUR": ("10", "0")}
    assert accounts.poisoned == [("bad_field", 0, 1), ("bad_key", 0, 2), ("empty", 3, 3)]


@pytest.mark.parametrize(("later", "has"), [(-1, "10"), (0, "20"), (1, "20")])
def test_of_a_key_on_two_partitions_the_later_time_counts(later: int, has: str) -> None:
    accounts = Accounts()
    accounts.say(record(EUR=("10", "0")), partition=0)
    accounts.say(record(EUR=("20", "0"), timestamp=NOW_MS + later), partition=1)
    assert accounts.has() == {"EUR": (has, "0")}


def test_time_of_another_clock_is_taken_as_everywhere() -> None:
    accounts = Accounts()
    for timestamp, taken in (
        (NOW_MS + HOUR_MS, NOW_MS - 5),
        (NOW_MS // 1000, NOW_MS),
        (None, NOW_MS - 5),
        (NOW_MS - HOUR_MS, NOW_MS - HOUR_MS),
        (NOW_MS + 59_000, NOW_MS + 59_000),
    ):
        accounts.say(record(timestamp=timestamp), time_ms=NOW_MS - 5)
        assert accounts.known.of("alice").time_ms == taken
    assert accounts.odd_times == [("ahead", "account", NOW_MS + HOUR_MS), ("seconds", "account", NOW_MS // 1000)]


def test_what_is_not_read_is_not_told() -> None:
    accounts = Accounts()
    accounts.say(record(EUR=("10", "0")), partition=2)
    accounts.unread = {1}
    assert accounts.has() == {"EUR": ("10", "0")}
    with pytest.raises(BalancesUnavailable):  # what the unread one says of her is not known
        accounts.known.of("bob")
    accounts.unread = {2}
    with pytest.raises(BalancesUnavailable):
        accounts.known.of("alice")


def test_what_a_partition_said_is_forgotten_with_it() -> None:
    accounts = Accounts()
    accounts.say(record(EUR=("10", "0")), partition=2)
    accounts.say(record("bob", EUR=("7", "0")), b"bob", partition=1)
    accounts.known.forget(2)
    assert (accounts.has(), accounts.has("bob")) == ({}, {"EUR": ("7", "0")})


def test_change_of_a_currency_is_the_whole_of_it_and_what_is_gone_is_nothing() -> None:
    one, two = Balance("1", "0"), Balance("1.0", "0")
    assert changed({"A": one, "B": one, "C": one}, {"A": one, "B": two, "D": one}) == {
        "B": two,
        "D": one,
        "C": Balance("0", "0"),
    }
