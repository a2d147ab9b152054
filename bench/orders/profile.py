"""Where the time goes with 64 orders in flight: own time per request by function, beside the bare handler's."""

from __future__ import annotations

import os
import pstats
import signal
import tempfile
import time
from pathlib import Path

from bench.orders.compared import GRACE_SECONDS, IN_FLIGHT, Server
from bench.support.bus import Bus
from bench.support.gateway import environment, gateway, tokens
from bench.support.processes import BenchError, part


def profile(bus: Bus, seconds: float, entries: int) -> str:
    """Where the time goes with 64 orders in flight: own time per request by function, beside the bare handler's.

    From cProfile, which slows calls most and calls of C least, and by the wall's clock, so other work on the machine
    inflates it: for finding what to cut, not for figures. Waiting is left out.
    """
    asked, [token] = tokens("bench")
    variables = {**environment(bus, "profile"), **asked}
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        ours, bare = Path(folder) / "gateway", Path(folder) / "bare"
        with gateway(variables, interpreter=("-m", "bench.orders.run_profiled", str(ours))) as served:
            served.wait_ready()
            mine = _own_us(Server(served.pid, served.port, None, token), served.pid, seconds, ours)
        with part("orders.bare_server", interpreter=("-m", "bench.orders.run_profiled", str(bare))) as bare_server:
            theirs = _own_us(Server(bare_server.pid, bare_server.first, None), bare_server.pid, seconds, bare)
    lines = [
        f"{'gateway':>8} {'bare':>8} {'more':>8}  us/request, of {sum(mine.values()):.0f} and {sum(theirs.values()):.0f}"
    ]
    for name in sorted(mine, key=lambda name: theirs.get(name, 0.0) - mine[name])[:entries]:
        own, other = mine[name], theirs.get(name, 0.0)
        lines.append(f"{own:8.1f} {other:8.1f} {own - other:8.1f}  {name}")
    return "\n".join(lines)


def _own_us(server: Server, pid: int, seconds: float, file: Path) -> dict[str, float]:
    server.load(IN_FLIGHT, 1.0)
    os.kill(pid, signal.SIGUSR1)
    requests = server.load(IN_FLIGHT, seconds).requests
    os.kill(pid, signal.SIGUSR2)
    deadline = time.monotonic() + GRACE_SECONDS
    while not file.exists():
        if time.monotonic() > deadline:
            raise BenchError("the profile was not written")
        time.sleep(0.05)  # between looks: the gateway writes it when its loop comes to the signal
    own: dict[str, float] = {}
    for (path, _line, function), figures in pstats.Stats(str(file)).stats.items():  # type: ignore[attr-defined]  # typeshed leaves it out
        name = f"{'/'.join(Path(path).parts[-2:])}:{function}" if path != "~" else function
        if "select.epoll" not in name:
            own[name] = own.get(name, 0.0) + figures[2] / requests * 1e6
    return own
