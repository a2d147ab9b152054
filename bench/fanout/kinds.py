"""Who is compared: the C loop, the gateway, and the peers that can be had here."""

from __future__ import annotations

import sys
from collections.abc import Callable

from bench.fanout import build
from bench.fanout.build import Missing
from bench.fanout.servers import SUBSCRIBE, Kind
from bench.support.figures import Absent

C_LOOP, NAIVE, WEBSOCKETS, SOCKETIFY = "C loop", "naive Tornado", "websockets", "socketify"
CENTRIFUGE = "centrifuge (the library of Centrifugo)"
STREAM, EVENTS = "ours, default stream", "ours, events channel"

EVENTS_OPTIONS = ("--path", "/ws?stream=none", "--send", SUBSCRIBE, "--expect", "2")
CENTRIFUGE_OPTIONS = (
    *("--lines", "--path", "/connection/websocket", "--expect", "2"),
    *("--send", '{"id":1,"connect":{}}\n{"id":2,"subscribe":{"channel":"events"}}'),
)


def c_loop() -> Kind:
    """The reference. Raises BenchError without a compiler."""
    return Kind(C_LOOP, (str(build.compiled(build.PEERS / "c_loop.c")),), ("--tcp",))


def ours(name: str) -> Kind:
    """The gateway's own fan-out without Kafka; on the events channel the answer and the snapshot come first."""
    options = EVENTS_OPTIONS if name == EVENTS else ("--path", "/ws", "--expect", "1")
    return Kind(name, (sys.executable, "-m", "bench.fanout.ours"), options)


def peers() -> tuple[list[Kind], list[Absent]]:
    """Those that can be had, installed, and those that cannot."""
    makers: dict[str, Callable[[], Kind]] = {
        NAIVE: lambda: _python(NAIVE, "tornado", "tornado_naive"),
        WEBSOCKETS: lambda: _python(WEBSOCKETS, "websockets", "websockets_broadcast"),
        SOCKETIFY: lambda: _python(SOCKETIFY, "socketify", "socketify_publish", spins=True),
        CENTRIFUGE: lambda: Kind(CENTRIFUGE, (str(build.go_peer("centrifuge")),), CENTRIFUGE_OPTIONS),
    }
    found: list[Kind] = []
    absent: list[Absent] = []
    for name, make in makers.items():
        try:
            found.append(make())
        except Missing as missing:
            absent.append(Absent("fan-out", name, str(missing)))
    return found, absent


def _python(name: str, package: str, module: str, spins: bool = False) -> Kind:
    return Kind(name, (str(build.python_peer(package)), "-m", f"bench.peers.{module}"), spins=spins)
