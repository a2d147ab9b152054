"""`GET /api/candles` over real sockets, from a market that a test tells what there is."""

from __future__ import annotations

import json
from typing import Any

import pytest

import handlers.candles
from core.market.candle_series import MOST_CANDLES
from handlers.candles import DEFAULT_LIMIT
from tests.core.driven_hub import DrivenHub
from tests.core.fakes import delta, fill, snapshot
from tests.handlers.test_market_data import MarketServer
from tests.handlers.wire import Response, connected, serving

MINUTE_MS = 60_000
ALL = "/api/candles?symbol=KCN/EUR"


class Server(MarketServer):
    """The same for this route."""

    async def ask(self, target: str, method: str = "GET", **given: str) -> Response:
        async with serving(self.context, handlers.candles.routes(self.context, self.data)) as port:
            async with connected(port) as connection:
                return await connection.ask(method, target, **given)


def traded(count: int = 5) -> Server:
    """A trade in each of so many minutes, the price its number from 1 on; now is in the last of them."""
    driven = DrivenHub()
    driven.wall_ms -= driven.wall_ms % 3_600_000
    for number in range(count):
        driven.say((0, number, fill(price=str(number + 1), quantity="1", timestamp=driven.times.now_ms())))
        driven.pass_time(60 if number < count - 1 else 1)
    return Server(driven)


def closes(answer: Response) -> list[str]:
    return [row[4] for row in answer.json()["candles"]]


@pytest.mark.gen_test
async def test_candles_are_told_with_decimals_as_strings_oldest_first() -> None:
    server = traded(2)
    answer = await server.ask(ALL)
    began_ms = server.driven.wall_ms
    assert answer.status == 200
    assert answer.json() == {
        "symbol": "KCN/EUR",
        "interval": "1m",
        "epoch": server.driven.epoch,
        "seq": 1,
        "candles": [
            [began_ms, "1", "1", "1", "1", "1", "1", 1, True],
            [began_ms + MINUTE_MS, "2", "2", "2", "2", "1", "2", 1, False],
        ],
        "stale": False,
    }
    hours = (await server.ask(f"{ALL}&interval=1h")).json()
    assert (hours["interval"], hours["candles"]) == ("1h", [[began_ms, "1", "2", "1", "2", "2", "3", 2, False]])


@pytest.mark.parametrize(
    ("query", "told"),
    [("&limit=2", "45"), ("&from=1", "2345"), ("&from=1&limit=2", "23"), ("&to=2", "123"), ("&from=1&to=2", "23"),
     ("&from=9", "")],
)  # fmt: skip
@pytest.mark.gen_test
async def test_candles_are_those_that_open_between_two_times(query: str, told: str) -> None:
    server = traded()
    for name in ("from", "to"):
        for number in range(10):
            query = query.replace(f"{name}={number}", f"{name}={server.driven.wall_ms + number * MINUTE_MS}")
    assert closes(await server.ask(ALL + query)) == list(told)


@pytest.mark.gen_test
async def test_candles_are_as_many_as_are_asked_for_and_at_most_what_is_kept() -> None:
    server = traded(1)
    server.driven.wall_ms += 10 * MOST_CANDLES * MINUTE_MS
    assert len(closes(await server.ask(ALL))) == DEFAULT_LIMIT
    assert len(closes(await server.ask(f"{ALL}&limit={MOST_CANDLES}"))) == MOST_CANDLES
    assert len(closes(await server.ask(f"{ALL}&limit={MOST_CANDLES}&from=0&to=999999999999999"))) == MOST_CANDLES


@pytest.mark.parametrize(
    ("target", "fields"),
    [
        ("/api/candles", ["symbol"]),
        ("/api/candles?symbol=KCN", ["symbol"]),
        (f"{ALL}&interval=2m", ["interval"]),
        (f"{ALL}&interval=", ["interval"]),
        (f"{ALL}&limit=0", ["limit"]),
        (f"{ALL}&limit=1501&from=-1&to=1.5", ["from", "to", "limit"]),
        (f"{ALL}&from=1000000000000000", ["from"]),
        (f"{ALL}&to=x", ["to"]),
        (f"{ALL}&from=3&to=2", ["from"]),
    ],
)
@pytest.mark.gen_test
async def test_query_that_breaks_a_rule_is_refused_by_the_names_of_its_parameters(
    target: str, fields: list[str]
) -> None:
    answer = await traded().ask(target)
    assert (answer.status, [error["field"] for error in answer.json()["errors"]]) == (422, fields)


