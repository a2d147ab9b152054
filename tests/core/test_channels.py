from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.channels import EventsChannel, parse_channel
from core.model import is_symbol

LONGEST = "A" * 32 + "/" + "B" * 32


def test_channel_events_is_about_every_symbol() -> None:
    assert parse_channel("events") == EventsChannel("events", None)


@pytest.mark.parametrize("symbol", ["KCN/EUR", "a/b", "BTC-PERP/USD_T", "1INCH/2", LONGEST])
def test_channel_events_of_a_symbol_is_about_that_symbol(symbol: str) -> None:
    assert parse_channel(f"events.{symbol}") == EventsChannel(f"events.{symbol}", symbol)


@pytest.mark.parametrize(
    "name",
    [f"events.{rest}" for rest in ["", "KCN", "KCN/", "/EUR", "KCN/EUR ", "KCN/EUR\n", "KCN/EUR/X", "KCN/EUR.raw"]]
    + [f"events.{rest}" for rest in [".KCN/EUR", "\u212acn/EUR", f"C{LONGEST}", "*"]],
)
def test_channel_is_refused_with_what_was_expected_when_its_symbol_is_none(name: str) -> None:
    with pytest.raises(ValueError, match=r"expected events or events\.BASE/QUOTE"):
        parse_channel(name)


@pytest.mark.parametrize("name", ["", ".", "event", "Events", "EVENTS.KCN/EUR", " events", "events ", "KCN/EUR"])
def test_channel_is_refused_when_there_is_no_such_kind(name: str) -> None:
    with pytest.raises(ValueError, match="there is no such channel"):
        parse_channel(name)


def test_channel_is_refused_without_being_repeated_when_its_name_is_too_long() -> None:
    with pytest.raises(ValueError, match="at most 200 characters") as caught:
        parse_channel("events." + "A" * 194)
    assert len(str(caught.value)) < 100
    with pytest.raises(ValueError, match="expected events or"):
        parse_channel("events." + "A" * 193)


@settings(deadline=None)  # a busy machine is no defect
@given(st.text(max_size=300) | st.from_regex(r"events\.[A-Za-z/.]{0,80}", fullmatch=True))
def test_channel_of_any_text_is_its_own_name_or_a_value_error(name: str) -> None:
    try:
        channel = parse_channel(name)
    except ValueError:
        assert name != "events"
        assert not name.startswith("events.") or not is_symbol(name.removeprefix("events."))
    else:
        assert channel.name == name
        assert name == ("events" if channel.symbol is None else f"events.{channel.symbol}")
