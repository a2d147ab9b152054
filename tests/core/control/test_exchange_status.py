"""What halts and the announcement make of the exchange's state (docs/contract.md#status)."""

from __future__ import annotations

import json
from typing import Any

import pytest

from core.control.exchange_status import ExchangeStatus
from core.errors import Blocked, ControlUnavailable, Halted
from core.messages.control_records import Announcement, Restriction, TradingState

NOW_MS = 1_700_000_000_000
KCN, BTC = "KCN/EUR", "BTC/EUR"


class Exchange:
    """A status whose halts, announcement and clock are the test's."""

    def __init__(self) -> None:
        self.now_ms = NOW_MS
        self.blocked: dict[str, Restriction] = {}
        self.halted: dict[str | None, Restriction] = {}
        self.announcement: Announcement | None = None
        self.unread: str | None = None
        self.status = ExchangeStatus(
            self.blocked,
            self.halted,
            lambda: self.announcement,
            unread=lambda: self.unread,
            clock=lambda: self.now_ms / 1000,
        )

    def halt(self, symbol: str | None, reason: str | None = None) -> None:
        self.halted[symbol] = Restriction(NOW_MS, reason)

    def announce(
        self,
        state: str,
        *symbols: str,
        message: str | None = None,
        from_ms: int | None = None,
        until_ms: int | None = None,
    ) -> None:
        self.announcement = Announcement(TradingState(state), symbols or None, message, from_ms, until_ms)

    def body(self) -> dict[str, Any]:
        self.status.on_change()
        self.status.look()
        body: dict[str, Any] = json.loads(self.status.text())
        return body

    def refusal(self, symbol: str = KCN, user_id: str | None = "alice") -> str | None:
        self.body()
        try:
            self.status.check(user_id, symbol)
        except (Blocked, Halted) as error:
            return str(error)
        return None


def test_exchange_is_online_where_nothing_is_said() -> None:
    exchange = Exchange()
    assert exchange.status.body == exchange.body() == {"state": "online", "symbols": {}}
    assert exchange.refusal() is None


def test_halt_of_a_symbol_is_its_state_alone() -> None:
    exchange = Exchange()
    exchange.halt(KCN, "odd prices")
    exchange.halt("A/B")
    assert exchange.body() == {
        "state": "online",
        "symbols": {KCN: "halted", "A/B": "halted"},
        "reasons": {KCN: "odd prices"},
    }
    assert exchange.refusal(KCN) == "KCN/EUR takes no orders now (halted): odd prices"
    assert exchange.refusal("A/B") == "A/B takes no orders now (halted)"
    assert exchange.refusal(BTC) is None


def test_halt_of_all_is_the_state_of_the_exchange() -> None:
    exchange = Exchange()
    exchange.halt(None, "the engine is looked at")
    exchange.halt(KCN)
    assert exchange.body() == {"state": "halted", "symbols": {}, "message": "the engine is looked at"}
    assert exchange.refusal(BTC) == "BTC/EUR takes no orders now (halted): the engine is looked at"


@pytest.mark.parametrize("state", ["cancel_only", "halted", "maintenance"])
def test_announced_state_holds_from_its_beginning_to_its_end(state: str) -> None:
    exchange = Exchange()
    exchange.announce(state, message="an upgrade", from_ms=NOW_MS + 1000, until_ms=NOW_MS + 2000)
    told = {"message": "an upgrade", "from_ms": NOW_MS + 1000, "until_ms": NOW_MS + 2000}
    assert exchange.body() == {"state": "online", "symbols": {}, **told, "announced": {"state": state}}
    assert exchange.refusal() is None
    exchange.now_ms += 999
    exchange.status.look()
    assert exchange.status.body["state"] == "online"
    exchange.now_ms += 1
    exchange.status.look()
    assert exchange.status.body == {"state": state, "symbols": {}, **told}
    with pytest.raises(Halted, match=rf"\({state}\): an upgrade"):
        exchange.status.check("alice", KCN)
    exchange.now_ms += 999
    exchange.status.look()
    assert exchange.status.body["state"] == state
    exchange.now_ms += 1
    exchange.status.look()
    assert exchange.status.body == {"state": "online", "symbols": {}}
    exchange.status.check("alice", KCN)


def test_announcement_of_some_symbols_is_of_those() -> None:
    exchange = Exchange()
    exchange.announce("maintenance", KCN, from_ms=NOW_MS + 1000)
    assert exchange.body()["announced"] == {"state": "maintenance", "symbols": [KCN]}
    exchange.announce("maintenance", KCN)
    assert exchange.body() == {"state": "online", "symbols": {KCN: "maintenance"}}
    assert exchange.refusal(BTC) is None


def test_announcement_that_the_exchange_is_online_refuses_nothing() -> None:
    exchange = Exchange()
    exchange.announce("online", message="a new symbol tomorrow")
    assert exchange.body() == {"state": "online", "symbols": {}, "message": "a new symbol tomorrow"}
    assert exchange.refusal() is None


def test_of_several_states_the_one_of_the_highest_rank_counts() -> None:
    exchange = Exchange()
    exchange.halt(None, "halted")
    exchange.announce("cancel_only", message="announced")
    assert exchange.body()["state"] == "halted"
    assert exchange.refusal() == "KCN/EUR takes no orders now (halted): halted"
    exchange.announce("maintenance", KCN, message="announced")
    assert exchange.body() == {"state": "halted", "symbols": {KCN: "maintenance"}, "message": "announced"}
    assert exchange.refusal() == "KCN/EUR takes no orders now (maintenance): announced"
    exchange.announce("maintenance")
    assert exchange.body()["state"] == "maintenance"
    assert exchange.refusal() == "KCN/EUR takes no orders now (maintenance)"
    exchange.announce("online")
    assert exchange.body()["state"] == "halted"


def test_blocked_user_is_refused_whatever_the_state() -> None:
    exchange = Exchange()
    exchange.blocked["alice"] = Restriction(NOW_MS, "too many cancels")
    exchange.halt(KCN)
    assert exchange.refusal(BTC) == "orders of this user are refused: too many cancels"
    assert exchange.refusal(KCN) == "orders of this user are refused: too many cancels"
    assert exchange.refusal(BTC, None) is exchange.refusal(BTC, "bob") is None
    exchange.blocked["alice"] = Restriction(NOW_MS, None)
    assert exchange.refusal(BTC) == "orders of this user are refused"


def test_nothing_goes_out_before_it_is_known_what_may() -> None:
    exchange = Exchange()
    exchange.unread = "it has not been read yet"
    with pytest.raises(ControlUnavailable, match="not been read"):
        exchange.status.check("alice", KCN)
    exchange.unread = None
    exchange.status.check("alice", KCN)
    exchange.unread = "it is read anew"
    exchange.status.check("alice", KCN)