@pytest.mark.gen_test
async def test_symbol_that_was_never_seen_is_not_found_and_one_without_a_trade_has_none() -> None:
    server = traded()
    server.driven.say((0, 99, snapshot("A/B")))
    assert (await server.ask("/api/candles?symbol=NO/SUCH")).status == 404
    assert "NO/SUCH" not in server.driven.market._markets
    answer = (await server.ask("/api/candles?symbol=A/B")).json()
    assert (answer["seq"], answer["candles"]) == (-1, [])


@pytest.mark.gen_test
async def test_partition_that_is_not_read_is_told_and_one_that_is_read_back_is_unavailable() -> None:
    server = traded()
    server.driven.hub.partition_changes.set_unread({0})
    stale = (await server.ask(ALL)).json()
    assert (stale["stale"], len(stale["candles"])) == (True, 5)
    server.driven.lose(0)
    server.driven.hub.partition_changes.begin(0, 0)
    assert (await server.ask(ALL)).status == 503


@pytest.mark.gen_test
async def test_answer_holds_until_a_fill_or_the_clock_changes_it() -> None:
    server = traded()
    driven = server.driven
    past = f"{ALL}&to={driven.wall_ms + 2 * MINUTE_MS}"

    async def tags() -> list[Any]:
        answers = [await server.ask(target) for target in (ALL, past)]
        for target, answer in zip((ALL, past), answers, strict=True):
            again = await server.ask(target, **{"If-None-Match": answer.headers["etag"]})
            assert (again.status, again.body, again.headers["etag"]) == (304, b"", answer.headers["etag"])
        return [answer.headers["etag"] for answer in answers]

    first = await tags()
    driven.pass_time(10)
    driven.say((0, 50, delta()))
    assert await tags() == first
    driven.pass_time(60)
    later = await tags()
    assert (later[0] == first[0], later[1] == first[1]) == (False, True)
    driven.say((0, 51, fill(timestamp=driven.times.now_ms())))
    assert not {*await tags()} & {*first, *later}


@pytest.mark.gen_test
async def test_answers_of_another_epoch_or_from_another_time_on_have_other_tags() -> None:
    server, other = traded(), traded()
    tag = (await server.ask(ALL)).headers["etag"]
    other.driven.epoch = "another"
    assert (await other.ask(ALL, **{"If-None-Match": tag})).status == 200
    driven = DrivenHub()
    driven.wall_ms = server.driven.wall_ms
    driven.say((0, 4, fill(price="5", quantity="1", timestamp=driven.times.now_ms())))
    knows_less = await Server(driven).ask(ALL, **{"If-None-Match": tag})
    assert (knows_less.status, knows_less.json()["seq"], closes(knows_less)) == (200, 4, ["5"])


@pytest.mark.gen_test
async def test_market_without_a_trade_has_a_tag_too() -> None:
    driven = DrivenHub()
    driven.say((0, 0, snapshot("KCN/EUR", 1)))
    answer = await Server(driven).ask(ALL)
    assert (answer.status, closes(answer)) == (200, [])
    assert (await Server(driven).ask(ALL, **{"If-None-Match": answer.headers["etag"]})).status == 304


@pytest.mark.gen_test
async def test_answer_to_head_is_that_to_get_without_the_body() -> None:
    server = traded()
    get, head = [await server.ask(ALL, method, Origin="https://page.example") for method in ("GET", "HEAD")]
    for name in ("etag", "cache-control", "content-type", "content-length", "access-control-allow-origin"):
        assert get.headers[name] == head.headers[name]
    assert (head.body, json.loads(get.body)["symbol"]) == (b"", "KCN/EUR")
    assert "s-maxage" in get.headers["cache-control"]
