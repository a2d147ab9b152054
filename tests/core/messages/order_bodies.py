"""Bodies of orders that are right, the rules that they are checked by, and the golden ones of every language."""

from __future__ import annotations

import json
from decimal import Decimal
from pathlib import Path
from typing import Any

from core.messages.model import Instrument
from core.messages.order_rules import OrderRules

VECTORS = json.loads((Path(__file__).parents[2] / "vectors" / "commands.json").read_text("utf-8"))
RULES = {
    name: OrderRules(
        tuple(
            Instrument(row["symbol"], Decimal(row["tick"]), Decimal(row["lot"]), Decimal(row["min_quantity"]))
            for row in rules["instruments"]
        ),
        rules["default_symbol"],
    )
    for name, rules in VECTORS["rules"].items()
}
ANY = OrderRules()
LIMIT: dict[str, Any] = {"symbol": "KCN/EUR", "side": "bid", "order_type": "limit", "price": "1.5", "quantity": "2"}
ORDER_ID = "0b9b6c4e-8a1f-4f6e-9d51-2f4c1f2d7c11"


def name_of(vector: dict[str, Any]) -> str:
    return str(vector["name"])


WITH_ACCOUNTS = OrderRules(accounts=True)
MARKET: dict[str, Any] = {"symbol": "KCN/EUR", "side": "bid", "order_type": "market"}
