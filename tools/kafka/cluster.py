"""A real Apache Kafka on loopback: KRaft nodes that are controller and broker in one, each its own JVM.

Three things must hold whatever a test does to a cluster, and shape this file:

* Only processes that were started here are ever signalled, through their process handle, so a process id that the
  system has given to somebody else is never hit.
* No JVM outlives the Python process, even one that is killed: the kernel ends them (tools/tied.py). That signal
  comes when the *thread* that forked ends, hence the launcher thread that lives as long as the cluster.
* A port stays ours from its choice to the end of the cluster, also while its broker is down: a socket stays bound to
  it without listening. With SO_REUSEADDR on both the broker can listen beside it, and the kernel gives the port to
  nobody else.

The JVM starts in half the time with an archive of its loaded classes, and a node's folder needs no JVM of its own to be
formatted: `prepare` makes both once, beside the jars.
"""

from __future__ import annotations

import base64
import contextlib
import errno
import json
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import IO

from confluent_kafka import Consumer, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient

from tools import paused_process
from tools.kafka import jars
from tools.kafka.jars import KafkaUnavailable
from tools.kafka.running import RunningKafka, quiet_client
from tools.pause import Pause
from tools.tied import tied

HOST = "127.0.0.1"
START_TIMEOUT_SECONDS = 90.0
STOP_TIMEOUT_SECONDS = 30.0

_JVM_FLAGS = ("-XX:-UsePerfData", "-XX:+ExitOnOutOfMemoryError", "-Xshare:auto")
# A JVM that starts soon and takes little, for tests; its pauses are 20 to 30 ms.
QUICK_START = ("-Xms256m", "-Xmx256m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1")
# What Kafka's own bin/kafka-server-start.sh and bin/kafka-run-class.sh give it, for what is measured.
AS_SHIPPED = (
    "-Xms1g",
    "-Xmx1g",
    "-XX:+UseG1GC",
    "-XX:MaxGCPauseMillis=20",
    "-XX:InitiatingHeapOccupancyPercent=35",
    "-XX:+ExplicitGCInvokesConcurrent",
    "-XX:MaxInlineLevel=15",
)

_LOG4J = """<?xml version="1.0" encoding="UTF-8"?>
<Configuration status="off">
  <Appenders>
    <File name="warnings" fileName="{file}"><PatternLayout pattern="%d %p %m (%c)%n"/></File>
  </Appenders>
  <Loggers>
    <Root level="warn"><AppenderRef ref="warnings"/></Root>
  </Loggers>
</Configuration>
"""


