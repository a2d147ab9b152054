"""The class for asyncio."""

from __future__ import annotations

import aiohttp
from ccxt.async_support.base.exchange import Exchange

from mexchange_ccxt.streams import Streams


class mexchange(Streams, Exchange):
    """An mExchange gateway, as ccxt.pro has exchanges. Takes ccxt's configuration: `apiKey` is the token, `tokenProvider` a
    function that is asked for another one when that has ended.
    """

    def _was_never_sent(self, error: BaseException) -> bool:
        return isinstance(error.__cause__, aiohttp.ClientConnectorError)
