"""An mExchange gateway as an exchange of ccxt.

`mexchange` is the class for asyncio, with ccxt.pro's watch methods; `sync.mexchange` the one that blocks. `register()` puts
both where ccxt's programs look for an exchange by its id. What they are told apart by is what the gateway promises
(docs/contract.md); what is different from other exchanges of ccxt stands in README.md.
"""

from __future__ import annotations

import ccxt
import ccxt.async_support
import ccxt.pro

from mexchange_ccxt import sync
from mexchange_ccxt.exchange import mexchange

__all__ = ["mexchange", "register", "sync"]


def register() -> None:
    """`ccxt.mexchange`, `ccxt.async_support.mexchange` and `ccxt.pro.mexchange`, and the id in their lists."""
    for module, kind in ((ccxt, sync.mexchange), (ccxt.async_support, mexchange), (ccxt.pro, mexchange)):
        setattr(module, kind.__name__, kind)
        if kind.__name__ not in module.exchanges:
            module.exchanges.append(kind.__name__)
