from __future__ import annotations

from core.market.instrument_list import instrument_list


def test_list_without_configured_instruments_has_the_symbols_that_were_seen() -> None:
    told = instrument_list([], lambda: ["KCN/EUR"])
    assert told == {"instruments": [{"symbol": "KCN/EUR", "tick": None, "lot": None, "min_quantity": None}]}


def test_list_says_what_else_holds_for_orders() -> None:
    told = instrument_list([], list, amends=True, max_open_orders=7)
    assert told == {"instruments": [], "amend": True, "max_open_orders": 7}
