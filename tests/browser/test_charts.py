"""The charts: candles that are what the gateway says, to the last digit, and the depth of the book."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.browser.conftest import Complaints
from tests.browser.fake_gateway import KCN_CANDLES, FakeGateway
from tests.browser.serving import REPOSITORY

MINUTE_MS = 60_000
# 2023-11-14 22:00:00 UTC
OPENED = 1_699_999_200_000
LEGEND = "#candle-legend"


def candle(
    minute: int, close: str = "25.10", *, closed: bool = True, trades: int = 3, volume: str = "4.5"
) -> list[Any]:
    """A candle that opened at 25.00, so many minutes after `OPENED`."""
    high = max(close, "25.20")
    return [OPENED + minute * MINUTE_MS, "25.00", high, "24.90", close, volume, "112.5", trades, closed]


def flat(minute: int, price: str, *, closed: bool = True) -> list[Any]:
    return [OPENED + minute * MINUTE_MS, price, price, price, price, "0", "0", 0, closed]


def history(*candles: list[Any], seq: int = 0) -> dict[str, Any]:
    return {"symbol": "KCN/EUR", "interval": "1m", "seq": seq, "candles": list(candles), "stale": False}


def show(gateway: FakeGateway, *candles: list[Any]) -> None:
    """The page with these candles."""
    gateway.candles = [history(*candles)]
    gateway.tell(KCN_CANDLES, {"candles": list(candles[-2:]), "snapshot": True})
    expect(gateway.page.locator(LEGEND)).to_contain_text(f"C {candles[-1][4]}")


def fold(modules: Page, past: list[Any], *told: list[Any]) -> Any:
    """The closes of `Candles` after what was told, and where the first difference was each time."""
    script = """async ([past, told]) => {
      const { Candles } = await import("/console/candles.js");
      const { format } = await import("/console/client/decimal.js");
      const candles = new Candles("1m");
      candles.replace(past);
      const first = told.map((rows) => candles.apply(rows));
      return [candles.list.map(({ close, trades }) => [format(close), trades]), first];
    }"""
    return modules.evaluate(script, [past, list(told)])


def test_vendored_chart_library_is_the_published_one_with_its_licence() -> None:
    # dist/lightweight-charts.standalone.production.mjs of lightweight-charts 5.2.1 in the npm registry.
    published = "1bb1ee79f9d4dd17261b53d930f7a8995748276f80e7ba0e24412b5068062f5f"
    vendor = REPOSITORY / "console/vendor"
    assert hashlib.sha256((vendor / "lightweight-charts.js").read_bytes()).hexdigest() == published
    assert "Apache License" in (vendor / "lightweight-charts.LICENSE").read_text("utf-8")
    assert "https://www.tradingview.com/" in (vendor / "lightweight-charts.NOTICE").read_text("utf-8")


def test_page_shows_the_notice_of_its_chart_library(page: Page, gateway: FakeGateway) -> None:
    notice = page.locator(".attribution")
    expect(notice).to_be_visible()
    expect(notice).to_contain_text("TradingView Lightweight Charts™, © TradingView, Inc.")
    expect(notice.locator("a")).to_have_attribute("href", "https://www.tradingview.com/")


def test_candles_are_changed_and_added_in_their_place(modules: Page) -> None:
    past = [candle(0, "25.10"), candle(1, "25.20", closed=False)]
    told, first = fold(modules, past, [candle(1, "25.30", closed=False)], [candle(1, "25.4"), candle(2, "25.5")])
    assert told == [["25.10", 3], ["25.4", 3], ["25.5", 3]]
    assert first == [1, 1]


def test_candles_without_a_trade_repeat_the_close_that_a_late_fill_changed(modules: Page) -> None:
    past = [candle(0, "25.10"), flat(1, "25.10"), flat(2, "25.10"), candle(3, "25.00")]
    told, first = fold(modules, past, [candle(0, "26.00")])
    assert told == [["26.00", 3], ["26.00", 0], ["26.00", 0], ["25.00", 3]]
    assert first == [0]


def test_candles_have_no_hole_where_nothing_was_told(modules: Page) -> None:
    told, first = fold(modules, [candle(0, "25.10")], [candle(3, "25.50")])
    assert told == [["25.10", 3], ["25.10", 0], ["25.10", 0], ["25.50", 3]]
    assert first == [1]


def test_candles_leave_out_what_is_older_than_what_is_held(modules: Page) -> None:
    assert fold(modules, [candle(5)], [candle(2)]) == [[["25.10", 3]], [1]]


def test_candles_of_a_far_future_make_no_endless_list(modules: Page) -> None:
    told, _ = fold(modules, [candle(0)], [candle(10_000_000)])
    assert len(told) <= 7000


def test_chart_shows_the_last_candle_to_its_last_digit(page: Page, gateway: FakeGateway) -> None:
    exact = "25.1000000000000000000000001"
    show(gateway, candle(0), candle(1, exact, closed=False, volume="1234567890.123456789012345678"))
    legend = page.locator(LEGEND)
    expect(legend).to_contain_text("O 25.00")
    expect(legend).to_contain_text("Vol 1234567890.123456789012345678 KCN")
    expect(legend).to_contain_text("so far")
    expect(page.locator("#chart-empty")).to_be_hidden()


def test_chart_follows_the_live_candle(page: Page, gateway: FakeGateway, complaints: Complaints) -> None:
    show(gateway, candle(0), candle(1, "25.15", closed=False))
    gateway.tell(KCN_CANDLES, {"candles": [candle(1, "25.33", closed=False)]})
    expect(page.locator(LEGEND)).to_contain_text("C 25.33")
    gateway.tell(KCN_CANDLES, {"candles": [candle(1, "25.34"), candle(2, "25.41", closed=False)]})
    expect(page.locator(LEGEND)).to_contain_text("C 25.41")
    # A late fill, to a candle that is not the last.
    gateway.tell(KCN_CANDLES, {"candles": [candle(1, "25.39")]})
    page.focus("#candles")
    page.keyboard.press("End")
    page.keyboard.press("ArrowLeft")
    expect(page.locator(LEGEND)).to_contain_text("C 25.39")
    assert complaints.texts == []


def test_chart_takes_nothing_that_the_past_has_already(page: Page, gateway: FakeGateway) -> None:
    gateway.candles = [history(candle(0, "25.77", closed=False), seq=1_000)]
    gateway.tell(KCN_CANDLES, {"candles": [candle(0, "25.11", closed=False)], "snapshot": True})
    expect(page.locator(LEGEND)).to_contain_text("C 25.77")


def test_chart_reads_its_past_anew_with_each_snapshot(page: Page, gateway: FakeGateway) -> None:
    show(gateway, candle(0, "25.10"), candle(1, "25.15"))
    show(gateway, candle(0, "25.12"), candle(1, "25.18"))
    page.focus("#candles")
    page.keyboard.press("Home")
    expect(page.locator(LEGEND)).to_contain_text("C 25.12")


def test_chart_reads_older_candles_where_its_left_edge_comes_into_sight(page: Page, gateway: FakeGateway) -> None:
    older = history(*(candle(minute, "24.95") for minute in range(-500, 0)))
    gateway.candles = [history(candle(0), candle(1)), older, history()]
    gateway.tell(KCN_CANDLES, {"candles": [candle(1)], "snapshot": True})
    gateway.wait_until(lambda: len(gateway.candles_asked) >= 2)
    assert gateway.candles_asked[:2] == [
        "symbol=KCN%2FEUR&interval=1m&limit=500",
        f"symbol=KCN%2FEUR&interval=1m&limit=500&to={OPENED - 1}",
    ]
    page.focus("#candles")

    def reads_the_oldest() -> bool:
        page.keyboard.press("Home")
        return "C 24.95" in page.locator(LEGEND).inner_text()

    gateway.wait_until(reads_the_oldest)


def test_chart_says_that_its_candles_are_stale(page: Page, gateway: FakeGateway) -> None:
    show(gateway, candle(0))
    gateway.tell(KCN_CANDLES, {"candles": [], "stale": True})
    expect(page.locator("#chart-note")).to_have_text("Stale, waiting for news")
    expect(page.locator(".chart-panel")).to_have_attribute("data-stale", "true")
    show(gateway, candle(0), candle(1))
    expect(page.locator("#chart-note")).to_have_text("")
    expect(page.locator(".chart-panel")).to_have_attribute("data-stale", "false")


def test_chart_of_another_interval_is_asked_for_and_the_other_one_left(page: Page, gateway: FakeGateway) -> None:
    show(gateway, candle(0))
    page.locator("input[name=interval][value='1h']").dispatch_event("click")
    gateway.wait_until(lambda: "candles.KCN/EUR.1h" in gateway.channels and gateway.dropped == [KCN_CANDLES])
    expect(page.locator(LEGEND)).to_have_text("")
    expect(page.locator("#chart-note")).to_have_text("Loading")
    page.locator("input[name=interval][value=live]").dispatch_event("click")
    expect(page.locator("#price-line")).to_be_visible()
    expect(page.locator("#candles")).to_be_hidden()
    gateway.wait_until(lambda: "candles.KCN/EUR.1h" in gateway.dropped)


@pytest.mark.usefixtures("alone")
def test_chart_asks_again_for_a_past_that_it_could_not_have(
    page: Page, start: Callable[..., FakeGateway], complaints: Complaints
) -> None:
    page.clock.install(time=0)
    page.clock.pause_at(3_600)
    gateway = start()
    failing = True
    page.context.route(
        "**/api/candles?*", lambda route: route.fulfill(status=503, body="{}") if failing else route.fallback()
    )
    gateway.candles = [history(candle(0, "25.66"))]
    gateway.tell(KCN_CANDLES, {"candles": [candle(0, "25.66")], "snapshot": True})
    expect(page.locator("#chart-note")).to_have_text("The past of this chart could not be had yet")
    failing = False

    def is_drawn() -> bool:
        page.clock.run_for(500)
        return "C 25.66" in page.locator(LEGEND).inner_text()

    gateway.wait_until(is_drawn)
    expect(page.locator("#chart-note")).to_have_text("")
    assert [text for text in complaints.texts if "503" not in text] == []


@pytest.mark.parametrize(
    ("zone", "interval", "words"),
    [
        ("Europe/Berlin", "1m", "14 Nov 2023 23:00"),
        ("America/New_York", "1m", "14 Nov 2023 17:00"),
        ("Asia/Kolkata", "1m", "15 Nov 2023 03:30"),
        ("America/New_York", "1d", "14 Nov 2023 UTC"),
    ],
)
def test_chart_has_the_readers_time_of_day(chromium: Browser, zone: str, interval: str, words: str) -> None:
    context = chromium.new_context(timezone_id=zone)
    try:
        page = context.new_page()
        gateway = FakeGateway(context, page, [])
        gateway.open("/#symbol=KCN/EUR")
        first = candle(0) if interval == "1m" else [OPENED // 86_400_000 * 86_400_000, *candle(0)[1:]]
        gateway.candles = [history(first)]
        if interval != "1m":
            page.locator(f"input[name=interval][value='{interval}']").dispatch_event("click")
        channel = f"candles.KCN/EUR.{interval}"
        gateway.wait_until(lambda: channel in gateway.channels)
        gateway.tell(channel, {"candles": [first], "snapshot": True})
        expect(page.locator(LEGEND)).to_contain_text(words)
    finally:
        context.close()


def test_chart_is_read_by_keys_and_by_the_pointer(page: Page, gateway: FakeGateway) -> None:
    show(gateway, *(candle(minute, f"25.{minute + 10}") for minute in range(40)))
    legend, spoken = page.locator(LEGEND), page.locator("#candle-spoken")
    page.focus("#candles")
    page.keyboard.press("ArrowLeft")
    expect(spoken).to_contain_text("C 25.49")
    page.keyboard.press("ArrowLeft")
    expect(spoken).to_contain_text("C 25.48")
    page.keyboard.press("PageUp")
    expect(spoken).to_contain_text("C 25.38")
    page.keyboard.press("Home")
    expect(spoken).to_contain_text("C 25.10")
    page.keyboard.press("Escape")
    expect(spoken).to_have_text("")
    expect(legend).to_contain_text("C 25.49")
    box = page.locator("#candles").bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + box["width"] / 3, box["y"] + box["height"] / 2)
    expect(legend).not_to_contain_text("C 25.49")


def visible(page: Page) -> str:
    """What the chart's canvases show, as far as that tells one view from another."""
    script = "(canvases) => canvases.map((canvas) => canvas.toDataURL()).join()"
    told: str = page.locator("#candles canvas").evaluate_all(script)
    return hashlib.sha256(told.encode()).hexdigest()


