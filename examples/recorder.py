"""Every trade into a file of JSON lines, and on from there when it is started again, on any instance:

python examples/recorder.py URL SYMBOL FILE [COUNT]
"""

from __future__ import annotations

import asyncio
import json
import sys
from contextlib import suppress
from pathlib import Path

from mexchange import Exchange, Gap, Position, Trade


def where_it_ended(file: Path) -> Position | None:
    """Of the last whole line; what a killed run left of another one is cut off."""
    if not file.exists():
        return None
    whole = file.read_bytes()
    whole = whole[: whole.rfind(b"\n") + 1]
    file.write_bytes(whole)
    told = [line for line in map(json.loads, whole.splitlines()) if line["position"] is not None]
    return Position.from_json(told[-1]["position"]) if told else None


def line(item: Trade | Gap, position: Position | None) -> str:
    """Decimals as text, so that no digit is lost. The position is that behind this trade."""
    told = {"gap": item.reason} if isinstance(item, Gap) else {k: v and str(v) for k, v in item._asdict().items()}
    return json.dumps({**told, "position": position and position.to_json()}) + "\n"


async def main(url: str, symbol: str, file: Path, count: int | None = None) -> None:
    since = where_it_ended(file)
    with file.open("a", encoding="utf-8") as out:
        async with Exchange(url) as exchange, exchange.trades(symbol, since=since) as trades:
            async for item in trades:
                out.write(line(item, trades.position))
                out.flush()
                count = None if count is None else count - 1
                if count == 0:
                    return


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):
        asyncio.run(main(sys.argv[1], sys.argv[2], Path(sys.argv[3]), *map(int, sys.argv[4:5])))
