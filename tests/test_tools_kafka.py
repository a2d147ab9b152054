"""The real Kafka that the other tests stand on: it has to start, fail and come back as told."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from confluent_kafka import KafkaError, KafkaException, Message, Producer
from confluent_kafka.admin import AdminClient
from confluent_kafka.admin._config import ConfigResource
from confluent_kafka.admin._resource import ResourceType

from tests.support.kafka import Bus, kafka_or_skip, real_bus
from tests.support.ports import free_port
from tools.kafka import cluster, jars
from tools.kafka.__main__ import main
from tools.kafka.cluster import KafkaCluster
from tools.kafka.jars import KafkaUnavailable
from tools.kafka.running import RunningKafka, quiet_client

pytestmark = pytest.mark.system

REPOSITORY = Path(__file__).resolve().parents[1]


def wait_until(condition: Callable[[], object], what: str, seconds: float = 30.0) -> None:
    deadline = time.monotonic() + seconds
    pause = threading.Event()
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds:g} s: {what}"
        pause.wait(0.02)


class Sender:
    """Produces one record at a time with acks=all, and remembers what became of the last one."""

    def __init__(self, bootstrap: str, topic: str, timeout_ms: int) -> None:
        self._topic = topic
        # What is in flight to a node that does not answer is given up after request.timeout.ms.
        # A request that is slow on a busy machine is then sent again: idempotence keeps that from being a second record.
        properties = {
            "acks": "all",
            "enable.idempotence": True,
            "message.timeout.ms": timeout_ms,
            "request.timeout.ms": 1000,
            "linger.ms": 0,
        }
        self._producer = Producer({**quiet_client(bootstrap), **properties})
        self._outcomes: list[str] = []

    def send(self, value: bytes, seconds: float = 30) -> str | None:
        """What became of it within so many seconds: "written", or the error's name; None if nothing is known yet."""
        self._outcomes.clear()
        self._producer.produce(self._topic, value, b"key", 0, on_delivery=self._on_delivery)
        return self.outcome(seconds)

    def outcome(self, seconds: float = 60) -> str | None:
        """What became of the last one, if nothing was known of it yet."""
        self._producer.flush(seconds)
        return self._outcomes[0] if self._outcomes else None

    def _on_delivery(self, error: KafkaError | None, _message: Message) -> None:
        self._outcomes.append("written" if error is None else error.name())


def test_bus_returns_what_was_produced_in_order(own_bus: Bus) -> None:
    assert own_bus.read_all() == []
    for number in range(20):
        own_bus.produce("KCN/EUR", f"{number}".encode())
    own_bus.produce(None, None, 3)
    own_bus.produce("BTC/EUR", b"order", topic=own_bus.order_topic)
    own_bus.flush()

    records = own_bus.read_all()
    keyed = [record for record in records if record.key == b"KCN/EUR"]
    assert [record.value for record in keyed] == [f"{number}".encode() for number in range(20)]
    assert len({record.partition for record in keyed}) == 1
    assert [(record.partition, record.value) for record in records if record.key is None] == [(3, None)]
    assert [(record.key, record.value) for record in own_bus.read_all(own_bus.order_topic)] == [(b"BTC/EUR", b"order")]
    assert own_bus.partitions() == [0, 1, 2, 3]


def test_topics_are_not_made_by_asking_for_them(real_kafka: RunningKafka) -> None:
    admin = AdminClient(quiet_client(real_kafka.bootstrap))
    assert admin.list_topics("misspelt", timeout=10).topics["misspelt"].error is not None


def test_frozen_broker_leaves_a_record_unanswered_until_it_is_thawed(broker: KafkaCluster) -> None:
    with real_bus(broker) as bus:
        sender = Sender(bus.bootstrap, bus.topic, 60_000)
        assert sender.send(b"before") == "written"
        broker.freeze(0)
        try:
            assert sender.send(b"while frozen", 1.5) is None  # past request.timeout.ms
        finally:
            broker.thaw(0)
        assert sender.outcome() == "written"
        assert [record.value for record in bus.read_all()] == [b"before", b"while frozen"]


def test_broker_keeps_its_port_and_records_when_it_is_stopped_and_started(broker: KafkaCluster) -> None:
    kafka = broker
    with real_bus(kafka) as bus:
        bus.produce("A/B", b"one")
        bus.flush()
        port, pid = kafka.port(0), kafka.pid(0)
        kafka.stop_broker(0)
        assert kafka.pid(0) is None
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", port), timeout=5).close()
        kafka.start_broker(0)
        kafka.wait_ready()
        assert kafka.port(0) == port
        assert kafka.pid(0) != pid
        assert [record.value for record in bus.read_all()] == [b"one"]


def test_port_of_a_stopped_broker_is_nobody_elses() -> None:
    holders = [cluster._hold_port(0) for _ in range(300)]
    try:
        ports = {holder.getsockname()[1] for holder in holders}
        assert len(ports) == len(holders)
        with contextlib.ExitStack() as others:
            for _ in range(300):
                other = others.enter_context(socket.socket())
                other.bind(("127.0.0.1", 0))
                assert other.getsockname()[1] not in ports
    finally:
        for holder in holders:
            holder.close()


