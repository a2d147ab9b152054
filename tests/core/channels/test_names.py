from __future__ import annotations

import re
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.channels.names import ChannelName, parse_channel
from core.messages.model import is_symbol

LONGEST = "A" * 32 + "/" + "B" * 32
SYMBOLS = ["KCN/EUR", "a/b", "BTC-PERP/USD_T", "1INCH/2", LONGEST]
NO_SYMBOLS = ["", "KCN", "KCN/", "/EUR", "KCN/EUR ", "KCN/EUR\n", "KCN/EUR/X", "\u212acn/EUR", f"C{LONGEST}", "*"]
MILLISECONDS = {"raw": 0, "50ms": 50, "100ms": 100, "200ms": 200, "500ms": 500, "1000ms": 1000, "5000ms": 5000}
MILLISECONDS["60000ms"] = 60_000


def test_channel_events_is_about_every_symbol() -> None:
    assert parse_channel("events") == ChannelName("events", "events", None)


@pytest.mark.parametrize("symbol", SYMBOLS)
@pytest.mark.parametrize("kind", ["events", "trades"])
def test_channel_of_a_symbol_is_about_that_symbol(kind: str, symbol: str) -> None:
    assert parse_channel(f"{kind}.{symbol}") == ChannelName(f"{kind}.{symbol}", kind, symbol)


@pytest.mark.parametrize(("text", "milliseconds"), MILLISECONDS.items())
@pytest.mark.parametrize("kind", ["ticker", "lwt"])
def test_channel_of_a_state_has_an_interval(kind: str, text: str, milliseconds: int) -> None:
    name = f"{kind}.KCN/EUR.{text}"
    assert parse_channel(name) == ChannelName(name, kind, "KCN/EUR", interval_ms=milliseconds)


@pytest.mark.parametrize(("text", "milliseconds"), MILLISECONDS.items())
@pytest.mark.parametrize(("grouping", "ticks"), [("none", None), ("1", 1), ("10", 10), ("1000000000", 1_000_000_000)])
@pytest.mark.parametrize(("depth", "levels"), [("1", 1), ("20", 20), ("1000", 1000), ("all", None)])
def test_channel_of_a_book_has_grouping_depth_and_interval(
    grouping: str, ticks: int | None, depth: str, levels: int | None, text: str, milliseconds: int
) -> None:
    name = f"book.KCN/EUR.{grouping}.{depth}.{text}"
    assert parse_channel(name) == ChannelName(name, "book", "KCN/EUR", ticks, levels, milliseconds)


@pytest.mark.parametrize("name", ["book.A/A.none.10.raw", "trades.A/A"])
def test_channel_with_trades_of_the_older_shape_is_another_one(name: str) -> None:
    assert parse_channel(name, trades_as_objects=True) == replace(parse_channel(name), trades_as_objects=True)
    assert parse_channel(name, trades_as_objects=True) != parse_channel(name)


@pytest.mark.parametrize("name", ["ticker.A/A.raw", "lwt.A/A.raw", "events.A/A", "events"])
def test_channel_without_trades_is_the_same_in_every_dialect(name: str) -> None:
    assert parse_channel(name, trades_as_objects=True) == parse_channel(name)


@pytest.mark.parametrize("symbol", NO_SYMBOLS)
@pytest.mark.parametrize("form", ["events.{}", "trades.{}", "ticker.{}.raw", "lwt.{}.raw", "book.{}.none.1.raw"])
def test_channel_is_refused_with_what_was_expected_when_its_symbol_is_none(form: str, symbol: str) -> None:
    kind = form.partition(".")[0]
    with pytest.raises(ValueError, match=rf"expected {kind}\.BASE/QUOTE"):
        parse_channel(form.format(symbol))


@pytest.mark.parametrize(
    "grouping", ["", "0", "01", "-1", "+1", "1.0", "1e3", "None", "NONE", " 1", "²", "٣", "1000000001"]
)
def test_channel_is_refused_when_its_grouping_is_none(grouping: str) -> None:
    with pytest.raises(ValueError, match=r"grouping|expected book"):
        parse_channel(f"book.KCN/EUR.{grouping}.1.raw")


@pytest.mark.parametrize("depth", ["", "0", "1001", "-1", "01", "ALL", "all ", "none", "9" * 30, "٣"])
def test_channel_is_refused_when_its_depth_is_none(depth: str) -> None:
    with pytest.raises(ValueError, match="depth"):
        parse_channel(f"book.KCN/EUR.none.{depth}.raw")