def move_until_another(page: Page, gateway: FakeGateway, move: Callable[[], object]) -> None:
    """Another view than the one that was still."""
    before = ""
    while before != (before := visible(page)):
        page.evaluate("() => new Promise(requestAnimationFrame)")
    move()
    gateway.wait_until(lambda: visible(page) != before)


def test_chart_is_zoomed_and_moved(page: Page, gateway: FakeGateway) -> None:
    show(gateway, *(candle(minute, f"25.{minute % 90 + 10}") for minute in range(400)))
    page.focus("#candles")
    box = page.locator("#candles").bounding_box()
    assert box is not None
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    page.mouse.move(x, y)

    def drag() -> None:
        page.mouse.down()
        page.mouse.move(x + 120, y, steps=4)
        page.mouse.up()
        page.mouse.move(x, y)

    for move in (
        lambda: page.mouse.wheel(0, -300),
        drag,
        lambda: page.keyboard.press("+"),
        lambda: page.keyboard.press("Shift+ArrowLeft"),
    ):
        move_until_another(page, gateway, move)


def test_depth_adds_up_from_the_spread_outwards(page: Page, gateway: FakeGateway) -> None:
    depth = page.locator("#depth")
    words = "Depth of KCN/EUR: 3.500 bid down to 24.80, 4.250 offered up to 25.20"
    expect(depth).to_have_attribute("aria-label", words)
    box = depth.bounding_box()
    assert box is not None
    # Between two prices there is what the one nearer to the spread has.
    page.mouse.move(box["x"] + box["width"] - 10, box["y"] + 40)
    expect(page.locator("#depth-note")).to_have_text("0.250 KCN offered up to 25.10")
    page.mouse.move(box["x"] + 10, box["y"] + 40)
    expect(page.locator("#depth-note")).to_have_text("1.500 KCN bid down to 24.90")
    gateway.book(asks=[("25.20", "4", "0")])
    expect(depth).to_have_attribute(
        "aria-label", words.replace("4.250 offered up to 25.20", "0.250 offered up to 25.10")
    )


def test_quote_shows_the_last_24_hours(page: Page, gateway: FakeGateway) -> None:
    day = {"high_price_24h": 26, "low_price_24h": "24.10", "volume_24h": "1234567890.123456789", "value_24h": 1}
    ticker = json.loads(json.dumps({"last_price": 25, "best_bid_price": 0, "best_ask_price": 0, **day}))
    gateway.tell_tickers({"KCN/EUR": {**ticker, "change_24h": "-0.50", "mark_timestamp": 1}}, snapshot=True)
    expect(page.locator("#day-high")).to_have_text("26.00")
    expect(page.locator("#day-low")).to_have_text("24.10")
    expect(page.locator("#day-volume")).to_have_text("1234567890.123456789")
    expect(page.locator("#day-change")).to_have_text("-0.50 (-1.96 %)")
    expect(page.locator("#day-change")).to_have_attribute("data-direction", "down")
