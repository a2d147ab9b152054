"""Which class is which kind of channel."""

from __future__ import annotations

from typing import Final

from core.channels.candles_channel import CandlesChannel
from core.channels.channel import Channel
from core.channels.conflated_channels import BookChannel, ConflatedChannel, LwtChannel, TickerChannel
from core.channels.lossless_channels import AllEventsChannel, EventsChannel, LosslessChannel, TradesChannel
from core.channels.names import ChannelName
from core.channels.tickers_channel import TickersChannel
from core.market.market import Market

KINDS: Final[dict[str, type[LosslessChannel] | type[ConflatedChannel] | type[TickersChannel]]] = {
    "book": BookChannel,
    "ticker": TickerChannel,
    "lwt": LwtChannel,
    "trades": TradesChannel,
    "events": EventsChannel,
    "candles": CandlesChannel,
    "tickers": TickersChannel,
}


def make_channel(name: ChannelName, markets: Market) -> Channel:
    """The channel that a channel's name asks for. Raises ValueError for a grouping that has no tick."""
    if name.symbol is None and name.kind == "events":
        return AllEventsChannel(name, markets)
    return KINDS[name.kind](name, markets)