@pytest.mark.parametrize("interval", ["", "0ms", "1ms", "100", "100MS", "RAW", "60s", "raw "])
@pytest.mark.parametrize("form", ["ticker.KCN/EUR.{}", "lwt.KCN/EUR.{}", "book.KCN/EUR.none.1.{}"])
def test_channel_is_refused_when_its_interval_is_none(form: str, interval: str) -> None:
    with pytest.raises(ValueError, match=r"interval .*expected one of raw, 50ms"):
        parse_channel(form.format(interval))


@pytest.mark.parametrize(
    "name",
    ["events.KCN/EUR.raw", "trades", "trades.KCN/EUR.raw", "ticker", "ticker.KCN/EUR", "lwt.KCN/EUR.raw.raw", "book",
     "book.KCN/EUR", "book.KCN/EUR.none.1", "book.KCN/EUR.none.1.raw.raw", "events..KCN/EUR", "candles.KCN/EUR",
     "candles.KCN/EUR.1m.raw"],
)  # fmt: skip
def test_channel_is_refused_with_its_form_when_it_has_too_few_or_too_many_parts(name: str) -> None:
    with pytest.raises(ValueError, match=rf"expected {name.partition('.')[0]}\.BASE/QUOTE"):
        parse_channel(name)


def test_channel_of_candles_has_an_interval_of_its_own_and_is_told_at_most_every_250_ms() -> None:
    channel = parse_channel("candles.KCN/EUR.4h")
    assert (channel.symbol, channel.candles, channel.interval_ms) == ("KCN/EUR", "4h", 250)
    with pytest.raises(ValueError, match="interval 'raw': expected one of 1m, 5m, 15m, 1h, 4h, 1d"):
        parse_channel("candles.KCN/EUR.raw")


def test_channel_of_all_tickers_has_no_symbol() -> None:
    channel = parse_channel("tickers.1000ms")
    assert (channel.symbol, channel.interval_ms) == (None, 1000)
    for name in ("tickers", "tickers.KCN/EUR.raw"):
        with pytest.raises(ValueError, match=r"expected tickers\.interval"):
            parse_channel(name)
    with pytest.raises(ValueError, match="interval '1m'"):
        parse_channel("tickers.1m")


@pytest.mark.parametrize(
    "name", ["", ".", "event", "Events", "EVENTS.KCN/EUR", " events", "events ", "KCN/EUR", "account.orders"]
)
def test_channel_is_refused_when_there_is_no_such_kind(name: str) -> None:
    with pytest.raises(ValueError, match="there is no such channel"):
        parse_channel(name)


def test_channel_is_refused_without_being_repeated_when_its_name_is_too_long() -> None:
    with pytest.raises(ValueError, match="at most 200 characters") as caught:
        parse_channel("events." + "A" * 194)
    assert len(str(caught.value)) < 100
    with pytest.raises(ValueError, match="is not a symbol"):
        parse_channel("events." + "A" * 193)


PARTS = st.sampled_from(["KCN/EUR", "none", "all", "raw", "100ms", "1", "1000", "0", "x", "", "1m", "1d"])
ALIKE = st.builds(lambda kind, parts: ".".join([kind, *parts]), st.sampled_from(["book", "ticker", "lwt", "trades", "events", "candles", "tickers"]),
                  st.lists(PARTS, max_size=6))  # fmt: skip
INTERVAL = "raw|50ms|100ms|200ms|500ms|1000ms|5000ms|60000ms"
GRAMMAR = re.compile(
    rf"events|tickers\.(?:{INTERVAL})|candles\.(?P<d>[^.]+)\.(?:1m|5m|15m|1h|4h|1d)|(?:(?:events|trades)\.(?P<a>[^.]+)|(?:ticker|lwt)\.(?P<b>[^.]+)\.(?:{INTERVAL})"
    rf"|book\.(?P<c>[^.]+)\.(?:none|[1-9][0-9]{{0,8}}|1000000000)\.(?:all|[1-9][0-9]{{0,2}}|1000)\.(?:{INTERVAL}))"
)


@given(st.text(max_size=300) | st.from_regex(r"events\.[A-Za-z/.]{0,80}", fullmatch=True) | ALIKE)
def test_channel_of_any_text_is_its_own_name_or_a_value_error(name: str) -> None:
    found = GRAMMAR.fullmatch(name)
    symbol = found and (found["a"] or found["b"] or found["c"] or found["d"])
    if found and len(name) <= 200 and (symbol is None or is_symbol(symbol)):
        channel = parse_channel(name)
        assert (channel.text, channel.kind, channel.symbol) == (name, name.partition(".")[0], symbol)
    else:
        with pytest.raises(ValueError):
            parse_channel(name)
