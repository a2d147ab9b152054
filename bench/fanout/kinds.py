"""Who is compared: the C loop, the gateway, and the peers that can be had here."""

from __future__ import annotations

import sys
from collections.abc import Callable

from bench.fanout import build
from bench.fanout.build import Missing
from bench.fanout.children import SUBSCRIBE, Kind
from bench.figures import Absent
from bench.processes import ROOT

C_LOOP, NAIVE, WEBSOCKETS, AIOHTTP = "C loop", "naive Tornado", "websockets", "aiohttp"
PICOWS, SOCKETIFY, NODE_WS, GO, CENTRIFUGO = "picows", "socketify", "node ws", "Go gorilla", "Centrifugo"
# The module proxy does not give Centrifugo itself; it does give the library that Centrifugo is built on.
CENTRIFUGE = "centrifuge (the library of Centrifugo)"
STREAM, EVENTS = "ours, default stream", "ours, events channel"

EVENTS_OPTIONS = ("--path", "/ws?stream=none", "--send", SUBSCRIBE, "--expect", "2")
CENTRIFUGO_OPTIONS = (
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
        AIOHTTP: lambda: _python(AIOHTTP, "aiohttp", "aiohttp_loop"),
        PICOWS: _picows,
        SOCKETIFY: lambda: _python(SOCKETIFY, "socketify", "socketify_publish", spins=True),
        NODE_WS: _node,
        GO: lambda: Kind(GO, (str(build.go_peer("gorilla")),)),
        CENTRIFUGE: lambda: Kind(CENTRIFUGE, (str(build.go_peer("centrifuge")),), CENTRIFUGO_OPTIONS),
        CENTRIFUGO: _centrifugo,
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


def _picows() -> Kind:
    build.python_peer("uvloop")
    return _python(PICOWS, "picows", "picows_loop")


def _node() -> Kind:
    node, modules = build.node_peer()
    script = str(ROOT / "bench" / "peers" / "ws_loop.js")
    return Kind(NODE_WS, (str(node), script), environment={"BENCH_NODE_MODULES": str(modules)})


def _centrifugo() -> Kind:
    program = str(build.centrifugo())
    command = (sys.executable, "-m", "bench.peers.centrifugo")
    return Kind(CENTRIFUGO, command, CENTRIFUGO_OPTIONS, {"BENCH_CENTRIFUGO": program}, is_fed=True)
