"""`python -m exchange` on a cluster, seen from its two topics."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from tests.exchange.conftest import DEADLINE_SECONDS, ROOT, Cluster, Topics, running
from tests.support.ports import free_port

pytestmark = pytest.mark.system


def order(symbol: str, side: str, quantity: str, price: str | None, **more: Any) -> dict[str, Any]:
    return {
        "type": "place_order",
        "order_id": str(uuid.uuid4()),
        "symbol": symbol,
        "side": side,
        "order_type": "market" if price is None else "limit",
        "price": price,
        "quantity": quantity,
        "user_id": None,
        "client_order_id": None,
        "terms_hash": None,
        "time_in_force": "IOC" if price is None else "GTC",
        "timestamp": 1,
        **more,
    }


def about(events: list[dict[str, Any]], order_id: str) -> list[str]:
    return [
        event["type"]
        for event in events
        if order_id in (event.get("order_id"), event.get("buy_order_id"), event.get("sell_order_id"))
    ]


@contextmanager
def forwarder(port: int, target: tuple[str, int]) -> Iterator[None]:
    """A cluster's bootstrap address that can come into being late: 127.0.0.1:`port`, copied to and from `target`."""
    sockets: list[socket.socket] = []
    listener = socket.create_server(("127.0.0.1", port))

    def copy(source: socket.socket, sink: socket.socket) -> None:
        try:
            while data := source.recv(65536):
                sink.sendall(data)
        except OSError:
            return

    def accept() -> None:
        while True:
            try:
                near, _ = listener.accept()
            except OSError:
                return
            sockets.append(near)
            far = socket.create_connection(target)
            sockets.append(far)
            for pair in ((near, far), (far, near)):
                threading.Thread(target=copy, args=pair, daemon=True).start()

    accepting = threading.Thread(target=accept, daemon=True)
    accepting.start()
    try:
        yield
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        accepting.join(DEADLINE_SECONDS)
        for each in sockets:
            each.close()


def test_process_executes_an_order_written_after_it_said_ready(topics: Topics) -> None:
    with running(topics, "--no-traders") as exchange:
        exchange.wait_for_line("exchange: ready")
        ask = order("NEW/EUR", "ask", "2", "10.10", user_id="alice")
        bid = order("NEW/EUR", "bid", "1.5", "10.10", user_id="bob")
        topics.send(ask, bid)
        events = topics.wait_for(lambda events: "order_filled" in about(events, bid["order_id"]))
        events = topics.wait_for(lambda events: events[-1]["type"] == "orderbook_delta")
    assert [event["type"] for event in events] == [
        "orderbook_snapshot",
        "order_accepted",
        "orderbook_delta",
        "order_accepted",
        "fill",
        "order_filled",
        "orderbook_delta",
    ]
    assert set(topics.keys) == {b"NEW/EUR"}
    assert (events[4]["price"], events[4]["quantity"], events[4]["buy_order_id"]) == ("10.10", "1.5", bid["order_id"])
    assert [event.get("user_id") for event in events] == [None, "alice", None, "bob", None, "bob", None]


def test_process_market_trades_with_a_person(topics: Topics) -> None:
    with running(topics) as exchange:
        exchange.wait_for_line("exchange: ready")
        [snapshot] = topics.wait_for(lambda events: any(event["symbol"] == "KCN/EUR" for event in events))[-1:]
        assert len(snapshot["bids"]) >= 10
        buy = order("KCN/EUR", "bid", "1.000", None)
        topics.send(buy)
        topics.wait_for(lambda events: "order_filled" in about(events, buy["order_id"]))
        inside = f"{float(snapshot['bids'][0]['price']) + 0.05:.2f}"
        resting = order("KCN/EUR", "bid", "1.000", inside)
        topics.send(resting)
        events = topics.wait_for(lambda events: "order_filled" in about(events, resting["order_id"]))
    assert about(events, buy["order_id"])[:2] == ["order_accepted", "fill"]
    traded = {event["symbol"] for event in events if event["type"] == "orderbook_delta"}
    assert traded == {"KCN/EUR", "BTC/EUR", "ETH/EUR"}


