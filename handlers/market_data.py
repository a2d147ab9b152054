"""`/api/time` and what is known of the market, over REST (docs/contract.md#market-data).

Each answer is of one moment and says which: `epoch` and `seq`, as the channels do. Nothing is read for it and nothing made
up for a symbol that nobody has seen: answers are written from what is there, long ones a piece at a time.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from core.errors import RequestError
from core.market.market import Market
from core.market.symbol_market import SymbolMarket
from core.messages.query import Query
from core.orders.pieces import GiveWay
from handlers.bodies import BaseHandler
from handlers.problems import Context, Refusal, refusal_of

# Whoever has an answer asks whether it still holds (its ETag says); caches that many share may give it to all for a second.
CACHED: Final = "public, max-age=0, s-maxage=1, must-revalidate"


@dataclass(frozen=True, slots=True)
class MarketData:
    """What answers are written from. `epoch` names the life of the market topic."""

    market: Market
    epoch: Callable[[], str]
    give_way: GiveWay


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

    def is_trusted(self, market: SymbolMarket) -> bool:
        """Whether its book is the engine's of now, as far as can be told; else nobody is shown its levels."""
        return market.book.live and market.partition not in self.data.market.partitions.unread

    def is_held(self, seq: object, *more: object) -> bool:
        """Name the answer by the epoch, its seq and what else it hangs on; whether the client has it, and was told so (304).

        The rest of the request's target need not be in the name: what differs by that has another address.
        """
        tag = "-".join(map(str, (self.data.epoch(), seq, *more))).replace('"', "")
        self._headers["Etag"] = f'"{tag}"'
        self._headers["Cache-Control"] = CACHED
        if not self.check_etag_header():
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


def routes(context: Context, data: MarketData) -> list[tuple[Any, ...]]:
    """The route table of this room."""
    shared = {"context": context, "data": data}
    return [(r"/api/time", TimeHandler, shared)]
