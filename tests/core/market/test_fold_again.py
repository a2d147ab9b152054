"""A symbol that is folded once more, from further back."""

from __future__ import annotations

from decimal import Decimal

import pytest

from core.market.market import Market
from core.messages.model import Side
from tests.core.fakes import delta, fill, snapshot

SYMBOL, OTHER = "KCN/EUR", "BTC/EUR"


class Watched:
    """A market, and what it told of what went wrong."""

    def __init__(self) -> None:
        self.failed: list[int] = []
        self.stale: list[tuple[str, str]] = []
        self.market = Market(
            on_poisoned=lambda *_: None,
            on_event=lambda *_: None,
            on_stale=lambda symbol, cause: self.stale.append((symbol, cause)),
            on_failed=lambda _error, _partition, offset: self.failed.append(offset),
        )
        self.market.partitions.begin(0, 0)
        self.market.fold(0, 9, snapshot(OTHER, 9))
        self.market.begin_again(0, [SYMBOL], 0)

    def fold_again(self, offset: int, value: bytes) -> None:
        self.market.fold_again(0, [SYMBOL], offset, value, 0)


def test_only_what_is_asked_for_is_folded_again() -> None:
    watched = Watched()
    watched.fold_again(0, snapshot(SYMBOL, 1))
    watched.fold_again(1, snapshot(OTHER, 1))
    watched.fold_again(2, fill(SYMBOL))
    assert watched.market.of(OTHER).book.sequence == 9
    assert watched.market.of(SYMBOL).statistics.last_price == Decimal("1.50")


@pytest.mark.parametrize(("symbol", "stale"), [(SYMBOL, [(SYMBOL, "malformed")]), (OTHER, [])])
def test_malformed_change_that_is_read_again_costs_its_own_book(symbol: str, stale: list[tuple[str, str]]) -> None:
    watched = Watched()
    watched.fold_again(0, snapshot(SYMBOL, 1))
    watched.fold_again(1, delta(symbol, 2, "no price"))
    watched.fold_again(2, b"{")
    assert watched.stale == stale


def test_record_that_meets_a_fault_of_ours_when_read_again_costs_its_book(monkeypatch: pytest.MonkeyPatch) -> None:
    watched = Watched()
    watched.fold_again(0, snapshot(SYMBOL, 1))
    market = watched.market.of(SYMBOL)
    assert market.book.best(Side.BID) is not None

    def fail(*_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(type(market), "fold", fail)
    watched.fold_again(1, delta(SYMBOL))
    monkeypatch.setattr("core.market.market.read_event", fail)
    watched.fold_again(2, fill(SYMBOL))
    assert (watched.failed, watched.stale, market.offset) == ([1, 2], [(SYMBOL, "failed")], 1)