def test_process_outlives_malformed_commands(topics: Topics) -> None:
    with running(topics, "--no-traders", "--symbols", "A/B") as exchange:
        exchange.wait_for_line("exchange: ready")
        good = order("A/B", "bid", "1", "1")
        bad = order("A/B", "sideways", "1", "1")
        nowhere = order("nowhere", "bid", "1", "1")
        topics.send(b"", b"\xff\xfe", b"{", b"[" * 50_000, b"NaN", b"{}", b"x" * 100_000, bad, nowhere, good)
        accepted, rejected, homeless = (command["order_id"] for command in (good, bad, nowhere))
        events = topics.wait_for(
            lambda events: bool(about(events, accepted) and about(events, rejected) and about(events, homeless))
        )
    assert about(events, accepted) == ["order_accepted"]
    assert about(events, rejected) == about(events, homeless) == ["order_rejected"]
    [where] = [number for number, event in enumerate(events) if event.get("order_id") == homeless]
    assert "symbol" not in events[where]
    assert topics.keys[where] == homeless.encode()


def test_process_trades_only_the_symbols_named_by_their_rules(topics: Topics) -> None:
    with running(topics, "--no-traders", "--symbols", "A/B:0.5:0.1,KCN/EUR") as exchange:
        exchange.wait_for_line("exchange: ready")
        commands = [
            order("A/B", "bid", "0.1", "1.25"),
            order("KCN/EUR", "bid", "0.001", "1.001"),
            order("C/D", "bid", "1", "1"),
            order("A/B", "bid", "0.1", "1.5"),
        ]
        topics.send(*commands)
        answers = topics.wait_for(lambda events: all(about(events, command["order_id"]) for command in commands))
    assert [about(answers, command["order_id"]) for command in commands] == [["order_rejected"]] * 3 + [
        ["order_accepted"]
    ]
    assert {event["symbol"] for event in answers if event["type"] == "orderbook_snapshot"} == {"A/B", "KCN/EUR"}


def test_process_says_so_and_keeps_trying_when_kafka_refuses_its_events(topics: Topics) -> None:
    with running(topics, "-X", "message.max.bytes=1000") as exchange:
        exchange.wait_for_line("event lost on the way")
        exchange.process.send_signal(signal.SIGTERM)
        assert exchange.wait() == 0
    assert not any("exchange: ready" in line or "Traceback" in line for line in exchange.output)


def test_process_begins_with_an_empty_book_when_restarted(topics: Topics) -> None:
    arguments = ("--no-traders", "--symbols", "A/B")
    with running(topics, *arguments) as exchange:
        exchange.wait_for_line("exchange: ready")
        topics.send(order("A/B", "bid", "1", "1"))
        topics.wait_for(lambda events: events[-1]["type"] == "orderbook_delta" if events else False)
    with running(topics, *arguments) as exchange:
        exchange.wait_for_line("exchange: ready")
        events = topics.wait_for(
            lambda events: [event["type"] for event in events].count("orderbook_snapshot") == 2,
        )
    assert events[-1]["bids"] == []
    assert events[-1]["sequence"] > events[-2]["sequence"]


def test_process_executes_what_came_before_it_when_started_from_the_beginning(topics: Topics) -> None:
    command = order("A/B", "bid", "1", "1")
    topics.send(command)
    with running(topics, "--no-traders", "--symbols", "A/B", "--from-beginning") as exchange:
        exchange.wait_for_line("exchange: ready")
        topics.wait_for(lambda events: about(events, command["order_id"]) == ["order_accepted"])


def test_process_leaves_out_what_came_before_it(topics: Topics) -> None:
    early, late = order("A/B", "bid", "1", "1"), order("A/B", "bid", "1", "1")
    topics.send(early)
    with running(topics, "--no-traders", "--symbols", "A/B") as exchange:
        exchange.wait_for_line("exchange: ready")
        topics.send(late)
        events = topics.wait_for(lambda events: bool(about(events, late["order_id"])))
    assert about(events, early["order_id"]) == []


