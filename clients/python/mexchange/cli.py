"""`mexchange`: a book in the terminal, an order, a recording."""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
from collections.abc import Sequence
from decimal import Decimal, InvalidOperation
from pathlib import Path

from rich.console import Console
from rich.live import Live
from rich.table import Table

from mexchange.book import Book
from mexchange.errors import MExchangeError
from mexchange.exchange import Exchange
from mexchange.models import Gap, Side
from mexchange.recording import Recording, recording

SIDES: dict[str, Side] = {"buy": "bid", "sell": "ask"}


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns the exit code: 0, 1 for a refusal or a fault, 2 for a line that cannot be read, 130 after Ctrl-C."""
    given = _parser().parse_args(arguments)
    try:
        asyncio.run(_run(given))
    except KeyboardInterrupt:
        return 130
    except (MExchangeError, ValueError, OSError) as error:
        print(f"mexchange: {error}", file=sys.stderr)
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="mexchange", description="Streams and orders of an mExchange gateway.")
    environ = os.environ.get
    parser.add_argument(
        "--url", default=environ("MEXCHANGE_URL", "http://localhost:3000"), help="of the gateway (MEXCHANGE_URL)"
    )
    parser.add_argument(
        "--token", default=environ("MEXCHANGE_TOKEN") or None, help="a JWT, for orders (MEXCHANGE_TOKEN)"
    )
    commands = parser.add_subparsers(dest="command", required=True)

    watch = commands.add_parser("watch", help="a live book")
    watch.add_argument("symbol")
    watch.add_argument("--depth", type=int, default=10, help="levels a side")
    watch.add_argument("--interval", default="200ms", help="least time between two changes")
    watch.add_argument("--changes", type=int, metavar="N", help="end after so many")

    order = commands.add_parser("order", help="buy 1.5 KCN/EUR @ 100.2; without a price at the market")
    order.add_argument("side", choices=SIDES)
    order.add_argument("quantity", type=_decimal)
    order.add_argument("symbol")
    order.add_argument("at", nargs="*", metavar="@ PRICE")
    order.add_argument("--time-in-force", choices=("GTC", "IOC", "FOK"))
    order.add_argument("--client-order-id", help="your own name for it: the same again is the same order")

    cancel = commands.add_parser("cancel", help="cancel an order by its order_id, or all")
    cancel.add_argument("order_id", help="or: all")
    cancel.add_argument("--symbol")

    commands.add_parser("orders", help="what is open")

    record = commands.add_parser("record", help="trades into a .csv or .parquet file")
    record.add_argument("symbols", nargs="+", metavar="SYMBOL")
    record.add_argument("--out", type=Path, required=True)
    record.add_argument("--count", type=int, metavar="N", help="end after so many of each symbol")
    return parser


def _decimal(text: str) -> Decimal:
    try:
        return Decimal(text)
    except InvalidOperation:
        raise argparse.ArgumentTypeError(f"{text!r} is no number") from None


async def _run(given: argparse.Namespace) -> None:
    async with Exchange(given.url, token=given.token) as exchange:
        match given.command:
            case "watch":
                await _watch(exchange, given.symbol, given.depth, given.interval, given.changes)
            case "order":
                await _order(exchange, given)
            case "cancel" if given.order_id == "all":
                print(*await exchange.cancel_all(given.symbol), sep="\n")
            case "cancel":
                print((await exchange.cancel(given.order_id, symbol=given.symbol)).order_id)
            case "orders":
                for one in await exchange.open_orders():
                    print(one.order_id, one.symbol, one.side, one.quantity, "@", one.price, one.status)
            case "record":
                with recording(given.out) as target:
                    await asyncio.gather(*(_record(exchange, one, target, given.count) for one in given.symbols))


async def _watch(exchange: Exchange, symbol: str, depth: int, interval: str, changes: int | None) -> None:
    console = Console()
    async with exchange.book(symbol, depth, interval) as book:
        with Live(console=console, auto_refresh=False, screen=console.is_terminal) as screen:
            seen = 0
            async for _ in book:
                screen.update(drawn(book, depth), refresh=True)
                seen += 1
                if seen == changes:
                    return


def drawn(book: Book, depth: int) -> Table:
    """The best levels of both sides; grey, and said so, where they are not to be trusted."""
    style = "dim" if book.stale else ""
    table = Table(title=f"{book.symbol}{' (stale)' if book.stale else ''}", style=style)
    for name in ("bid quantity", "bid", "ask", "ask quantity"):
        table.add_column(name, justify="right")
    bids, asks = book.bids[:depth], book.asks[:depth]
    for row in range(max(len(bids), len(asks))):
        bid = bids[row] if row < len(bids) else None
        ask = asks[row] if row < len(asks) else None
        cells = (bid and bid.quantity, bid and bid.price, ask and ask.price, ask and ask.quantity)
        styles = ("", "green", "red", "")
        texts = ["" if cell is None else format(cell, "f") for cell in cells]
        table.add_row(
            *(
                f"[{colour}]{text}[/]" if colour and not book.stale else text
                for text, colour in zip(texts, styles, strict=True)
            ),
            style=style,
        )
    return table


async def _order(exchange: Exchange, given: argparse.Namespace) -> None:
    match given.at:
        case []:
            price = None
        case ["@", text]:
            price = _decimal(text)
        case [text] if text.startswith("@"):
            price = _decimal(text[1:])
        case _:
            raise ValueError(f"{' '.join(given.at)!r}: expected @ and a price, or nothing")
    ack = await exchange.place(
        given.symbol,
        SIDES[given.side],
        given.quantity,
        price,
        time_in_force=given.time_in_force,
        client_order_id=given.client_order_id,
    )
    print(ack.order_id, "duplicate" if ack.duplicate else "accepted")


async def _record(exchange: Exchange, symbol: str, target: Recording, count: int | None) -> None:
    seen = 0
    async with exchange.trades(symbol) as trades:
        async for trade in trades:
            target.write(symbol, trade)
            if isinstance(trade, Gap):
                print(f"mexchange: {symbol}: {trade.reason}", file=sys.stderr)
            seen += 1
            if seen == count:
                return


if __name__ == "__main__":
    sys.exit(main())
