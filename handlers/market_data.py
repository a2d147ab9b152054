"""`/api/time` and what is known of the market, over REST (docs/contract.md#market-data).

Each answer is of one moment and says which: `epoch` and `seq`, as the channels do. Nothing is read for it and nothing made
up for a symbol that nobody has seen: answers are written from what is there, long ones a piece at a time.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Final
from zlib import crc32

from core.channels.names import read_depth, read_grouping
from core.errors import RequestError
from core.market.book_views import step_of
from core.market.kept_trades import last_trades, read_trade_id, trade_text, trades_after, trades_before
from core.market.market import Market
from core.market.rest_answers import LevelTexts, add_to_steps, levels_text, step_levels, ticker_text
from core.market.symbol_market import SymbolMarket
from core.market.trade import seconds_text
from core.messages.events import Level
from core.messages.model import Side
from core.messages.query import Query, read_symbol, whole_number
from core.orders.pieces import PIECE, GiveWay, in_pieces
from handlers.bodies import BaseHandler
from handlers.problems import Context, Refusal, refusal_of

# Whoever has an answer asks whether it still holds (its ETag says); caches that many share may give it to all for a second.
CACHED: Final = "public, max-age=0, s-maxage=1, must-revalidate"

# Where nobody says how many levels of each side.
DEFAULT_DEPTH: Final = 100
# Where nobody says how many trades, and at most.
DEFAULT_TRADES: Final = 100
MAX_TRADES: Final = 1000
# Of books that were written, 2 MB at most.
MAX_KEPT: Final = 128
MAX_KEPT_CHARACTERS: Final = 16_384
# Those of all symbols are written anew after so long at the soonest.
SHARED_SECONDS: Final = 1.0
# Some 30 us each.
TICKERS_A_PIECE: Final = 20


@dataclass(frozen=True, slots=True)
class MarketData:
    """What answers are written from. `epoch` names the life of the market topic."""

    market: Market
    epoch: Callable[[], str]
    give_way: GiveWay

    def is_fresh(self, market: SymbolMarket) -> bool:
        """Whether what is known of it is the engine's of now, as far as can be told; else nobody is shown its levels."""
        return not market.book.stale and market.partition not in self.market.partitions.unread


class MarketDataHandler(BaseHandler):
    """What all routes share: a checked query in; an answer that says of when it is, and how long it may be kept."""

    # Tornado calls it with this route's own arguments, and nobody through the base class.
    def initialize(self, context: Context, data: MarketData) -> None:  # type: ignore[override]
        """`data` is what answers are written from."""
        super().initialize(context)
        self.data = data

    def query(self) -> Query:
        """What was asked, to be read and then to be `checked`. Raises `Refusal` (429)."""
        self.take_request()
        return Query(self.request.query_arguments)

    def checked(self, query: Query) -> None:
        """All of it is as it has to be. Raises `Refusal` (422) with every parameter that is not."""
        try:
            query.check()
        except RequestError as error:
            raise refusal_of(error) from error

    def symbol_market(self, symbol: str) -> SymbolMarket:
        """What is known of a symbol. Raises `Refusal`: 404 if it was never seen, 503 if that is not known yet."""
        market, partitions = self.data.market.find(symbol), self.data.market.partitions
        if market is None:
            if not partitions.are_warm:
                raise self.not_yet()
            raise Refusal("not-found", f"{symbol}: no event of it has been seen")
        if market.partition not in partitions.served:
            raise self.not_yet()
        return market

    def not_yet(self) -> Refusal:
        """The refusal of whoever asks while the past is still read."""
        return Refusal(
            "unavailable", "the market topic is still read back", headers={"Retry-After": "1"}, is_common=True
        )

    def is_held(self, as_of: str) -> bool:
        """Name the answer by what it hangs on, epoch and seq or more; whether the client has it, and was told so (304).

        The rest of the request's target need not be in the name: what differs by that has another address.
        """
        tag = as_of.replace('"', "")
        self._headers["Etag"] = f'"{tag}"'
        self._headers["Cache-Control"] = CACHED
        if "If-None-Match" not in self.request.headers or not self.check_etag_header():
            return False
        self.set_status(304)
        self.finish()
        return True

    def answer_cached(self, text: str) -> None:
        """Finish with a body that is JSON already, after `is_held`."""
        self._headers["Content-Type"] = "application/json"
        self._headers["X-Content-Type-Options"] = "nosniff"
        self.finish(text)


