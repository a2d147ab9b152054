"""Peer: Centrifugo, and who feeds it: `COUNTER TEMPLATE [BOOTSTRAP TOPIC]`, told as bench/peers/ticks.py says.

Without a topic each tick's events go in one request to its HTTP API (`batch`); with one its own Kafka consumer reads it.
The feeder runs beside the load; what is measured is Centrifugo's process, whose id is told with the port.

Written from Centrifugo's documentation and configuration types: where this was written the Go module could not be had, so
it has run against a stand-in that speaks the same protocol, and never against Centrifugo itself. The library that it is
built on can be had: bench/peers/centrifuge.
"""

from __future__ import annotations

import asyncio
import http.client
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from bench.peers.ticks import Ticker
from bench.processes import tied

CHANNEL = "events"
START_SECONDS = 30.0


class Centrifugo:
    """One node, on a free port, that trusts everybody on loopback."""

    def __init__(self, folder: Path, kafka: list[str]) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = int(probe.getsockname()[1])
        settings: dict[str, Any] = {
            "http_server": {"address": "127.0.0.1", "port": self.port},
            "client": {"insecure": True, "connection_limit": 0},
            "http_api": {"insecure": True},
            "health": {"enabled": True},
            "usage_stats": {"disabled": True},
            "channel": {"without_namespace": {"allow_subscribe_for_client": True}},
            "log": {"level": "error"},
        }
        if kafka:
            bootstrap, topic = kafka
            consumer: dict[str, object] = {
                "brokers": [bootstrap],
                "topics": [topic],
                "consumer_group": f"bench-{topic}",
            }
            consumer["publication_data_mode"] = {"enabled": True, "channels_header": "centrifugo-channels"}
            settings["consumers"] = [{"name": "bench", "enabled": True, "type": "kafka", "kafka": consumer}]
        file = folder / "centrifugo.json"
        file.write_text(json.dumps(settings), encoding="utf-8")
        feeder_cores = os.sched_getaffinity(0)
        try:
            # The servers' core is the one that neither the feeder nor the load has.
            os.sched_setaffinity(0, set(range(os.cpu_count() or 1)) - feeder_cores or feeder_cores)
            self.process = subprocess.Popen(
                tied(os.environ["BENCH_CENTRIFUGO"], "--config", str(file)),
                stdin=subprocess.DEVNULL,
                stdout=sys.stderr,
            )
        finally:
            os.sched_setaffinity(0, feeder_cores)
        self._http = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)

    def await_start(self) -> None:
        """Until it answers."""
        deadline = time.monotonic() + START_SECONDS
        while True:
            try:
                self.ask("info", {})
                return
            except OSError:
                self._http.close()
                if time.monotonic() > deadline or self.process.poll() is not None:
                    sys.exit("centrifugo did not start")
                time.sleep(0.05)  # between questions: nothing tells when its port is open

    def ask(self, method: str, body: object) -> Any:
        """One request to its HTTP API."""
        text = body if isinstance(body, bytes) else json.dumps(body).encode()
        self._http.request("POST", f"/api/{method}", text, {"Content-Type": "application/json"})
        return json.loads(self._http.getresponse().read())

    def publish(self, events: list[bytes]) -> None:
        """A tick."""
        command = b'{"publish":{"channel":"%b","data":%%b}}' % CHANNEL.encode()
        self.ask("batch", b'{"commands":[%b]}' % b",".join([command % event for event in events]))

    def clients(self) -> int:
        """How many are connected."""
        nodes = self.ask("info", {})["result"]["nodes"]
        return int(nodes[0]["num_clients"])


class Feeder(Ticker):
    """Tells Centrifugo's process id with the port."""

    def __init__(self, node: Centrifugo) -> None:
        super().__init__(node.publish, node.clients)
        self.told = {"pid": node.process.pid}


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        node = Centrifugo(Path(folder), sys.argv[3:])
        try:
            node.await_start()
            asyncio.run(Feeder(node).serve(node.port))
        finally:
            node.process.terminate()
            node.process.wait(10)


if __name__ == "__main__":
    main()
