"""What can be traded, as it is told."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from core.messages.attributes import Attribute
from core.messages.model import Instrument, decimal_text


def instrument_list(
    instruments: Iterable[Instrument],
    symbols: Callable[[], Iterable[str]],
    *,
    amends: bool = False,
    attributes: Sequence[Attribute] = (),
) -> dict[str, Any]:
    """The body of `/api/instruments`: the configured ones, else every symbol seen; whether orders can be amended, if so; and what
    they may carry besides, if anything.
    """
    configured = [
        {
            "symbol": instrument.symbol,
            "tick": decimal_text(instrument.tick),
            "lot": decimal_text(instrument.lot),
            "min_quantity": decimal_text(instrument.min_quantity),
        }
        for instrument in instruments
    ]
    unknown = {"tick": None, "lot": None, "min_quantity": None}
    told: dict[str, Any] = {"instruments": configured or [{"symbol": symbol, **unknown} for symbol in symbols()]}
    if amends:
        told["amend"] = True
    if attributes:
        told["attributes"] = {attribute.name: attribute.declaration() for attribute in attributes}
    return told