class TimeHandler(MarketDataHandler):
    """`GET /api/time`."""

    def get(self) -> None:
        """Our clock, in milliseconds; never from a cache."""
        self.take_request()
        self.answer(200, {"time_ms": int(self.context.clock() * 1000)})

    head = get


# Which symbol, how many levels, and how many ticks a step.
Window = tuple[str, int | None, int | None]


class WrittenBooks:
    """The last text of each window that was asked for lately: written once after each event, however many ask."""

    def __init__(self) -> None:
        self._texts: dict[Window, tuple[str, str]] = {}
        self._levels: dict[tuple[str, Side], LevelTexts] = {}

    def find(self, window: Window, as_of: str) -> str | None:
        """The text, if it is as of that."""
        kept = self._texts.get(window)
        return kept[1] if kept is not None and kept[0] == as_of else None

    def keep(self, window: Window, as_of: str, text: str) -> None:
        """In place of another one; neither many nor long ones."""
        if len(text) <= MAX_KEPT_CHARACTERS:
            if len(self._texts) >= MAX_KEPT:
                self._texts.clear()
            self._texts[window] = as_of, text

    def levels_of(self, symbol: str, side: Side) -> LevelTexts:
        """What is kept of the levels of a side, for no more than `PIECE` of them at once."""
        if len(self._levels) >= 2 * MAX_KEPT:
            self._levels.clear()
        return self._levels.setdefault((symbol, side), LevelTexts())


class BookHandler(MarketDataHandler):
    """`GET /api/book`."""

    # Tornado calls it with this route's own arguments, and nobody through the base class.
    def initialize(self, context: Context, data: MarketData, written: WrittenBooks) -> None:  # type: ignore[override]
        """`written` is of all requests together."""
        super().initialize(context, data)
        self._written = written

    async def get(self) -> None:
        """The book as of one event: who goes on with `since` on `events.{symbol}` misses nothing."""
        query = self.query()
        symbol = query.need("symbol", read_symbol)
        depth = query.take("depth", read_depth, DEFAULT_DEPTH)
        grouping = query.take("grouping", read_grouping, None)
        self.checked(query)
        market = self.symbol_market(symbol)
        if grouping is not None and market.tick is None:
            query.refuse("grouping", f"{symbol} has no tick to be a multiple of")
            self.checked(query)
        is_shown = market.book.known and self.data.is_fresh(market)
        as_of = f"{self.data.epoch()}-{market.offset}-{'live' if is_shown else 'stale'}"
        if self.is_held(as_of):
            return
        window = symbol, depth, grouping
        text = self._written.find(window, as_of)
        if text is None:
            text = await self._write(market, depth, grouping, is_shown)
            self._written.keep(window, as_of, text)
        self.answer_cached(text)

    head = get

    async def _write(self, market: SymbolMarket, depth: int | None, grouping: int | None, is_shown: bool) -> str:
        book = market.book
        head = (
            f'{{"symbol":"{market.symbol}","epoch":{json.dumps(self.data.epoch())},"seq":{market.offset},'
            f'"sequence":{"null" if book.sequence is None else book.sequence},'
        )
        tail = f',"time":{seconds_text(market.time_ms)},"stale":{"false" if is_shown else "true"}}}'
        # Both sides before anything gives way: they are of one moment.
        taken = depth if grouping is None else None
        sides = [(side, book.levels(side, taken) if is_shown else []) for side in (Side.BID, Side.ASK)]
        if grouping is not None and market.tick is not None:
            step = step_of(market.tick, grouping)
            sides = [(side, await self._grouped(side, levels, step, depth)) for side, levels in sides]
        if grouping is None and max(len(levels) for _, levels in sides) <= PIECE:
            bids, asks = [self._written.levels_of(market.symbol, side).text(levels) for side, levels in sides]
        else:
            bids, asks = [await self._in_pieces(levels) for _, levels in sides]
        return f'{head}"bids":[{bids}],"asks":[{asks}]{tail}'

    async def _in_pieces(self, levels: list[Level]) -> str:
        return ",".join([levels_text(piece) async for piece in in_pieces(levels, self.data.give_way)])

    async def _grouped(self, side: Side, levels: list[Level], step: Decimal, depth: int | None) -> list[Level]:
        sums: dict[Decimal, Decimal] = {}
        async for piece in in_pieces(levels, self.data.give_way):
            add_to_steps(sums, side, piece, step)
            if depth is not None and len(sums) > depth:
                break
        return step_levels(sums)[:depth]


