"""The class for programs that block, as `ccxt.mexchange` would be: the same methods, less those that watch."""

from __future__ import annotations

import inspect

from ccxt.base.exchange import Exchange
from urllib3.exceptions import NewConnectionError

from mexchange_ccxt.requests import Requests, blocking


class mexchange(Requests, Exchange):
    """An mExchange gateway, blocking. Takes ccxt's configuration: `apiKey` is the token."""

    def _was_never_sent(self, error: BaseException) -> bool:
        [why, *_] = getattr(error.__cause__, "args", None) or [None]
        return isinstance(getattr(why, "reason", None), NewConnectionError)


for _name, _method in vars(Requests).items():
    if inspect.iscoroutinefunction(_method) and not _name.startswith("_"):
        setattr(mexchange, _name, blocking(_method))
