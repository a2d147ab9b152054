"""What can be traded, as it is told."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final

from core.messages.attributes import Attribute
from core.messages.model import Instrument, decimal_text

LIMITS: Final = ("max_quantity", "max_notional", "price_band_percent")


def instrument_list(
    instruments: Iterable[Instrument],
    symbols: Callable[[], Iterable[str]],
    *,
    amends: bool = False,
    attributes: Sequence[Attribute] = (),
    max_open_orders: int = 0,
) -> dict[str, Any]:
    """The body of `/api/instruments`: the configured ones, else every symbol seen; whether orders can be amended, if so; what
    they may carry besides, if anything; and how many a user may have open, if that is limited.
    """
    configured = [
        {
            "symbol": instrument.symbol,
            "tick": decimal_text(instrument.tick),
            "lot": decimal_text(instrument.lot),
            "min_quantity": decimal_text(instrument.min_quantity),
            **{name: decimal_text(limit) for name in LIMITS if (limit := getattr(instrument, name)) is not None},
        }
        for instrument in instruments
    ]
    unknown = {"tick": None, "lot": None, "min_quantity": None}
    told: dict[str, Any] = {"instruments": configured or [{"symbol": symbol, **unknown} for symbol in symbols()]}
    if amends:
        told["amend"] = True
    if attributes:
        told["attributes"] = {attribute.name: attribute.declaration() for attribute in attributes}
    if max_open_orders:
        told["max_open_orders"] = max_open_orders
    return told