class AllTickers:
    """Every symbol's ticker, which is work: written once for all who ask within a second, as shared caches would."""

    def __init__(self, data: MarketData, clock: Callable[[], float] = time.monotonic) -> None:
        self._data = data
        self._clock = clock
        self._until = float("-inf")
        self._writing: asyncio.Future[str] | None = None

    async def text(self) -> str:
        """`"epoch":...,"seq":{partition: offset},"tickers":{symbol: ticker}`; each ticker is no older than those offsets."""
        if self._writing is None or self._clock() >= self._until:
            self._until = self._clock() + SHARED_SECONDS
            self._writing = asyncio.ensure_future(self._write())
        return await asyncio.shield(self._writing)

    async def _write(self) -> str:
        data, partitions = self._data, self._data.market.partitions
        epoch = json.dumps(data.epoch())
        seq = json.dumps({number: partitions.folded_to(number) for number in sorted(partitions.served)})
        written = []
        async for piece in in_pieces(data.market.on(partitions.served), data.give_way, TICKERS_A_PIECE):
            written += [
                f'"{market.symbol}":{{"seq":{market.offset},{ticker_text(market, data.is_fresh(market))}}}'
                for market in piece
                if market.partition is not None  # its partition was lost meanwhile
            ]
        return f'"epoch":{epoch},"seq":{seq},"tickers":{{{",".join(written)}}}'


class TickerHandler(MarketDataHandler):
    """`GET /api/ticker`."""

    # Tornado calls it with this route's own arguments, and nobody through the base class.
    def initialize(self, context: Context, data: MarketData, tickers: AllTickers) -> None:  # type: ignore[override]
        """`tickers` are those of all symbols."""
        super().initialize(context, data)
        self._tickers = tickers

    async def get(self) -> None:
        """Of one symbol; of all that were seen, without one."""
        query = self.query()
        symbol = query.take("symbol", read_symbol, None)
        self.checked(query)
        if symbol is not None:
            market = self.symbol_market(symbol)
            ticker = ticker_text(market, self.data.is_fresh(market))
            epoch = json.dumps(self.data.epoch())
            text = f'"symbol":"{symbol}","epoch":{epoch},"seq":{market.offset},{ticker}'
        elif self.data.market.partitions.are_warm:
            text = await self._tickers.text()
        else:
            raise self.not_yet()
        # The 24 hours go on without an event: the seq alone does not tell one from another.
        if not self.is_held(f"{self.data.epoch()}-{crc32(text.encode()):08x}"):
            self.answer_cached(f"{{{text}}}")

    head = get


class TradesHandler(MarketDataHandler):
    """`GET /api/trades`."""

    async def get(self) -> None:
        """The last ones, or those before or after one; as far as they are kept."""
        query = self.query()
        symbol = query.need("symbol", read_symbol)
        limit = query.take("limit", whole_number(1, MAX_TRADES), DEFAULT_TRADES)
        before = query.take("before", read_trade_id, None)
        after = query.take("after", read_trade_id, None)
        if "before" in query and "after" in query:
            query.refuse("before", "give either before or after, not both")
        self.checked(query)
        market, partitions = self.symbol_market(symbol), self.data.market.partitions
        folded_to = partitions.folded_to(self.data.market.partition_of(symbol))
        if after is not None:
            found = trades_after(market, after, limit, folded_to)
        elif before is not None:
            found = trades_before(market, before, limit, folded_to)
        else:
            found = last_trades(market, limit)
        tail = (
            f'"gap":{"true" if found.has_gap else "false"},'
            f'"stale":{"true" if market.partition in partitions.unread else "false"}'
        )
        head = f'"symbol":"{symbol}","epoch":{json.dumps(self.data.epoch())},"seq":{market.offset}'
        written = [trade_text(trade) async for piece in in_pieces(found.trades, self.data.give_way) for trade in piece]
        text = f'{{{head},"trades":[{",".join(written)}],{tail}}}'
        # How far back they are kept is not told by the seq alone.
        if not self.is_held(f"{self.data.epoch()}-{crc32(text.encode()):08x}"):
            self.answer_cached(text)

    head = get


def routes(context: Context, data: MarketData) -> list[tuple[Any, ...]]:
    """The route table of this room."""
    shared = {"context": context, "data": data}
    return [
        (r"/api/time", TimeHandler, shared),
        (r"/api/book", BookHandler, {**shared, "written": WrittenBooks()}),
        (r"/api/trades", TradesHandler, shared),
        (r"/api/ticker", TickerHandler, {**shared, "tickers": AllTickers(data)}),
    ]
