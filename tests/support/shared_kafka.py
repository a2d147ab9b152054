"""One Apache Kafka for all processes of a test run, started by the process that leads them when the first test asks.

A broker is seconds of a core to start and a twentieth of one while it does nothing, so not each process has one of its own.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import threading
from multiprocessing.connection import Client, Connection, Listener
from pathlib import Path

from tests.support.kafka import in_memory
from tools.kafka.cluster import KafkaCluster
from tools.kafka.jars import KafkaUnavailable
from tools.kafka.running import RunningKafka


class SharedKafka:
    """In the process that leads: whoever connects to `address` is told where Kafka is, or why there is none."""

    def __init__(self) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="shared-kafka-"))
        self.address = str(self._folder / "socket")
        self._listener = Listener(self.address, "AF_UNIX", backlog=os.cpu_count() or 1)
        self._cluster: KafkaCluster | None = None
        self._thread = threading.Thread(target=self._answer, name="shared-kafka", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Ends the broker, if there is one; nobody may ask any more."""
        with Client(self.address, "AF_UNIX") as connection:
            connection.send("end")
        self._thread.join()
        self._listener.close()
        if self._cluster is not None:
            self._cluster.close()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _answer(self) -> None:
        answer: tuple[str, str] | None = None
        while True:
            with self._listener.accept() as connection:
                if connection.recv() == "end":
                    return
                answer = answer or self._start()
                _send(connection, answer)

    def _start(self) -> tuple[str, str]:
        # Nobody could take its place, so it is not to be fenced because a busy machine had no time for it.
        cluster = KafkaCluster(within=in_memory(), properties={"broker.session.timeout.ms": "60000"})
        try:
            cluster.start()
        except KafkaUnavailable as error:
            return "", error.reason
        self._cluster = cluster
        return cluster.bootstrap, ""


def ask_for_kafka(address: str) -> RunningKafka:
    """The run's Kafka, which the first who asks waits for; KafkaUnavailable if there is none."""
    with Client(address, "AF_UNIX") as connection:
        connection.send("where")
        bootstrap, reason = connection.recv()
    if not bootstrap:
        raise KafkaUnavailable(reason)
    return RunningKafka(bootstrap, 1)


def _send(connection: Connection, answer: tuple[str, str]) -> None:
    try:
        connection.send(answer)
    except OSError:
        pass  # who asked is gone