class _Node:
    """One JVM: its folder, its two ports, and the process while there is one."""

    def __init__(self, number: int, folder: Path, port: int) -> None:
        self.number = number
        self.folder = folder
        self.client_socket = _hold_port(port)
        self.controller_socket = _hold_port(0)
        self.port: int = self.client_socket.getsockname()[1]
        self.controller_port: int = self.controller_socket.getsockname()[1]
        self.process: subprocess.Popen[bytes] | None = None
        self.frozen = False

    @property
    def running(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def send_signal(self, number: signal.Signals) -> None:
        if self.process is not None:
            self.process.send_signal(number)

    def end(self, timeout_seconds: float = 0.0) -> None:
        """Ends the JVM, politely if it is given time, and reaps it."""
        if self.process is None:
            return
        if timeout_seconds > 0:
            self.send_signal(signal.SIGTERM)
            self.send_signal(signal.SIGCONT)  # a stopped process acts on SIGTERM only once it goes on
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(timeout_seconds)
        self.send_signal(signal.SIGKILL)
        self.process.wait()
        self.process = None
        self.frozen = False

    def release(self) -> None:
        self.client_socket.close()
        self.controller_socket.close()

    def complaint(self) -> str:
        """The last error that the JVM wrote before it ended, in one line."""
        lines: list[str] = []
        for name in ("stdout.log", "warnings.log"):
            with contextlib.suppress(OSError):
                lines += (self.folder / name).read_text(encoding="utf-8", errors="replace").splitlines()
        thrown = [line for line in lines if re.match(r"(Caused by: )?[\w.$]+(Exception|Error): ", line)]
        errors = [line for line in lines if "ERROR" in line or "FATAL" in line or "rror:" in line]
        return (thrown or errors or lines or ["it wrote nothing"])[-1].strip()[:300]


class KafkaCluster(RunningKafka):
    """A cluster of `brokers` nodes on free ports (or from `base_port` on), started and ended as a context manager.

    With three or more, topics have three replicas and `min.insync.replicas` is 2. Nodes are numbered from 0 here; their
    Kafka ids are one higher.

    Args:
        brokers: how many nodes.
        base_port: the first node's port for clients, the next ones' follow; 0 takes free ones.
        data: a folder that is kept (and its cluster continued by a later call); None takes a temporary one.
        within: where that temporary one is made; None takes where this system has them.
        properties: broker properties over those chosen here.
        jvm: flags of the JVM for its memory and compilers, `QUICK_START` or `AS_SHIPPED`.
        fetch: whether missing jars may be fetched from Maven Central.
        say: is told in one line before anything that takes seconds.
    """

    def __init__(
        self,
        brokers: int = 1,
        base_port: int = 0,
        *,
        data: Path | None = None,
        within: Path | None = None,
        properties: Mapping[str, str] | None = None,
        jvm: Sequence[str] = QUICK_START,
        fetch: bool = True,
        say: Callable[[str], None] | None = None,
    ) -> None:
        super().__init__("", min(brokers, 3))
        self.brokers = brokers
        self._base_port = base_port
        self._kept = data
        self._within = within
        self._properties = dict(properties or {})
        self._jvm = tuple(jvm)
        self._fetch = fetch
        self._say = say
        self._record_classes_to: Path | None = None
        self._nodes: list[_Node] = []
        self._folder = Path()
        self._cluster_id = ""
        self._launcher: ThreadPoolExecutor | None = None

    def __enter__(self) -> KafkaCluster:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def bootstrap(self) -> str:
        """The value for `bootstrap.servers`."""
        return ",".join(f"{HOST}:{node.port}" for node in self._nodes)

    @property
    def folder(self) -> Path:
        """Where the nodes keep their data and write their warnings."""
        return self._folder

    def port(self, index: int) -> int:
        """The port on which node `index` serves clients."""
        return self._nodes[index].port

    def pid(self, index: int) -> int | None:
        """The process id of node `index`; None while it is down."""
        process = self._nodes[index].process
        return None if process is None else process.pid

    def start(self) -> None:
        """Starts all nodes and waits until they serve.

        Raises:
            KafkaUnavailable: no java, no jars, a port is taken, or a node ended.
        """
        home = jars.ensure(self._fetch, say=self._say).parent
        if self._record_classes_to is None:
            prepare(home, self._say)
        try:
            self._lay_out(home)
            self._launcher = ThreadPoolExecutor(1, thread_name_prefix="kafka-launcher")
            for index in range(self.brokers):
                self.start_broker(index)
            self.wait_ready()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Ends what was started, frozen or not, and removes the temporary folder. May be called again."""
        if self._launcher is not None:
            self._launcher.shutdown(wait=False, cancel_futures=True)
        self._admin = None
        if self._kept is not None:
            for node in self._nodes:
                node.send_signal(signal.SIGTERM)
                node.send_signal(signal.SIGCONT)
        deadline = time.monotonic() + STOP_TIMEOUT_SECONDS
        for node in self._nodes:
            node.end(0.0 if self._kept is None else max(0.1, deadline - time.monotonic()))
            node.release()
        if self._launcher is not None:
            self._launcher.shutdown()
            self._launcher = None
        self._nodes = []
        if self._kept is None and self._folder != Path():
            shutil.rmtree(self._folder, ignore_errors=True)
            self._folder = Path()

    def freeze(self, index: int) -> None:
        """Stops node `index` where it stands: its connections stay open, and from now on nothing answers."""
        node = self._nodes[index]
        if node.process is not None:
            paused_process.stop(node.process)
        node.frozen = True

    def thaw(self, index: int) -> None:
        """Lets a frozen node go on."""
        node = self._nodes[index]
        node.send_signal(signal.SIGCONT)
        node.frozen = False

    def kill(self, index: int) -> None:
        """Ends node `index` at once (SIGKILL), as a crash would."""
        self._nodes[index].end()

    def stop_broker(self, index: int) -> None:
        """Ends node `index` in order (SIGTERM): it hands over what it leads before it goes."""
        self._nodes[index].end(STOP_TIMEOUT_SECONDS)

    def start_broker(self, index: int) -> None:
        """Starts node `index` again, on its old port and data; `wait_ready` tells when it serves."""
        node = self._nodes[index]
        if node.running:
            return
        if sys.platform != "linux":
            node.release()  # elsewhere nobody can listen beside a held port
        assert self._launcher is not None
        self._launcher.submit(self._launch, node).result()

    def restore(self) -> None:
        """Lets every node serve again, whatever was done to it."""
        for index in range(self.brokers):
            self.thaw(index)
            if self.pid(index) is None:
                self.start_broker(index)
        self.wait_ready()

    def wait_ready(self, timeout_seconds: float = START_TIMEOUT_SECONDS) -> None:
        """Waits until every node that is up and not frozen serves, and knows all the others of them.

        Each is asked itself: the others still name a killed node until its session ends.

        Raises:
            KafkaUnavailable: a node ended, or time is up.
        """
        deadline = time.monotonic() + timeout_seconds
        nodes = [node for node in self._nodes if node.process is not None and not node.frozen]
        wanted = {node.number for node in nodes}
        for node in nodes:
            pause = Pause()
            while not (_listens(node.port) and wanted <= _known_brokers(node.port)):
                for other in nodes:
                    if not other.running:
                        raise KafkaUnavailable(f"Kafka node {other.number} ended by itself: {other.complaint()}")
                if time.monotonic() > deadline:
                    raise KafkaUnavailable(
                        f"Kafka node {node.number} is not ready after {timeout_seconds:.0f} s: {node.complaint()}"
                    )
                pause.wait()

    def ended_node(self) -> str | None:
        """One line about a node that ended without being asked to; None while all is well."""
        for node in self._nodes:
            if node.process is not None and not node.running:
                return f"Kafka node {node.number} ended by itself: {node.complaint()}"
        return None

    def _lay_out(self, home: Path) -> None:
        if self._kept is None:
            self._folder = Path(tempfile.mkdtemp(prefix="kafka-", dir=self._within))
        else:
            self._folder = self._kept
            try:
                self._folder.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise KafkaUnavailable(f"{self._kept}: {error.strerror}: choose another folder for the data") from error
        self._cluster_id = self._identity()
        for index in range(self.brokers):
            folder = self._folder / f"node-{index + 1}"
            self._nodes.append(_Node(index + 1, folder, self._base_port + index if self._base_port else 0))
        for node in self._nodes:
            storage = node.folder / "storage"
            if not (storage / "meta.properties").exists():
                storage.mkdir(parents=True, exist_ok=True)
                shutil.copy(home / "bootstrap.checkpoint", storage)
                _write_properties(
                    storage / "meta.properties",
                    {
                        "version": "1",
                        "cluster.id": self._cluster_id,
                        "node.id": str(node.number),
                        "directory.id": _kafka_uuid(),
                    },
                )
            _write_properties(node.folder / "server.properties", self._server_properties(node))
            (node.folder / "log4j2.xml").write_text(_LOG4J.format(file=node.folder / "warnings.log"), encoding="utf-8")

    def _identity(self) -> str:
        """The cluster's id; a kept folder continues the cluster that it has."""
        file = self._folder / "cluster.json"
        try:
            known = json.loads(file.read_text(encoding="utf-8"))
        except FileNotFoundError:
            cluster_id = _kafka_uuid()
            file.write_text(json.dumps({"id": cluster_id, "brokers": self.brokers}), encoding="utf-8")
            return cluster_id
        if known["brokers"] != self.brokers:
            raise KafkaUnavailable(
                f"{self._folder} has the data of a cluster of {known['brokers']}: choose another folder or number"
            )
        return str(known["id"])

    def _server_properties(self, node: _Node) -> dict[str, str]:
        replication = str(self.replication)
        in_sync = str(min(2, self.replication - 1) or 1)
        properties = {
            "process.roles": "broker,controller",
            "node.id": str(node.number),
            "controller.quorum.voters": ",".join(
                f"{other.number}@{HOST}:{other.controller_port}" for other in self._nodes
            ),
            "controller.listener.names": "CONTROLLER",
            "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
            "listeners": f"PLAINTEXT://{HOST}:{node.port},CONTROLLER://{HOST}:{node.controller_port}",
            "advertised.listeners": f"PLAINTEXT://{HOST}:{node.port}",
            "log.dirs": str(node.folder / "storage"),
            "auto.create.topics.enable": "false",
            "num.partitions": "4",
            "default.replication.factor": replication,
            "min.insync.replicas": in_sync,
            "offsets.topic.replication.factor": replication,
            "offsets.topic.num.partitions": "1",
            "transaction.state.log.replication.factor": replication,
            "transaction.state.log.min.isr": in_sync,
            "transaction.state.log.num.partitions": "1",
            "share.coordinator.state.topic.replication.factor": replication,
            "share.coordinator.state.topic.min.isr": in_sync,
            "share.coordinator.state.topic.num.partitions": "1",
            # Small: a laptop, and hundreds of short-lived topics of a test run.
            "log.cleaner.dedupe.buffer.size": "2097152",
            "log.index.size.max.bytes": "1048576",
            "num.network.threads": "2",
            "num.io.threads": "4",
            "background.threads": "2",
            # Soon instead of after 9 to 45 s: a dead broker is fenced, a dead consumer's partitions go to another.
            "broker.heartbeat.interval.ms": "1000",
            "broker.session.timeout.ms": "5000",
            "group.initial.rebalance.delay.ms": "0",
            "group.min.session.timeout.ms": "1000",
            "group.consumer.min.session.timeout.ms": "1000",
            "group.consumer.session.timeout.ms": "6000",
            "group.consumer.min.heartbeat.interval.ms": "500",
            "group.consumer.heartbeat.interval.ms": "1000",
            # No records that say nothing, twice a second: a third of what a node does that nobody asks for anything.
            "metadata.max.idle.interval.ms": "0",
        }
        return properties | self._properties

    def _launch(self, node: _Node) -> None:
        """Runs in the launcher thread, see the head of the file."""
        home = jars.HOME
        java = jars.java()
        command = [java, *_JVM_FLAGS, *self._jvm]
        archive = home / "classes.jsa"
        if self._record_classes_to is not None:
            command.append(f"-XX:ArchiveClassesAtExit={self._record_classes_to}")
        elif archive.exists() and archive.stat().st_size > 0:
            command.append(f"-XX:SharedArchiveFile={archive}")
        command += [
            f"-Dlog4j2.configurationFile={node.folder / 'log4j2.xml'}",
            "-cp",
            jars.classpath(home / "libs"),
            "kafka.Kafka",
            str(node.folder / "server.properties"),
        ]
        output: IO[bytes]
        with (node.folder / "stdout.log").open("ab") as output:
            # A session of its own: Ctrl-C in a terminal is for the Python process alone, which then ends the JVMs.
            node.process = subprocess.Popen(
                tied(command), stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True
            )


def prepare(home: Path, say: Callable[[str], None] | None = None) -> None:
    """Makes once what lets nodes start quickly: a formatted metadata folder to copy, and the JVM's class archive.

    Raises:
        KafkaUnavailable: Kafka does not run at all with this java.
    """
    if all((home / name).exists() for name in jars.MADE_FROM_JARS):
        return
    say = say or (lambda line: print(line, file=sys.stderr, flush=True))
    with jars.locked(home):
        if not (home / "bootstrap.checkpoint").exists():
            say("preparing Kafka for quick starts (once, some 10 s) ...")
            _format(home)
        if not (home / "classes.jsa").exists():
            _record_classes(home)


def _format(home: Path) -> None:
    with tempfile.TemporaryDirectory(prefix="kafka-format-") as folder:
        file = Path(folder) / "server.properties"
        _write_properties(
            file,
            {
                "process.roles": "broker,controller",
                "node.id": "1",
                "controller.quorum.voters": f"1@{HOST}:1",
                "controller.listener.names": "CONTROLLER",
                "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
                "listeners": f"PLAINTEXT://{HOST}:2,CONTROLLER://{HOST}:1",
                "log.dirs": folder,
            },
        )
        command = [
            jars.java(),
            *_JVM_FLAGS,
            *QUICK_START,
            "-cp",
            jars.classpath(home / "libs"),
            "kafka.tools.StorageTool",
        ]
        command += ["format", "--ignore-formatted", "-t", _kafka_uuid(), "-c", str(file)]
        told = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
        if told.returncode != 0:
            lines = (told.stderr + told.stdout).strip().splitlines() or ["no output"]
            raise KafkaUnavailable(f"Kafka's storage tool failed: {lines[-1][:300]}")
        fresh = home / "bootstrap.checkpoint.new"
        shutil.copy(Path(folder) / "bootstrap.checkpoint", fresh)
        fresh.rename(home / "bootstrap.checkpoint")


def _record_classes(home: Path) -> None:
    """Lets one broker do its usual work and write, as it ends, which classes it had loaded.

    An empty file says that this JVM cannot: then brokers start without.
    """
    fresh = home / "classes.jsa.new"
    fresh.unlink(missing_ok=True)
    cluster = KafkaCluster(fetch=False)
    cluster._record_classes_to = fresh
    with cluster:
        cluster.create_topic("warm-up", 1)
        producer = Producer({**quiet_client(cluster.bootstrap), "enable.idempotence": True})
        producer.produce("warm-up", b"value", b"key")
        producer.flush(10)
        consumer = Consumer({**quiet_client(cluster.bootstrap), "group.id": "warm-up"})
        consumer.assign([TopicPartition("warm-up", 0, 0)])
        consumer.poll(10)
        consumer.close()
        cluster.stop_broker(0)
    if not fresh.exists():
        fresh.touch()
    fresh.rename(home / "classes.jsa")


def _hold_port(port: int) -> socket.socket:
    holder = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        holder.bind((HOST, port))
    except OSError as error:
        holder.close()
        if error.errno == errno.EADDRINUSE:
            raise KafkaUnavailable(
                f"port {port} is taken: end what listens there, or choose another (make kafka PORT={port + 10})"
            ) from error
        raise KafkaUnavailable(f"port {port} cannot be had: {error.strerror}") from error
    return holder


def _listens(port: int) -> bool:
    try:
        socket.create_connection((HOST, port), timeout=1).close()
    except OSError:
        return False
    return True


def _known_brokers(port: int) -> set[int]:
    try:
        return set(AdminClient(quiet_client(f"{HOST}:{port}")).list_topics(timeout=2).brokers)
    except KafkaException:
        return set()


def _kafka_uuid() -> str:
    return base64.urlsafe_b64encode(uuid.uuid4().bytes).decode("ascii").rstrip("=")


def _write_properties(file: Path, properties: Mapping[str, str]) -> None:
    file.write_text("".join(f"{key}={value}\n" for key, value in properties.items()), encoding="utf-8")