def test_killed_leader_is_followed_by_another_and_a_write_needs_two_of_three_replicas(
    three_nodes: KafkaCluster,
) -> None:
    with real_bus(three_nodes) as bus:
        sender = Sender(bus.bootstrap, bus.topic, 30_000)
        assert sender.send(b"three") == "written"
        admin = AdminClient(quiet_client(bus.bootstrap))
        leader = admin.list_topics(bus.topic, timeout=10).topics[bus.topic].partitions[0].leader - 1
        three_nodes.kill(leader)
        assert sender.send(b"two") == "written"
        assert [record.value for record in bus.read_all()] == [b"three", b"two"]

        other = (leader + 1) % 3
        three_nodes.stop_broker(other)
        assert Sender(bus.bootstrap, bus.topic, 2_500).send(b"one") == "_MSG_TIMED_OUT"

        three_nodes.start_broker(leader)
        three_nodes.start_broker(other)
        three_nodes.wait_ready()
        assert Sender(bus.bootstrap, bus.topic, 20_000).send(b"all again") == "written"
        values = [record.value for record in bus.read_all()]
        assert [value for value in values if value != b"one"] == [b"three", b"two", b"all again"]


def test_frozen_cluster_can_be_closed_and_leaves_nothing() -> None:
    with kafka_or_skip() as kafka:
        folder, pid = kafka.folder, kafka.pid(0)
        assert pid is not None
        kafka.freeze(0)
        started = time.monotonic()
        kafka.close()
        assert time.monotonic() - started < 5
        assert not folder.exists()
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux ends the children of a killed process")
def test_brokers_end_when_the_process_that_started_them_is_killed(real_kafka: RunningKafka, tmp_path: Path) -> None:
    program = (
        "import pathlib, sys, time; from tools.kafka.cluster import KafkaCluster\n"
        "kafka = KafkaCluster(data=pathlib.Path(sys.argv[1])); kafka.start(); print(kafka.pid(0), flush=True)\n"
        "sys.stdin.read()"
    )
    arguments = [sys.executable, "-c", program, str(tmp_path)]
    with subprocess.Popen(arguments, cwd=REPOSITORY, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        broker = int(parent.stdout.readline())
        assert _state(broker) not in ("", "Z")
        parent.kill()
    wait_until(lambda: _state(broker) in ("", "Z"), "the broker ended with its parent")


def _state(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace").rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return ""


def test_program_serves_both_topics_until_it_is_interrupted(real_kafka: RunningKafka, tmp_path: Path) -> None:
    port = free_port()
    arguments = [sys.executable, "-m", "tools.kafka", "--port", str(port), "--data", str(tmp_path / "data")]
    for run in range(2):
        with subprocess.Popen(
            arguments, cwd=REPOSITORY, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        ) as program:
            try:
                assert program.stdout is not None
                told: list[str] = []
                while not told or "Ctrl-C" not in told[-1]:
                    told.append(program.stdout.readline())
                    assert told[-1], told
                assert f"KAFKA_BROKERS=127.0.0.1:{port} .venv/bin/python gateway.py" in "".join(told)
                bus = Bus.__new__(Bus)  # reads topics that are not its own
                bus.bootstrap, bus._producer = f"127.0.0.1:{port}", Producer(quiet_client(f"127.0.0.1:{port}"))
                assert bus.partitions("market-events") == [0, 1, 2, 3]
                kept = [record.value for record in bus.read_all("order-commands")]
                assert kept == [b"order"] * run
                bus._producer.produce("order-commands", b"order")
                assert bus._producer.flush(10) == 0
                config = _topic_config(bus.bootstrap, "order-commands")
                assert config["cleanup.policy"] == "delete"
                assert config["retention.ms"] == "604800000"
                with pytest.raises(KafkaUnavailable, match=f"port {port} is taken"):
                    KafkaCluster(base_port=port).start()
                program.send_signal(signal.SIGINT)
                rest = program.stdout.read()
                assert program.wait(30) == 0
                assert "Traceback" not in rest
            finally:
                program.kill()


def _topic_config(bootstrap: str, topic: str) -> dict[str, str | None]:
    admin = AdminClient(quiet_client(bootstrap))
    resource = ConfigResource(ResourceType.TOPIC, topic)
    entries = admin.describe_configs([resource])[resource].result(10)
    return {name: entry.value for name, entry in entries.items()}


def test_kept_data_of_another_number_of_brokers_is_refused(real_kafka: RunningKafka, tmp_path: Path) -> None:
    (tmp_path / "cluster.json").write_text('{"id": "AAAAAAAAAAAAAAAAAAAAAA", "brokers": 1}', encoding="utf-8")
    with pytest.raises(KafkaUnavailable, match="has the data of a cluster of 1"):
        KafkaCluster(3, data=tmp_path).start()


def test_broker_that_ends_at_start_says_why(real_kafka: RunningKafka) -> None:
    kafka = KafkaCluster(properties={"num.io.threads": "none"})
    with pytest.raises(KafkaUnavailable, match=r"node 1 ended by itself: .*num\.io\.threads"):
        kafka.start()
    assert kafka.ended_node() is None


def test_refused_topic_is_an_exception(real_kafka: RunningKafka) -> None:
    with pytest.raises(KafkaException):
        real_kafka.create_topic("no such/name")


# What can be missing, each in one line. Programs are stood in for by scripts on a PATH of their own.


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))
    monkeypatch.delenv("JAVA_HOME", raising=False)
    monkeypatch.setattr(jars, "HOME", tmp_path / ".kafka")
    jars.java.cache_clear()
    yield folder
    jars.java.cache_clear()


