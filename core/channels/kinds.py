"""Which class is which kind of channel."""

from __future__ import annotations

from typing import Final

from core.channels.channel import Channel
from core.channels.lossless_channels import AllEventsChannel, EventsChannel, LosslessChannel, TradesChannel
from core.channels.names import ChannelName
from core.channels.quote_channels import BookChannel, LwtChannel, QuoteChannel, TickerChannel
from core.market.market import Market

KINDS: Final[dict[str, type[LosslessChannel] | type[QuoteChannel]]] = {
    "book": BookChannel,
    "ticker": TickerChannel,
    "lwt": LwtChannel,
    "trades": TradesChannel,
    "events": EventsChannel,
}


def make_channel(name: ChannelName, markets: Market) -> Channel:
    """The channel that a channel's name asks for. Raises ValueError for a grouping that has no tick."""
    if name.symbol is None:
        return AllEventsChannel(name, markets)
    return KINDS[name.kind](name, markets)