def test_process_repeats_snapshots(topics: Topics) -> None:
    with running(topics, "--no-traders", "--symbols", "A/B", "--snapshot-seconds", "0.3"):
        topics.wait_for(lambda events: len(events) >= 3)
    assert {event["type"] for event in topics.events} == {"orderbook_snapshot"}


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize(
    ("arguments", "unsaid"),
    [
        # What the traders did last is waited for, but not for ever; a book's snapshot is confirmed before "ready".
        (["--until-stdin-closes"], ["Traceback"]),
        (["--no-traders", "--symbols", "A/B"], ["Traceback", "unconfirmed"]),
    ],
)
def test_process_stops_cleanly_on_a_signal(
    topics: Topics, number: signal.Signals, arguments: list[str], unsaid: list[str]
) -> None:
    with running(topics, *arguments) as exchange:
        exchange.wait_for_line("exchange: ready")
        exchange.process.send_signal(number)
        assert exchange.wait() == 0
    assert not any(word in line for line in exchange.output for word in unsaid)


def test_process_stops_cleanly_when_stdin_closes(topics: Topics) -> None:
    with running(topics, "--until-stdin-closes") as exchange:
        exchange.wait_for_line("exchange: ready")
        exchange.close_stdin()
        assert exchange.wait() == 0
    assert not any("Traceback" in line or "Fatal" in line for line in exchange.output)


def test_process_goes_on_when_stdin_closes_and_nobody_asked_it_to_stop(topics: Topics) -> None:
    with running(topics, "--no-traders", "--symbols", "A/B") as exchange:
        exchange.close_stdin()
        exchange.wait_for_line("exchange: ready")
        command = order("A/B", "bid", "1", "1")
        topics.send(command)
        topics.wait_for(lambda events: bool(about(events, command["order_id"])))
        assert exchange.process.poll() is None


def test_process_waits_for_kafka_and_begins_when_it_appears(cluster: Cluster, topics: Topics) -> None:
    port = free_port()
    with running(topics, "--no-traders", "--symbols", "A/B", brokers=f"127.0.0.1:{port}") as exchange:
        exchange.wait_for_line("waiting for Kafka")
        with forwarder(port, (cluster.host, cluster.port)):
            exchange.wait_for_line("exchange: ready")


def test_process_stops_cleanly_while_it_waits_for_kafka(topics: Topics) -> None:
    with running(topics, brokers=f"127.0.0.1:{free_port()}") as exchange:
        exchange.wait_for_line("waiting for Kafka")
        exchange.process.send_signal(signal.SIGTERM)
        assert exchange.wait() == 0
    assert sum("waiting for Kafka" in line for line in exchange.output) == 1


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["--brokers", "x:1", "--rate", "0"],
        ["--brokers", "x:1", "--rate", "nan"],
        ["--brokers", "x:1", "--symbols", "KCN"],
        ["--brokers", "x:1", "--symbols", "A/B:0:1"],
        ["--brokers", "x:1", "--symbols", "A/B:0.1"],
        ["--brokers", "x:1", "-X", "nonsense"],
        ["--brokers", "x:1", "-X", "no.such.property=1"],
    ],
)
def test_process_refuses_impossible_arguments(arguments: list[str]) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "exchange", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=DEADLINE_SECONDS,
        check=False,
    )
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert done.stderr.strip()


# Its log.


def test_command_is_logged_with_its_headers_if_that_is_asked_for(topics: Topics) -> None:
    with running(topics, "--no-traders", "--log-commands") as process:
        process.wait_for_line("exchange: ready")
        producer = topics.cluster.producer
        headers: list[tuple[str, str | bytes | None]] = [
            ("x-request-id", "r-1"),
            ("traceparent", "00-ab"),
            ("odd", b"\xff\n"),
            ("none", None),
        ]
        producer.produce(topics.orders, b'{"type":"cancel_order"}', "A/B", headers=headers)
        producer.produce(topics.orders, b'{"type":"place_order"}', "A/B")
        assert producer.flush(DEADLINE_SECONDS) == 0
        process.wait_for_line('(no headers): b\'{"type":"place_order"}\'')
    [line] = [line for line in process.output if "cancel_order" in line]
    assert "command 0/0 (x-request-id r-1, traceparent 00-ab, odd \\ufffd\\n, none None): b'" in line