def stand_in(folder: Path, name: str, *, prints: str = "", code: int = 0) -> None:
    script = folder / name
    script.write_text(f"#!/bin/sh\n/bin/cat <<'END'\n{prints}\nEND\nexit {code}\n", encoding="utf-8")
    script.chmod(0o755)


JAVA_17 = 'openjdk version "17.0.15" 2025-04-15'


@pytest.mark.parametrize(
    ("java", "mvn", "reason"),
    [
        (None, None, "no java found: install Java 17 or newer"),
        ((JAVA_17, 1), None, "no mvn found to fetch Kafka's jars: install Maven"),
        (('java version "1.8.0_442"', 0), None, "is Java 8, Kafka 4"),
        (('openjdk version "11.0.2" 2019', 0), None, "is Java 11, Kafka 4"),
        (("?", 0), None, "does not tell its version"),
        ((JAVA_17, 0), ("[ERROR] Unknown host repo.example: Name or service not known", 1), "cannot be reached"),
        (
            (JAVA_17, 0),
            ("[ERROR] Could not find artifact a:b:1\n[ERROR] more", 1),
            "could not fetch Kafka's jars: Could",
        ),
        ((JAVA_17, 0), ("", 1), "mvn could not fetch"),
    ],
)
def test_program_says_in_one_line_what_is_missing(
    path: Path,
    capsys: pytest.CaptureFixture[str],
    java: tuple[str, int] | None,
    mvn: tuple[str, int] | None,
    reason: str,
) -> None:
    for name, program in (("java", java), ("mvn", mvn)):
        if program is not None:
            stand_in(path, name, prints=program[0], code=program[1])
    with _signals_restored():
        assert main(["--fetch"]) == 1
    told = capsys.readouterr().err
    assert told.startswith("kafka: ")
    assert reason in told
    assert told.count("\n") == 1


@contextlib.contextmanager
def _signals_restored() -> Iterator[None]:
    numbers = (signal.SIGTERM, signal.SIGHUP)
    before = [signal.getsignal(number) for number in numbers]
    try:
        yield
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)


def test_jars_are_not_fetched_when_that_is_not_wanted(path: Path) -> None:
    stand_in(path, "java", prints=JAVA_17)
    with pytest.raises(KafkaUnavailable, match="`make kafka` fetches them"):
        jars.ensure(fetch=False)


def test_jars_are_fetched_once_and_again_when_the_pom_changes(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in(path, "java", prints=JAVA_17)
    # Does what mvn does with these arguments, and nothing else: makes a jar in -DoutputDirectory.
    (path / "mvn").write_text(
        '#!/bin/sh\nfor a; do case $a in -DoutputDirectory=*) d=${a#*=};; esac; done\n/bin/mkdir "$d"; : >"$d/a.jar"\n',
        encoding="utf-8",
    )
    (path / "mvn").chmod(0o755)
    said: list[str] = []
    libs = jars.ensure(say=said.append)
    assert [file.name for file in libs.iterdir()] == ["a.jar"]
    (path / "mvn").unlink()
    assert jars.ensure(say=said.append) == libs
    assert len(said) == 1

    pom = path / "pom.xml"
    pom.write_text(jars.POM.read_text(encoding="utf-8") + "<!-- changed -->", encoding="utf-8")
    monkeypatch.setattr(jars, "POM", pom)
    with pytest.raises(KafkaUnavailable, match="no mvn found"):
        jars.ensure(say=said.append)


@pytest.mark.parametrize("arguments", [["--brokers", "0"], ["--port", "70000"], ["--port", "http"]])
def test_impossible_argument_is_refused(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with _signals_restored(), pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2
    told = capsys.readouterr().err
    assert told.startswith(f"kafka: argument {arguments[0]}: must be a number from 1 to ")
    assert told.count("\n") == 1


def test_missing_kafka_skips_unless_it_is_required(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("REQUIRE_KAFKA", raising=False)
    with pytest.raises(pytest.skip.Exception, match="no java found"), kafka_or_skip():
        pass
    monkeypatch.setenv("REQUIRE_KAFKA", "1")
    with pytest.raises(pytest.fail.Exception, match="no java found"), kafka_or_skip():
        pass
