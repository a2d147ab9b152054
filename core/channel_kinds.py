"""Which class is which kind of channel."""

from __future__ import annotations

from typing import Final

from core.channel import Channel
from core.channel_names import ChannelName
from core.lossless_channels import AllEventsChannel, EventsChannel, LosslessChannel, TradesChannel
from core.market import Market
from core.quote_channels import BookChannel, LwtChannel, QuoteChannel, TickerChannel

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
