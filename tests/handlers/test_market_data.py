"""`/api/time`, `/api/book` and their like over real sockets, from a market that a test tells what there is."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest

from core.config.settings import Settings
from core.orders.pieces import GiveWay, nobody_else
from core.telemetry.metrics import Metrics
from handlers.market_data import (
    MAX_KEPT,
    MAX_KEPT_CHARACTERS,
    TICKERS_A_PIECE,
    AllTickers,
    MarketData,
    WrittenBooks,
    routes,
)
from handlers.problems import Context, Status
from tests.core.admission import admission, taker
from tests.core.driven_hub import DrivenHub
from tests.core.fakes import delta, fill, snapshot
from tests.handlers.wire import Response, connected, serving

NOW = 1_700_000_000.5
PAGE = "https://page.example"


class MarketServer:
    """What is known of the market, and who asks."""

    def __init__(self, driven: DrivenHub, **more: Any) -> None:
        self.driven = driven
        settings = Settings()
        limits = {name: more.pop(name) for name in [*more] if hasattr(settings.limits, name)}
        self.context = Context(
            replace(
                settings,
                http=replace(settings.http, allowed_origins=frozenset({PAGE})),
                limits=replace(settings.limits, **limits),
            ),
            Metrics(),
            Status(),
            admission(**more),
            lambda: NOW,
        )
        self.give_way: GiveWay = nobody_else
        self.data = MarketData(driven.market, lambda: driven.epoch, lambda: self.give_way())
        self.port = 0

    async def get(self, target: str, method: str = "GET", **headers: str) -> Response:
        async with connected(self.port) as connection:
            return await connection.ask(method, target, **headers)


@asynccontextmanager
async def serve(driven: DrivenHub | None = None, **more: Any) -> AsyncIterator[MarketServer]:
    server = MarketServer(driven or DrivenHub(), **more)
    async with serving(server.context, routes(server.context, server.data)) as port:
        server.port = port
        yield server


@pytest.mark.gen_test
async def test_time_is_our_clocks_and_comes_from_no_cache() -> None:
    async with serve() as server:
        answer = await server.get("/api/time")
        head = await server.get("/api/time", "HEAD")
    assert (answer.status, answer.json()) == (200, {"time_ms": 1_700_000_000_500})
    assert answer.headers["cache-control"] == "no-store"
    assert (head.status, head.headers["content-length"], head.body) == (200, str(len(answer.body)), b"")


def levels(*pairs: tuple[str, str]) -> list[dict[str, str]]:
    return [{"price": price, "quantity": quantity} for price, quantity in pairs]


BIDS = [("1.40", "2"), ("1.39", "0.50"), ("1.31", "1E-7")]
ASKS = [("1.61", "3.0"), ("1.69", "1"), ("1.70", "4")]


def known(**more: Any) -> DrivenHub:
    """Of KCN/EUR a book, as of offset 4, and a trade; of A/B a trade alone."""
    driven = DrivenHub(**more)
    book = snapshot(sequence=7, bids=levels(*BIDS), asks=levels(*ASKS))
    driven.say((0, 3, book), (0, 4, fill(price="1.50", quantity="2", timestamp=driven.wall_ms)))
    driven.say((1, 9, fill("A/B", price="3", quantity="1", timestamp=driven.wall_ms)))
    return driven


# Queries.


@pytest.mark.parametrize(
    ("target", "fields"),
    [
        ("/api/book", ["symbol"]),
        ("/api/book?symbol=KCN", ["symbol"]),
        ("/api/book?symbol=%ff", ["symbol"]),
        ("/api/book?symbol=KCN/EUR&symbol=A/B", ["symbol"]),
        ("/api/book?depth=0&grouping=0.5", ["symbol", "depth", "grouping"]),
        ("/api/book?symbol=KCN/EUR&depth=1001", ["depth"]),
        ("/api/book?symbol=KCN/EUR&depth=", ["depth"]),
        ("/api/book?symbol=KCN/EUR&grouping=1000000001", ["grouping"]),
        ("/api/ticker?symbol=KCN", ["symbol"]),
        ("/api/trades?limit=0", ["symbol", "limit"]),
        ("/api/trades?symbol=KCN/EUR&limit=1001", ["limit"]),
        ("/api/trades?symbol=KCN/EUR&before=4&after=0-", ["before", "after", "before"]),
        ("/api/trades?symbol=KCN/EUR&before=0-4&after=0-3", ["before"]),
    ],
)
@pytest.mark.gen_test
async def test_query_that_breaks_a_rule_is_refused_by_the_names_of_its_parameters(
    target: str, fields: list[str]
) -> None:
    async with serve(known()) as server:
        answer = await server.get(target)
    body = answer.json()
    assert (answer.status, body["type"]) == (422, "urn:mexchange:problem:invalid-fields")
    assert [error["field"] for error in body["errors"]] == fields
    assert answer.headers["cache-control"] == "no-store"
    assert "etag" not in answer.headers


@pytest.mark.gen_test
async def test_grouping_is_refused_where_there_is_no_tick() -> None:
    async with serve(known(tick_of=lambda _symbol: None)) as server:
        refused = await server.get("/api/book?symbol=KCN/EUR&grouping=1")
        answer = await server.get("/api/book?symbol=KCN/EUR&grouping=none")
    assert (refused.status, [error["field"] for error in refused.json()["errors"]]) == (422, ["grouping"])
    assert answer.status == 200


@pytest.mark.parametrize("path", ["/api/book", "/api/ticker", "/api/trades"])
@pytest.mark.gen_test
async def test_symbol_that_was_never_seen_is_not_found_and_nothing_is_kept_of_it(path: str) -> None:
    async with serve(known()) as server:
        answer = await server.get(f"{path}?symbol=NO/SUCH")
        assert server.driven.market.symbols == ["A/B", "KCN/EUR"]
        assert server.driven.market._markets.keys() == {"A/B", "KCN/EUR"}
    assert (answer.status, answer.json()["type"]) == (404, "urn:mexchange:problem:not-found")


@pytest.mark.parametrize(
    "target", ["/api/book?symbol=KCN/EUR", "/api/book?symbol=NO/SUCH", "/api/ticker", "/api/trades?symbol=KCN/EUR"]
)
@pytest.mark.gen_test
async def test_market_that_is_still_read_back_is_unavailable(target: str) -> None:
    driven = DrivenHub(served=())
    async with serve(driven) as server:
        unassigned = await server.get(target)
        driven.hub.partition_changes.begin(0, 0)
        driven.say((0, 0, snapshot()), live=False)
        read_back = await server.get(target)
        driven.hub.partition_changes.serve([0])
        served = await server.get(target)
    for answer in (unassigned, read_back):
        assert (answer.status, answer.json()["type"]) == (503, "urn:mexchange:problem:unavailable")
        assert answer.headers["retry-after"] == "1"
    assert served.status == (404 if "NO" in target else 200)


@pytest.mark.parametrize(
    "target", ["/api/time", "/api/book?symbol=KCN/EUR", "/api/ticker", "/api/trades?symbol=KCN/EUR"]
)
@pytest.mark.gen_test
async def test_requests_of_an_address_are_limited(target: str) -> None:
    limiter = taker("address", 1, 1)._limiter
    async with serve(known(), address_requests=limiter, address_requests_per_second=1) as server:
        first, second = await server.get(target), await server.get(target)
    assert (first.status, second.status, second.headers["retry-after"]) == (200, 429, "1")


@pytest.mark.parametrize(
    "target", ["/api/time", "/api/book?symbol=KCN/EUR", "/api/ticker", "/api/trades?symbol=KCN/EUR"]
)
@pytest.mark.gen_test
async def test_pages_of_allowed_origins_may_read_answers(target: str) -> None:
    async with serve(known()) as server:
        shared = await server.get(target, Origin=PAGE)
        other = await server.get(target, Origin="https://elsewhere.example")
    assert shared.headers["access-control-allow-origin"] == PAGE
    assert "access-control-allow-origin" not in other.headers
    assert shared.headers["vary"] == other.headers["vary"] == "Origin"


# Caches.


@pytest.mark.parametrize(
    "target", ["/api/book?symbol=KCN/EUR", "/api/ticker?symbol=KCN/EUR", "/api/ticker", "/api/trades?symbol=KCN/EUR"]
)
@pytest.mark.gen_test
async def test_answer_that_still_holds_is_not_sent_again(target: str) -> None:
    driven = known()
    async with serve(driven) as server:
        whole = await server.get(target)
        tag = whole.headers["etag"]
        again = await server.get(target, If_None_Match=f'"other", W/{tag}')
        head = await server.get(target, "HEAD")
    assert (again.status, again.body, again.headers["etag"]) == (304, b"", tag)
    for answer in (whole, again, head):
        assert answer.headers["cache-control"] == "public, max-age=0, s-maxage=1, must-revalidate"
    assert (head.status, head.headers["etag"], head.headers["content-length"]) == (200, tag, str(len(whole.body)))
    assert whole.headers["content-type"] == "application/json"


@pytest.mark.gen_test
async def test_answers_differ_by_their_tags_when_the_market_the_trust_in_it_or_the_epoch_does() -> None:
    driven = known()
    async with serve(driven) as server:

        async def tags() -> tuple[str, str]:
            book = await server.get("/api/book?symbol=KCN/EUR")
            ticker = await server.get("/api/ticker?symbol=KCN/EUR")
            return book.headers["etag"], ticker.headers["etag"]

        seen = [await tags()]
        driven.say((0, 5, delta()))
        seen.append(await tags())
        driven.hub.partition_changes.set_unread({0})
        seen.append(await tags())
        driven.epoch = "another"
        seen.append(await tags())
    books, tickers = zip(*seen, strict=True)
    assert len(set(books)) == 4
    assert len(set(tickers)) >= 3
    assert tickers[2] != tickers[3]


@pytest.mark.gen_test
async def test_ticker_differs_by_its_tag_when_trades_have_left_the_24_hours() -> None:
    driven = known()
    async with serve(driven) as server:
        before = await server.get("/api/ticker?symbol=KCN/EUR")
        driven.wall_ms += 86_400_000
        after = await server.get("/api/ticker?symbol=KCN/EUR", If_None_Match=before.headers["etag"])
    assert after.status == 200
    assert (before.json()["volume_24h"], after.json()["volume_24h"]) == ("2", "0")
    assert after.json()["seq"] == before.json()["seq"]


# The book.


@pytest.mark.gen_test
async def test_book_has_every_digit_and_says_of_which_moment_it_is() -> None:
    driven = known()
    async with serve(driven) as server:
        answer = await server.get("/api/book?symbol=KCN/EUR&utm_source=x")
        driven.say((0, 5, delta(sequence=8, price="1.35", timestamp=driven.wall_ms + 250)))
        after = await server.get("/api/book?symbol=KCN/EUR&depth=3")
    assert answer.json() == {
        "symbol": "KCN/EUR",
        "epoch": driven.epoch,
        "seq": 4,
        "sequence": 7,
        "bids": [["1.40", "2"], ["1.39", "0.50"], ["1.31", "0.0000001"]],
        "asks": [["1.61", "3.0"], ["1.69", "1"], ["1.70", "4"]],
        "time": driven.wall_ms / 1000,
        "stale": False,
    }
    changed = after.json()
    assert (changed["seq"], changed["sequence"], changed["time"]) == (5, 8, driven.wall_ms / 1000 + 0.25)
    assert changed["bids"] == [["1.40", "2"], ["1.39", "0.50"], ["1.35", "5"]]


@pytest.mark.gen_test
async def test_book_is_summed_into_steps_as_a_channel_sums_it() -> None:
    driven = known()
    async with serve(driven) as server:
        answer = (await server.get("/api/book?symbol=KCN/EUR&grouping=10&depth=1")).json()
        both = (await server.get("/api/book?symbol=KCN/EUR&grouping=10&depth=all")).json()
    assert (answer["bids"], answer["asks"]) == ([["1.40", "2"]], [["1.70", "8"]])
    assert (both["bids"], both["asks"]) == ([["1.40", "2"], ["1.30", "0.5000001"]], [["1.70", "8"]])
    told = driven.connect("book.KCN/EUR.10.all.raw").messages()[0]["notification"]
    assert [[float(price), float(amount)] for price, amount in both["bids"]] == [
        [p, q] for p, _, q in told["bid_changes"]
    ]
    assert [[float(price), float(amount)] for price, amount in both["asks"]] == [
        [p, q] for p, _, q in told["ask_changes"]
    ]


@pytest.mark.parametrize("grouping", ["none", "2"])
@pytest.mark.gen_test
async def test_large_book_is_written_in_pieces_and_is_of_one_moment_all_the_same(grouping: str) -> None:
    driven = DrivenHub()
    many = [(f"{price}.00", "1") for price in range(1000, 0, -1)]
    driven.say((0, 0, snapshot(bids=levels(*many), asks=levels(("2000", "1")))))
    async with serve(driven) as server:
        offsets = iter(range(1, 1000))

        async def give_way() -> None:
            offset = next(offsets)
            driven.say((0, offset, delta(price=f"{offset}.00", sequence=offset)))

        server.give_way = give_way
        answer = (await server.get(f"/api/book?symbol=KCN/EUR&depth=all&grouping={grouping}")).json()
    assert next(offsets) > 9
    assert answer["seq"] == 0
    assert answer["bids"] == [list(level) for level in many]


@pytest.mark.parametrize("cause", ["crossed", "unread", "unknown"])
@pytest.mark.gen_test
async def test_book_that_cannot_be_trusted_is_told_as_stale_and_without_levels(cause: str) -> None:
    driven = known()
    if cause == "crossed":
        driven.say((0, 5, delta(price="9", sequence=9)))
    elif cause == "unread":
        driven.hub.partition_changes.set_unread({0})
    symbol, seq = ("A/B", 9) if cause == "unknown" else ("KCN/EUR", 5 if cause == "crossed" else 4)
    async with serve(driven) as server:
        answer = (await server.get(f"/api/book?symbol={symbol}")).json()
    assert (answer["stale"], answer["bids"], answer["asks"], answer["seq"]) == (True, [], [], seq)
    assert answer["sequence"] == {"crossed": 9, "unread": 7, "unknown": None}[cause]


def test_books_that_are_kept_are_neither_many_nor_long_nor_of_before() -> None:
    written = WrittenBooks()
    written.keep(("A/B", 50, None), "epoch-1", "text")
    assert written.find(("A/B", 50, None), "epoch-1") == "text"
    assert written.find(("A/B", 50, None), "epoch-2") is None
    assert written.find(("A/B", 50, 1), "epoch-1") is None
    written.keep(("A/B", None, None), "epoch-1", "x" * (MAX_KEPT_CHARACTERS + 1))
    assert written.find(("A/B", None, None), "epoch-1") is None
    for number in range(MAX_KEPT - 1):
        written.keep((f"S{number}/EUR", None, None), "epoch-1", "text")
    assert written.find(("A/B", 50, None), "epoch-1") == "text"
    written.keep(("ONE/MORE", None, None), "epoch-1", "text")
    assert written.find(("A/B", 50, None), "epoch-1") is None
    assert written.find(("ONE/MORE", None, None), "epoch-1") == "text"


@pytest.mark.gen_test
async def test_book_is_written_once_after_each_event() -> None:
    driven = DrivenHub()
    driven.say((0, 0, snapshot(bids=levels(*((f"{price}", "1") for price in range(150, 0, -1))), asks=[])))
    pieces = 0
    async with serve(driven) as server:

        async def give_way() -> None:
            nonlocal pieces
            pieces += 1

        server.give_way = give_way
        first, second = [await server.get("/api/book?symbol=KCN/EUR&depth=all") for _ in range(2)]
        assert (first.body == second.body, pieces) == (True, 1)
        driven.say((0, 1, delta(price="7")))
        third = await server.get("/api/book?symbol=KCN/EUR&depth=all")
    assert (third.json()["seq"], ["7", "5"] in third.json()["bids"], pieces) == (1, True, 2)


# Tickers.


@pytest.mark.gen_test
async def test_ticker_says_what_the_channel_says_with_decimals_as_strings() -> None:
    driven = known()
    async with serve(driven) as server:
        answer = (await server.get("/api/ticker?symbol=KCN/EUR")).json()
        bookless = (await server.get("/api/ticker?symbol=A/B")).json()
        driven.hub.partition_changes.set_unread({0})
        stale = (await server.get("/api/ticker?symbol=KCN/EUR")).json()
    driven.hub.partition_changes.set_unread(set())
    head = {"symbol": "KCN/EUR", "epoch": driven.epoch, "seq": 4}
    [message] = driven.connect("ticker.KCN/EUR.raw").messages()
    told = message["notification"]
    assert {**answer, **head} == answer
    members = answer.keys() - head.keys() - {"stale"}
    assert {name: float(answer[name]) for name in members} == {name: told[name] for name in members}
    assert (answer["mark_price"], answer["best_bid_price"], answer["stale"]) == ("1.505", "1.40", False)
    assert all(isinstance(answer[name], str) for name in members - {"mark_timestamp"})
    assert (bookless["mark_price"], bookless["best_bid_price"], bookless["stale"]) == ("3", "0", False)
    assert (stale["stale"], stale["seq"]) == (True, 4)
    assert {stale[name] for name in members - {"mark_timestamp"}} == {"0"}


@pytest.mark.gen_test
async def test_tickers_of_all_symbols_are_written_once_a_second_however_many_ask() -> None:
    driven = known()
    now = [0.0]
    tickers = AllTickers(MarketData(driven.market, lambda: driven.epoch, nobody_else), lambda: now[0])
    first, beside = await asyncio.gather(tickers.text(), tickers.text())
    driven.say((0, 5, delta()))
    now[0] = 0.9
    kept = await tickers.text()
    now[0] = 1.0
    anew = await tickers.text()
    assert first is beside is kept
    told, later = json.loads(f"{{{first}}}"), json.loads(f"{{{anew}}}")
    assert (told["epoch"], told["seq"]) == (driven.epoch, {"0": 4, "1": 9, "2": -1, "3": -1})
    assert {symbol: ticker["seq"] for symbol, ticker in told["tickers"].items()} == {"A/B": 9, "KCN/EUR": 4}
    assert later["tickers"]["KCN/EUR"]["seq"] == 5


@pytest.mark.gen_test
async def test_tickers_leave_out_a_symbol_whose_partition_is_lost_while_they_are_written() -> None:
    driven = DrivenHub()
    driven.say(*((0, offset, fill(f"S{offset:02}/EUR")) for offset in range(TICKERS_A_PIECE)), (1, 0, fill("T/EUR")))

    async def give_way() -> None:
        driven.lose(1)

    text = await AllTickers(MarketData(driven.market, lambda: driven.epoch, give_way)).text()
    assert len(json.loads(f"{{{text}}}")["tickers"]) == TICKERS_A_PIECE


# Trades.


@pytest.mark.gen_test
async def test_trades_come_newest_first_and_after_one_oldest_first() -> None:
    driven = known()
    for offset in range(5, 155):
        driven.say((0, offset, fill(price=f"{offset}", quantity="0.10", timestamp=driven.wall_ms + offset)))
    async with serve(driven) as server:

        async def trades(query: str) -> tuple[list[str], bool]:
            answer = (await server.get(f"/api/trades?symbol=KCN/EUR{query}")).json()
            assert (answer["symbol"], answer["epoch"], answer["seq"], answer["stale"]) == (
                "KCN/EUR", driven.epoch, 154, False,
            )  # fmt: skip
            first = answer["trades"][0]
            offset = int(first["trade_id"].partition("-")[2])
            assert (first["price"], first["quantity"], first["time"]) == (
                f"{offset}", "0.10", (driven.wall_ms + offset) / 1000,
            )  # fmt: skip
            return [trade["trade_id"] for trade in answer["trades"]], answer["gap"]

        assert await trades("") == ([f"0-{offset}" for offset in range(154, 54, -1)], False)
        assert await trades("&limit=2&before=0-100") == (["0-99", "0-98"], False)
        assert await trades("&limit=2&after=0-100") == (["0-101", "0-102"], False)
        assert await trades("&limit=130&after=0-20") == ([f"0-{offset}" for offset in range(21, 151)], False)
        assert await trades("&limit=1&after=0-4") == (["0-5"], False)
        other = (await server.get("/api/trades?symbol=KCN/EUR&limit=1&after=1-9")).json()
    assert ([trade["trade_id"] for trade in other["trades"]], other["gap"]) == (["0-4"], True)


@pytest.mark.gen_test
async def test_trades_of_an_unread_partition_are_told_as_stale() -> None:
    driven = known()
    driven.hub.partition_changes.set_unread({0})
    async with serve(driven) as server:
        answer = (await server.get("/api/trades?symbol=KCN/EUR")).json()
    assert (answer["stale"], len(answer["trades"])) == (True, 1)
