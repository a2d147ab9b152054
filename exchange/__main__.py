"""python -m exchange: see --help. Exit code 0 on SIGTERM, SIGINT and, with --until-stdin-closes, the end of stdin."""

from __future__ import annotations

import argparse
import logging
import os
import random
import signal
import sys
import threading
import time
from collections.abc import Sequence
from decimal import Decimal

from confluent_kafka import KafkaException

from exchange.accounts import Accounts
from exchange.bus import Bus, BusOptions
from exchange.commands import Instrument, is_symbol
from exchange.decimals import read_decimal
from exchange.matching import Engine
from exchange.service import Exchange
from exchange.traders import MARKETS, Traders

DEPOSIT = "EUR=100000,KCN=5000,BTC=1,ETH=20"
_FLUSH_SECONDS = 2.0

log = logging.getLogger("exchange")


def main(arguments: Sequence[str] | None = None) -> int:
    options = _parser().parse_args(arguments)
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(asctime)s %(name)s %(levelname)s %(message)s")
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        # Not here: whom the signal finds inside stop.wait() may hold the event's lock, and would wait for itself for ever.
        signal.signal(number, lambda *_: threading.Thread(target=stop.set, daemon=True).start())
    if options.until_stdin_closes:
        threading.Thread(target=_stop_at_end_of_stdin, args=(stop,), daemon=True).start()

    accounts = Accounts(dict(options.deposit), _now_ms) if options.account_topic else None
    engine = Engine(
        _rules(options), _now_ms, open_symbols=options.no_traders and not options.symbols, accounts=accounts
    )
    traders = None
    markets = [market for market in MARKETS if market.instrument.symbol in engine.symbols]
    if markets and not options.no_traders:
        traders = Traders(engine, random.Random(options.seed), options.rate, markets)
        if accounts is not None:
            accounts.without.add(traders.user_id)
    bus = Bus(
        BusOptions(
            brokers=options.brokers,
            topic=options.topic,
            order_topic=options.order_topic,
            account_topic=options.account_topic,
            from_beginning=options.from_beginning,
            logs_commands=options.log_commands,
            properties=dict(options.property),
        ),
        stop,
    )
    try:
        connected = bus.connect()
    except KafkaException as error:
        print(f"exchange: {error.args[0].str()}", file=sys.stderr)
        return 2
    if connected:
        if accounts is not None:
            # What is executed anew is paid for anew.
            for value in () if options.from_beginning else bus.read_accounts():
                accounts.restore(value)
            for user_id in options.account:
                accounts.open(user_id)
        exchange = Exchange(engine, traders, bus, stop, time.monotonic, options.snapshot_seconds, accounts)
        exchange.run(lambda: print("exchange: ready", flush=True))
    bus.close(_FLUSH_SECONDS)
    log.info("stopped")
    return 0


def _rules(options: argparse.Namespace) -> list[tuple[str, Instrument | None]]:
    simulated = {market.instrument.symbol: market.instrument for market in MARKETS}
    if options.symbols:
        return [(symbol, instrument or simulated.get(symbol)) for symbol, instrument in options.symbols]
    return [] if options.no_traders else list(simulated.items())


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m exchange",
        description="A simulated exchange on Kafka: matching engine and traders. Keeps its book in memory only.",
    )
    parser.add_argument("--brokers", required=True, metavar="HOST:PORT[,...]", help="Kafka's bootstrap servers")
    parser.add_argument("--topic", default="market-events", help="market events go there (default: %(default)s)")
    parser.add_argument("--order-topic", default="order-commands", help="commands come from there (%(default)s)")
    parser.add_argument(
        "--account-topic",
        default="",
        metavar="TOPIC",
        help="keep accounts, refuse orders that their users cannot pay for, and tell balances there (default: none are kept)",
    )
    parser.add_argument(
        "--deposit",
        type=_deposit,
        default=DEPOSIT,
        metavar="CURRENCY=AMOUNT,...",
        help="what every user begins with (default: %(default)s)",
    )
    parser.add_argument(
        "--account",
        action="append",
        default=[],
        metavar="USER",
        help="has an account from the beginning, and not with the first order; repeatable",
    )
    parser.add_argument(
        "--rate", type=_positive_number, default=100.0, help="public events/s that the traders cause (%(default)g)"
    )
    parser.add_argument("--seed", type=int, help="makes what the traders do repeatable")
    parser.add_argument("--no-traders", action="store_true", help="only the engine")
    parser.add_argument(
        "--symbols",
        type=_symbols,
        metavar="SYMBOL[:TICK:LOT],...",
        help="trade these only; without rules of their own those of the simulated markets, if it is one of them, hold "
        "(default: the simulated markets; with --no-traders any symbol, without tick and lot)",
    )
    parser.add_argument(
        "--snapshot-seconds", type=_seconds, default=30.0, help="between snapshots of each book, 0: never (%(default)g)"
    )
    parser.add_argument(
        "--from-beginning",
        action="store_true",
        help="execute all that the order topic holds, publishing it (again), instead of what comes from now on",
    )
    parser.add_argument(
        "--log-commands",
        action="store_true",
        help="a line in the log for each command, with its record's headers: request id and trace",
    )
    parser.add_argument("--until-stdin-closes", action="store_true", help="stop when stdin ends")
    parser.add_argument(
        "-X",
        "--property",
        type=_property,
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="a librdkafka property for both clients (SASL, TLS); repeatable",
    )
    return parser


def _symbols(text: str) -> list[tuple[str, Instrument | None]]:
    return [_symbol(item) for item in text.split(",")]


def _symbol(text: str) -> tuple[str, Instrument | None]:
    symbol, *steps = text.split(":")
    if not is_symbol(symbol) or len(steps) not in (0, 2):
        raise argparse.ArgumentTypeError(f"{text!r} is not SYMBOL or SYMBOL:TICK:LOT")
    if not steps:
        return symbol, None
    try:
        tick, lot = (read_decimal(step) for step in steps)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r}: tick and lot {error}") from error
    if tick <= 0 or lot <= 0:
        raise argparse.ArgumentTypeError(f"{text!r}: tick and lot must be greater than zero")
    return symbol, Instrument(symbol, tick, lot, Decimal(lot))


def _deposit(text: str) -> list[tuple[str, Decimal]]:
    return [_amount(item) for item in text.split(",")]


def _amount(text: str) -> tuple[str, Decimal]:
    currency, _, number = text.partition("=")
    try:
        amount = read_decimal(number)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r}: the amount {error}") from error
    if not is_symbol(f"{currency}/{currency}") or amount < 0:
        raise argparse.ArgumentTypeError(f"{text!r} is not CURRENCY=AMOUNT")
    return currency, amount


def _property(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not name or not equals:
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=VALUE")
    return name, value


def _positive_number(text: str) -> float:
    number = _seconds(text)
    if number == 0:
        raise argparse.ArgumentTypeError("must be greater than zero")
    return number


def _seconds(text: str) -> float:
    try:
        number = float(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number") from error
    if not 0 <= number < 1e6:
        raise argparse.ArgumentTypeError("must be at least zero and less than a million")
    return number


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


def _stop_at_end_of_stdin(stop: threading.Event) -> None:
    # os.read, because a thread that waits inside sys.stdin holds a lock which the interpreter wants when it exits.
    try:
        while os.read(0, 4096):
            pass
    except OSError:
        log.debug("stdin is closed")
    stop.set()


if __name__ == "__main__":
    sys.exit(main())
