"""The settings: every default, every rule, every source, and that no secret is ever shown."""

from __future__ import annotations

import os
import re
import socket
from dataclasses import FrozenInstanceError, fields
from decimal import Decimal
from ipaddress import IPv4Network, IPv6Network
from itertools import pairwise
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
import yaml
from hypothesis import HealthCheck, example, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from core.errors import SettingsError
from core.model import Instrument
from core.settings import (
    PUBLIC_NAMESPACE,
    Bind,
    Properties,
    Settings,
    load_settings,
    setting_fields,
    variable_of,
)
from core.settings_read import MAX_NODES, read_yaml

CONF = Path(__file__).parents[2] / "conf"
SECRET = "hunter2-hunter2-hunter2-hunter2-"
PEM = (
    "-----BEGIN PUBLIC KEY-----\n"
    "MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAE3u9JaBwb6AYk3vxwaXYy+ZNL98Ui\n"
    "U0+F0HvoNIMDUpSEw1LUarnUEjy1svji3rsjLOsLQBOtkcRkFIsrvqnPkg==\n"
    "-----END PUBLIC KEY-----\n"
)
NO_KEY = "auth.mode: required, and no key"

# The machine may be busy with other things; how long an example takes is not the claim.
UNHURRIED = hypothesis_settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])

Values = dict[str, Any]


def write(folder: Path, text: str | bytes) -> str:
    file = folder / "gateway.yaml"
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    return str(file)


@pytest.fixture
def load(tmp_path: Path) -> Any:
    def run(text: str | bytes = "", **environ: str) -> Settings:
        return load_settings(write(tmp_path, text), environ)[0]

    return run


@pytest.fixture
def warnings_of(tmp_path: Path) -> Any:
    def run(text: str = "", **environ: str) -> list[str]:
        return load_settings(write(tmp_path, text), environ)[1]

    return run


@pytest.fixture
def refusal(tmp_path: Path) -> Any:
    def run(text: str | bytes = "", **environ: str) -> SettingsError:
        path = write(tmp_path, text)
        with pytest.raises(SettingsError) as caught:
            load_settings(path, environ)
        assert len(str(caught.value).splitlines()) == 1
        if caught.value.source.startswith(path):
            caught.value.source = "FILE" + caught.value.source.removeprefix(path)
        return caught.value

    return run


def flat(settings: Any) -> Values:
    """Every setting by its dotted name, found without the loader's own walk."""
    found: Values = {}
    for one in fields(settings):
        value = getattr(settings, one.name)
        if type(value).__module__ == "core.settings":
            found |= {f"{one.name}.{name}": inner for name, inner in flat(value).items()}
        else:
            found[one.name] = value
    return found


# What conf/ says.


def uncommented() -> str:
    """conf/gateway.yaml with its settings taken out of their comments; prose has a space behind its #."""
    return re.sub(r"^( *)#(?=[a-z_]+:)", r"\1", (CONF / "gateway.yaml").read_text(), flags=re.MULTILINE)


def test_gateway_yaml_equals_the_defaults_as_it_stands() -> None:
    settings, warnings = load_settings(str(CONF / "gateway.yaml"), {})
    assert settings == Settings()
    assert [warning[: len(NO_KEY)] for warning in warnings] == [NO_KEY]


def test_gateway_yaml_equals_the_defaults_when_uncommented(load: Any) -> None:
    assert load(uncommented()) == Settings()


def test_gateway_yaml_names_every_setting_and_no_other() -> None:
    documented: set[str] = set()
    for key, value in yaml.safe_load(uncommented()).items():
        documented |= {f"{key}.{inner}" for inner in value} if isinstance(value, dict) else {key}
    assert documented == set(flat(Settings()))


def test_gateway_yaml_says_why_of_every_setting() -> None:
    lines = (CONF / "gateway.yaml").read_text().splitlines()
    lone = [
        after
        for before, after in pairwise(lines)
        if re.match(r" *#[a-z_]+:", after) and not re.match(r" *#( |[a-z_]+_per_second:|consumer:)", before)
    ]
    assert lone == []


def test_gateway_yaml_names_every_short_variable() -> None:
    text = (CONF / "gateway.yaml").read_text()
    short = [one.metadata["variable"] for _, one in setting_fields() if one.metadata["variable"]]
    assert sorted(short) == sorted(["BIND_ADDR", "JWT_SECRET", *re.findall(r"KAFKA_[A-Z_]+(?=\])", text)])
    assert "[BIND_ADDR; or PORT" in text and "[JWT_SECRET]" in text


def test_demo_yaml_is_a_market_on_one_machine() -> None:
    settings, warnings = load_settings(str(CONF / "demo.yaml"), {})
    assert (settings.bind, settings.drain_seconds, warnings) == (Bind("127.0.0.1", 3000), 1.0, [])
    assert settings.kafka.embedded and settings.kafka.consume == "broadcast" and settings.demo.exchange
    assert settings.auth.mode == "optional"
    assert [instrument.symbol for instrument in settings.instruments] == ["KCN/EUR", "BTC/EUR", "ETH/EUR"]
    assert settings.instruments[0] == Instrument("KCN/EUR", Decimal("0.01"), Decimal("0.001"), Decimal("0.001"))


def test_paas_yaml_reads_every_partition_and_takes_its_port_from_the_platform() -> None:
    settings, _ = load_settings(str(CONF / "paas.yaml"), {"PORT": "5000", "KAFKA_BROKERS": "kafka:9092"})
    assert settings.bind == Bind("0.0.0.0", 5000)
    assert (settings.kafka.brokers, settings.kafka.consume) == ("kafka:9092", "broadcast")


def test_settings_have_the_names_programs_rely_on() -> None:
    contract = """
        bind workers drain_seconds instruments kafka.brokers kafka.topic kafka.group_id kafka.order_topic kafka.consume
        kafka.poll_interval_ms kafka.idle_interval_ms kafka.warmup_seconds kafka.warmup_records kafka.consumer
        kafka.producer auth.mode auth.secret auth.public_key auth.jwks_url auth.algorithms auth.issuer auth.audience
        http.allowed_origins http.max_body_bytes http.trusted_proxies accounts.url hub.slice_ms
        websocket.ping_interval_seconds websocket.max_message_bytes websocket.max_buffer_bytes
        websocket.max_subscriptions websocket.max_views websocket.max_connections
        websocket.max_connections_per_address websocket.compression orders.ack_timeout_seconds
        orders.keep_terminal_seconds orders.id_secret orders.default_symbol limits.orders_per_second
        limits.orders_burst limits.cancels_per_second limits.cancels_burst limits.requests_per_second
        limits.requests_burst limits.connects_per_second limits.storage history.records history.seconds
    """
    ours = """
        log.level metrics.bind demo.exchange demo.trader auth.jwks_refresh_seconds auth.jwks_keep_seconds
        accounts.timeout_seconds accounts.max_connections limits.address_requests_per_second
        limits.address_connects_per_second limits.address_logins_per_second
    """
    assert set(flat(Settings())) == {*contract.split(), *ours.split()}


def test_defaults_are_the_contracts() -> None:
    settings = flat(Settings())
    assert (
        settings
        | {
            "bind": Bind("0.0.0.0", 3000),
            "workers": 1,
            "drain_seconds": 10.0,
            "kafka.brokers": "localhost:9092",
            "kafka.topic": "market-events",
            "kafka.group_id": "gateway",
            "kafka.order_topic": "order-commands",
            "kafka.consume": "shared",
            "kafka.poll_interval_ms": 1,
            "kafka.idle_interval_ms": 10,
            "kafka.warmup_seconds": 3600.0,
            "auth.mode": "required",
            "auth.secret": None,
            "http.max_body_bytes": 16 * 1024,
            "websocket.ping_interval_seconds": 20.0,
            "websocket.max_message_bytes": 16 * 1024,
            "websocket.max_buffer_bytes": 1024 * 1024,
            "websocket.max_connections_per_address": 0,
            "orders.ack_timeout_seconds": 5.0,
            "orders.keep_terminal_seconds": 86_400.0,
        }
        == settings
    )


def test_settings_cannot_be_changed() -> None:
    with pytest.raises(FrozenInstanceError):
        Settings().workers = 2  # type: ignore[misc]
    with pytest.raises((FrozenInstanceError, AttributeError, TypeError)):
        Settings().kafka.more = 1  # type: ignore[attr-defined]
    with pytest.raises(TypeError):
        Settings().kafka.consumer["a"] = 1  # type: ignore[index]


# Values that are taken.

ACCEPTED = [
    ("bind: 127.0.0.1:80", "bind", Bind("127.0.0.1", 80)),
    ("bind: 3001", "bind", Bind("0.0.0.0", 3001)),
    ("bind: :3001", "bind", Bind("0.0.0.0", 3001)),
    ('bind: "0"', "bind", Bind("0.0.0.0", 0)),
    ('bind: "[::1]:65535"', "bind", Bind("::1", 65535)),
    ("bind: my-host.example:1", "bind", Bind("my-host.example", 1)),
    ("workers: 0", "workers", 0),
    ("drain_seconds: 0.5", "drain_seconds", 0.5),
    ("kafka:", "kafka.topic", "market-events"),
    ("kafka: {brokers: 'a:1, [::1]:2,c_d.e-f:65535'}", "kafka.brokers", "a:1,[::1]:2,c_d.e-f:65535"),
    ("kafka: {brokers: ['a:1', 'b:2']}", "kafka.brokers", "a:1,b:2"),
    ("kafka: {brokers: embedded}", "kafka.brokers", "embedded"),
    ("kafka: {topic: no}", "kafka.topic", "no"),
    (f"kafka: {{topic: {'a' * 249}}}", "kafka.topic", "a" * 249),
    ("kafka: {topic: ..., order_topic: a.B_c-1}", "kafka.topic", "..."),
    ("kafka: {consume: broadcast}", "kafka.consume", "broadcast"),
    ("kafka: {poll_interval_ms: 10}", "kafka.poll_interval_ms", 10),
    ("kafka: {warmup_seconds: 0}", "kafka.warmup_seconds", 0.0),
    ("auth: {secret: null}", "auth.secret", None),
    ('auth: {secret: ""}', "auth.secret", None),
    (f"auth: {{secret: {SECRET}}}", "auth.secret", SECRET),
    (f"auth: {{public_key: {PEM!r}}}".replace("'", '"'), "auth.public_key", PEM),
    ("auth: {jwks_url: 'https://id.example:8443/keys?v=1'}", "auth.jwks_url", "https://id.example:8443/keys?v=1"),
    ("auth: {issuer: 'https://id.example'}", "auth.issuer", "https://id.example"),
    ("auth: {algorithms: [ES256, RS256]}", "auth.algorithms", ("ES256", "RS256")),
    ("accounts: {url: 'http://accounts:8000/api/'}", "accounts.url", "http://accounts:8000/api"),
    (
        "http: {allowed_origins: ['HTTPS://App.Example.COM:443', 'http://localhost:08080', 'http://[::1]:80', tauri://x]}",
        "http.allowed_origins",
        ("https://app.example.com", "http://localhost:8080", "http://[::1]", "tauri://x"),
    ),
    (
        "http: {trusted_proxies: [10.0.0.0/8, 'fd00::/8', 192.0.2.1]}",
        "http.trusted_proxies",
        (IPv4Network("10.0.0.0/8"), IPv6Network("fd00::/8"), IPv4Network("192.0.2.1/32")),
    ),
    ("hub: {slice_ms: 0.1}", "hub.slice_ms", 0.1),
    ("websocket: {compression: true}", "websocket.compression", True),
    ("websocket: {ping_interval_seconds: 0.05}", "websocket.ping_interval_seconds", 0.05),
    ("websocket: {max_connections: 0}", "websocket.max_connections", 0),
    (f"orders: {{id_secret: {UUID(int=5)}}}", "orders.id_secret", UUID(int=5)),
    ("orders: {default_symbol: KCN/EUR}", "orders.default_symbol", "KCN/EUR"),
    ("limits: {orders_per_second: 0}", "limits.orders_per_second", 0.0),
    ("limits: {storage: 'redis://:pw@cache:6379/0'}", "limits.storage", "redis://:pw@cache:6379/0"),
    ("history: {records: 1}", "history.records", 1),
    ("log: {level: debug}", "log.level", "debug"),
    ("metrics: {bind: ''}", "metrics.bind", None),
    ("metrics: {bind: 9100}", "metrics.bind", Bind("0.0.0.0", 9100)),
    ("demo: {exchange: FALSE}", "demo.exchange", False),
]


@pytest.mark.parametrize(("text", "name", "value"), ACCEPTED)
def test_setting_is_read_from_the_file(load: Any, text: str, name: str, value: Any) -> None:
    found = flat(load(text))[name]
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize(
    ("written", "value"),
    [
        ("0.10", "0.10"),
        ('"0.10"', "0.10"),
        ("1e-7", "1E-7"),
        ("5", "5"),
        ("0.30000000000000004", "0.30000000000000004"),
    ],
)
def test_instruments_keep_every_digit(load: Any, written: str, value: str) -> None:
    settings = load(f"instruments: [{{symbol: A/B, tick: {written}, lot: {written}, min_quantity: {written}}}]")
    assert [str(decimal) for decimal in vars_of(settings.instruments[0])] == [value] * 3


def vars_of(instrument: Instrument) -> list[Decimal]:
    return [instrument.tick, instrument.lot, instrument.min_quantity]


def test_instruments_may_have_no_least_quantity(load: Any) -> None:
    settings = load("instruments: [{symbol: A/B, tick: 1, lot: 1, min_quantity: 0}]\norders: {default_symbol: A/B}")
    assert settings.instruments == (Instrument("A/B", Decimal(1), Decimal(1), Decimal(0)),)


def test_file_may_be_empty_or_begin_with_a_byte_order_mark(load: Any) -> None:
    assert load("") == load("---\n") == Settings()
    assert load(b"\xef\xbb\xbfworkers: 3").workers == 3


def test_anchors_are_followed(load: Any) -> None:
    document = "instruments: [{symbol: A/B, tick: &t 0.10, lot: *t, min_quantity: *t}]"
    assert [str(decimal) for decimal in vars_of(load(document).instruments[0])] == ["0.10"] * 3


def test_group_id_is_filled_in(load: Any) -> None:
    settings = load("kafka: {group_id: 'g-{hostname}-{pid}'}")
    assert settings.kafka.group_id == f"g-{socket.gethostname()}-{os.getpid()}"


def test_properties_keep_their_types(load: Any) -> None:
    settings = load(
        "kafka: {consumer: {sasl.password: p, fetch.min.bytes: 1, check.crcs: true, enable.auto.commit: false,"
        " group.protocol: classic, partition.assignment.strategy: range, auto.offset.reset: error},"
        " producer: {acks: -1, linger.ms: 0.5, enable.idempotence: true, partitioner: fnv1a, compression.type: lz4}}"
    )
    assert dict(settings.kafka.consumer) == {
        "sasl.password": "p",
        "fetch.min.bytes": 1,
        "check.crcs": True,
        "enable.auto.commit": False,
        "group.protocol": "classic",
        "partition.assignment.strategy": "range",
        "auto.offset.reset": "error",
    }
    assert settings.kafka.producer["linger.ms"] == 0.5 and isinstance(settings.kafka.producer["linger.ms"], float)
    assert len(settings.kafka.producer) == 5


# Values that are refused: file, key and expectation are named.

REFUSED = [
    ("worker: 1", "worker", "unknown setting; did you mean workers?"),
    ("zzz: 1", "zzz", "unknown setting"),
    ("kafka: {topik: }", "kafka.topik", "unknown setting; did you mean topic?"),
    ("kafka: {topik: a}", "kafka.topik", "unknown setting; did you mean topic?"),
    ("brokers: a:1", "brokers", "unknown setting; did you mean kafka.brokers?"),
    ("'a b=c': 1", "a key that is not a name or has no value", "unknown setting"),
    ("[1, 2]", "", "expected a map of settings"),
    ("kafka: 5", "kafka", "expected a map of settings"),
    ("workers: '1'", "workers", 'expected a whole number from 0 to 256, got "1"'),
    ("workers: true", "workers", "expected a whole number from 0 to 256, got true"),
    ("workers: 1.0", "workers", "got 1.0"),
    ("workers: -1", "workers", "got -1"),
    ("workers: 257", "workers", "got 257"),
    ("workers:", "workers", "got nothing"),
    ("workers: []", "workers", "got a list"),
    ("workers: {}", "workers", "got a map"),
    (f"workers: {'x' * 25}", "workers", "got text"),
    ("workers: 1_0", "workers", 'got "1_0"'),
    ("drain_seconds: -0.1", "drain_seconds", "expected a number from 0 to 3600, got -0.1"),
    ("drain_seconds: .inf", "drain_seconds", 'got ".inf"'),
    ("drain_seconds: 1e400", "drain_seconds", "got 1E+400"),
    ("drain_seconds: false", "drain_seconds", "got false"),
    ("drain_seconds: 10s", "drain_seconds", 'got "10s"'),
    ("drain_seconds: 2001-01-01", "drain_seconds", 'got "2001-01-01"'),
    ("bind: true", "bind", "expected host:port"),
    ("bind: localhost", "bind", "expected host:port"),
    ("bind: 'a b:1'", "bind", "expected host:port"),
    ("bind: ':65536'", "bind", "from 0 to 65535"),
    ("bind: '::1:3000'", "bind", "expected host:port"),
    ("bind: '[12345::]:3000'", "bind", "expected host:port"),
    ("bind:", "bind", "expected host:port"),
    ("metrics: {bind: x}", "metrics.bind", "expected host:port"),
    ("kafka: {brokers: kafka}", "kafka.brokers", "expected host:port,host:port"),
    ("kafka: {brokers: embeded}", "kafka.brokers", "or embedded"),
    ("kafka: {brokers: 'a:0'}", "kafka.brokers", "ports from 1 to 65535"),
    ("kafka: {brokers: 'a:1,'}", "kafka.brokers", "expected host:port"),
    ("kafka: {brokers: ''}", "kafka.brokers", "expected host:port"),
    ("kafka: {brokers: []}", "kafka.brokers", "expected host:port"),
    ("kafka: {brokers: [1]}", "kafka.brokers", "expected host:port"),
    ("kafka: {brokers: 9092}", "kafka.brokers", "expected host:port"),
    ("kafka: {brokers: 'user:pw@a:1'}", "kafka.brokers", "without credentials"),
    ("kafka: {brokers: 'SSL://a:1'}", "kafka.brokers", "without a scheme"),
    ("kafka: {topic: ..}", "kafka.topic", "not '.' or '..'"),
    (f"kafka: {{topic: {'a' * 250}}}", "kafka.topic", "1 to 249"),
    ("kafka: {topic: a/b}", "kafka.topic", "expected a topic name"),
    ("kafka: {topic: 5}", "kafka.topic", "expected a topic name; put it in quotes"),
    ("kafka: {topic: order-commands}", "kafka.order_topic", "expected another topic than kafka.topic"),
    ("kafka: {group_id: ''}", "kafka.group_id", "expected one line of text"),
    ('kafka: {group_id: "a\\nb"}', "kafka.group_id", "expected one line of text"),
    ("kafka: {group_id: '{host}'}", "kafka.group_id", "expected only {hostname} and {pid} in braces"),
    ("kafka: {group_id: 'a}'}", "kafka.group_id", "in braces"),
    ("kafka: {consume: all}", "kafka.consume", 'expected shared or broadcast, got "all"'),
    ("kafka: {consume: broadcst}", "kafka.consume", "did you mean broadcast?"),
    ("kafka: {consume: true}", "kafka.consume", "got true"),
    ("kafka: {poll_interval_ms: 0}", "kafka.poll_interval_ms", "from 1 to 1000"),
    ("kafka: {poll_interval_ms: 11}", "kafka.poll_interval_ms", "expected at most kafka.idle_interval_ms (10)"),
    ("kafka: {brokers: embedded}\nworkers: 2", "workers", "expected 1, because kafka.brokers: embedded"),
    ("kafka: {brokers: embedded}\nworkers: 0", "workers", "expected 1, because kafka.brokers: embedded"),
    ("kafka: {consumer: 5}", "kafka.consumer", "expected a map of librdkafka properties"),
    ("kafka: {consumer: {Fetch: 5}}", "kafka.consumer.Fetch", "expected the name of a librdkafka property"),
    ("kafka: {consumer: {a.b: [1]}}", "kafka.consumer.a.b", "expected text, a number, true or false"),
    ("kafka: {consumer: {a.b: }}", "kafka.consumer", "a property without a value"),
    ("kafka: {consumer: {error_cb: x}}", "kafka.consumer.error_cb", "is code"),
    ("kafka: {consumer: {bootstrap.servers: x}}", "kafka.consumer.bootstrap.servers", "kafka.brokers"),
    ("kafka: {consumer: {group.id: x}}", "kafka.consumer.group.id", "kafka.group_id"),
    ("kafka: {consumer: {enable.auto.commit: true}}", "kafka.consumer.enable.auto.commit", "never decide"),
    ("kafka: {consumer: {auto.offset.reset: latest}}", "kafka.consumer.auto.offset.reset", "gap"),
    ("kafka: {consumer: {enable.partition.eof: false}}", "kafka.consumer.enable.partition.eof", "its end"),
    ("kafka: {consumer: {test.mock.num.brokers: 1}}", "kafka.consumer.test.mock.num.brokers", "embedded"),
    ("kafka: {consumer: {group.protocol: consumer}}", "kafka.consumer.group.protocol", "eagerly"),
    (
        "kafka: {consumer: {partition.assignment.strategy: cooperative-sticky}}",
        "kafka.consumer.partition.assignment.strategy",
        "eagerly",
    ),
    ("kafka: {producer: {acks: 1}}", "kafka.producer.acks", "all in-sync replicas"),
    ("kafka: {producer: {enable.idempotence: false}}", "kafka.producer.enable.idempotence", "twice"),
    ("kafka: {producer: {transactional.id: x}}", "kafka.producer.transactional.id", "transactions"),
    ("kafka: {producer: {message.timeout.ms: 1}}", "kafka.producer.message.timeout.ms", "orders.ack_timeout_seconds"),
    ("kafka: {producer: {partitioner: random}}", "kafka.producer.partitioner", "one partition"),
    ("kafka: {producer: {delivery.report.only.error: true}}", "kafka.producer.delivery.report.only.error", "report"),
    ("auth: {mode: off}", "auth.mode", 'expected required or optional, got "off"'),
    ("auth: {secret: 12345678901234567890123456789012}", "auth.secret", "put it in quotes"),
    ("auth: {secret: [a]}", "auth.secret", "expected text"),
    (f"auth: {{secret: {SECRET[:31]}}}", "auth.secret", "expected at least 32 bytes for HS256"),
    ("auth: {secret: '-----BEGIN PUBLIC KEY-----'}", "auth.secret", "auth.public_key"),
    ("auth: {secret: ssh-rsa AAAAB3NzaC1yc2EAAAADAQABAAABgQ}", "auth.secret", "SSH key"),
    ("auth: {public_key: abc}", "auth.public_key", "PEM"),
    (f"auth: {{public_key: {PEM.replace('M', 'N', 1)!r}}}".replace("'", '"'), "auth.public_key", "cannot be read"),
    ("auth: {public_key: '-----BEGIN EC PRIVATE KEY-----'}", "auth.public_key", "got a private one"),
    ("auth: {jwks_url: 'ftp://a/'}", "auth.jwks_url", "http:// or https://"),
    ("auth: {jwks_url: 'https://u:p@a/'}", "auth.jwks_url", "without credentials"),
    ("auth: {jwks_url: 'https://a/#f'}", "auth.jwks_url", "http:// or https://"),
    ("auth: {jwks_url: 'https://a:b/'}", "auth.jwks_url", "http:// or https://"),
    ("auth: {jwks_url: 'https:///a'}", "auth.jwks_url", "http:// or https://"),
    ("accounts: {url: 'https://a b/'}", "accounts.url", "http:// or https://"),
    ("accounts: {url: 5}", "accounts.url", "http:// or https://"),
    ("auth: {algorithms: HS256}", "auth.algorithms", "expected a list out of HS256, RS256, ES256"),
    ("auth: {algorithms: [HS256, none]}", "auth.algorithms[1]", 'got "none"'),
    ("auth: {algorithms: [HS256, HS256]}", "auth.algorithms[1]", "is in the list twice"),
    ("auth: {issuer: 5}", "auth.issuer", "expected text; put it in quotes"),
    ("http: {allowed_origins: ['*']}", "http.allowed_origins[0]", "no wildcard"),
    ("http: {allowed_origins: ['https://*.a.b']}", "http.allowed_origins[0]", "no wildcard"),
    ("http: {allowed_origins: ['https://a/']}", "http.allowed_origins[0]", "no path"),
    ("http: {allowed_origins: ['http://a', 'null']}", "http.allowed_origins[1]", "expected an origin"),
    ("http: {allowed_origins: ['http://[:::]']}", "http.allowed_origins[0]", "expected an origin"),
    ("http: {allowed_origins: ['http://a:0']}", "http.allowed_origins[0]", "expected an origin"),
    ("http: {allowed_origins: ['http://a:80', 'http://A']}", "http.allowed_origins[1]", "twice"),
    ("http: {allowed_origins: [5]}", "http.allowed_origins[0]", "an origin such as"),
    ("http: {trusted_proxies: [10.0.0.1/8]}", "http.trusted_proxies[0]", "no bits set behind /N"),
    ("http: {trusted_proxies: [5]}", "http.trusted_proxies[0]", "expected a network"),
    ("websocket: {compression: yes}", "websocket.compression", 'expected true or false, got "yes"'),
    ("websocket: {compression: 1}", "websocket.compression", "got 1"),
    ("orders: {id_secret: abc}", "orders.id_secret", "expected a UUID"),
    ("orders: {id_secret: 5}", "orders.id_secret", "expected a UUID"),
    ("orders: {default_symbol: KCN.EUR}", "orders.default_symbol", "expected a symbol such as KCN/EUR"),
    ("orders: {default_symbol: 5}", "orders.default_symbol", "expected a symbol"),
    ("limits: {storage: 'http://a'}", "limits.storage", "expected memory, or redis://"),
    ("log: {level: loud}", "log.level", "expected debug or info or warning or error"),
    ("instruments: {}", "instruments", "expected a list of {symbol, tick, lot, min_quantity}"),
    ("instruments: [A/B]", "instruments[0]", "expected a map of symbol, tick, lot, min_quantity"),
    ("instruments: [{symbol: A/B, tik: 1}]", "instruments[0].tik", "unknown; did you mean tick?"),
    ("instruments: [{symbol: A/B, tick: 1}]", "instruments[0].lot", "is missing"),
    ("a: [", "", "not YAML: expected the node content, but found '<stream end>'"),
    ("workers: 1\nworkers: 2", "", "workers is given twice"),
    ("kafka: {consumer: {a.b: 1, a.b: 1}}", "", "a.b is given twice"),
    ("1: 2", "", "a key that is not a name"),
    ("? [a]\n: 2", "", "a key that is not a name"),
    ("a: !!python/name:os.system x", "", "a tag that settings do not use"),
    ("a: !!set {b}", "", "a tag that settings do not use"),
    ("a: !!int b", "", "a tag that settings do not use"),
    ("a: 1\n---\nb: 2", "", "not YAML"),
    ("a: *b", "", "not YAML: found undefined alias"),
    ("&a [*a]", "", "not YAML for settings: too large or nested too deeply"),
    ("[" * 3000, "", "not YAML: nested too deeply"),
    ("a: \x01", "", "not YAML: a character that is not allowed"),
    ('a: "\\ud800"', "", "text that is not Unicode"),
    ('a: "\\UFFFFFFFF"', "", "not YAML: a number or an escape out of range"),
    (f"a: {'1' * 65}", "", "a number of more than 64 characters"),
    ("a: 1e99999999999999999999", "", "a number with too large an exponent"),
    ("<<: {workers: 2}", "a key that is not a name or has no value", "unknown setting"),
]


@pytest.mark.parametrize(("text", "key", "expected"), REFUSED)
def test_setting_is_refused(refusal: Any, text: str, key: str, expected: str) -> None:
    error = refusal(text)
    assert error.key == key
    assert expected in error.expected
    assert re.fullmatch(r"FILE(:\d+)?", error.source)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("symbol", "AB"),
        ("symbol", "5"),
        ("tick", "0"),
        ("lot", "-0.1"),
        ("min_quantity", "-1"),
        ("tick", "true"),
        ("tick", "[1]"),
        ("tick", "abc"),
        ("tick", "'1e'"),
        ("lot", "1e99"),
        ("lot", ""),
    ],
)
def test_instruments_refuse_a_field_that_cannot_be(refusal: Any, field: str, value: str) -> None:
    item = {"symbol": "A/B", "tick": "1", "lot": "1", "min_quantity": "0"} | {field: value}
    text = f"instruments: [{{{', '.join(f'{name}: {inner}' for name, inner in item.items())}}}]"
    error = refusal(text)
    assert error.key == f"instruments[0].{field}"
    assert error.expected.startswith("expected a symbol" if field == "symbol" else "expected a decimal")


def test_instruments_refuse_a_symbol_twice(refusal: Any) -> None:
    one, other = (f"{{symbol: A/B, tick: {tick}, lot: 1, min_quantity: 1}}" for tick in (1, 2))
    error = refusal(f"instruments: [{one}, {other}]")
    assert (error.key, error.expected) == ("instruments[1].symbol", "A/B is in the list twice")


def test_default_symbol_has_to_be_an_instrument(refusal: Any) -> None:
    error = refusal("instruments: [{symbol: A/B, tick: 1, lot: 1, min_quantity: 1}]\norders:\n  default_symbol: C/D\n")
    assert (error.key, error.expected) == ("orders.default_symbol", "expected one of instruments")
    assert error.source == "FILE:3"


def test_refusal_names_the_line(refusal: Any) -> None:
    assert refusal("workers: 1\nkafka:\n  # why\n  topik: a\n").source == "FILE:4"
    assert refusal("workers: 1\nworkers: 2\n").source == "FILE:2"
    assert refusal("workers: 1\na: b: c\n").source == "FILE:2"
    assert refusal(b"workers: 1\na: \xff\n").source == "FILE:2"
    assert refusal("workers: 1\na: \x01\n").source == "FILE:2"


def test_refusal_is_one_line_with_file_key_and_expectation(tmp_path: Path) -> None:
    path = write(tmp_path, "kafka:\n  consume: all\n")
    with pytest.raises(SettingsError) as caught:
        load_settings(path, {})
    assert str(caught.value) == f'{path}:2: kafka.consume: expected shared or broadcast, got "all"'


def test_file_that_cannot_be_read_is_refused(tmp_path: Path, refusal: Any) -> None:
    for path, reason in [
        (str(tmp_path / "none.yaml"), "cannot be read: No such file or directory"),
        (str(tmp_path), "cannot be read: Is a directory"),
        ("a\0b", "cannot be read: not a file's name"),
    ]:
        with pytest.raises(SettingsError) as caught:
            load_settings(path, {})
        assert (caught.value.key, caught.value.expected) == ("", reason)
    assert refusal("#" * (1024 * 1024 + 1)).expected == "expected at most 1048576 bytes"


def test_file_name_with_a_line_break_keeps_the_message_on_one_line() -> None:
    with pytest.raises(SettingsError) as caught:
        load_settings("no\nsuch\x1b[31mfile", {})
    assert str(caught.value) == "no?such?[31mfile: cannot be read: No such file or directory"


def test_yaml_that_grows_by_aliases_is_refused() -> None:
    rows = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    rows += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 10)]
    with pytest.raises(Exception, match="too large"):
        read_yaml("\n".join(rows))


def test_yaml_may_be_as_large_as_the_bound() -> None:
    assert len(read_yaml(f"[{'1,' * (MAX_NODES - 1)}]")[0]) == MAX_NODES - 1  # type: ignore[arg-type]


# The environment.


def test_environment_alone_is_enough() -> None:
    settings, warnings = load_settings(None, {"JWT_SECRET": SECRET})
    assert flat(settings) == flat(Settings()) | {"auth.secret": SECRET, "auth.algorithms": ("HS256",)}
    assert warnings == []


ENVIRONMENT = [
    ("KAFKA_BROKERS", "a:1,b:2", "kafka.brokers", "a:1,b:2"),
    ("KAFKA_BROKERS", "embedded", "kafka.brokers", "embedded"),
    ("KAFKA_TOPIC", "123", "kafka.topic", "123"),
    ("KAFKA_GROUP_ID", "true", "kafka.group_id", "true"),
    ("KAFKA_ORDER_TOPIC", "o", "kafka.order_topic", "o"),
    ("KAFKA_CONSUME", "broadcast", "kafka.consume", "broadcast"),
    ("BIND_ADDR", "127.0.0.1:0", "bind", Bind("127.0.0.1", 0)),
    ("BIND_ADDR", "3000", "bind", Bind("0.0.0.0", 3000)),
    ("PORT", "8080", "bind", Bind("0.0.0.0", 8080)),
    ("JWT_SECRET", "a: b # c", "auth.secret", "a: b # c"),
    ("GATEWAY_AUTH_MODE", "optional", "auth.mode", "optional"),
    ("GATEWAY_AUTH_ISSUER", "123", "auth.issuer", "123"),
    ("GATEWAY_AUTH_PUBLIC_KEY", PEM.replace("\n", "\\n"), "auth.public_key", PEM),
    ("GATEWAY_AUTH_ALGORITHMS", "[RS256]", "auth.algorithms", ("RS256",)),
    ("GATEWAY_WORKERS", "4", "workers", 4),
    ("GATEWAY_DRAIN_SECONDS", "0.5", "drain_seconds", 0.5),
    ("GATEWAY_KAFKA_POLL_INTERVAL_MS", "2", "kafka.poll_interval_ms", 2),
    ("GATEWAY_HTTP_ALLOWED_ORIGINS", "[http://a:1, http://b]", "http.allowed_origins", ("http://a:1", "http://b")),
    ("GATEWAY_WEBSOCKET_COMPRESSION", "true", "websocket.compression", True),
    ("GATEWAY_KAFKA_PRODUCER", "{linger.ms: 5}", "kafka.producer", Properties({"linger.ms": 5})),
    ("GATEWAY_METRICS_BIND", "127.0.0.1:9100", "metrics.bind", Bind("127.0.0.1", 9100)),
    ("GATEWAY_DEMO_EXCHANGE", "true", "demo.exchange", True),
    (
        "GATEWAY_INSTRUMENTS",
        "[{symbol: A/B, tick: 0.10, lot: 1, min_quantity: 0}]",
        "instruments",
        (Instrument("A/B", Decimal("0.10"), Decimal(1), Decimal(0)),),
    ),
]


@pytest.mark.parametrize(("variable", "text", "name", "value"), ENVIRONMENT)
def test_setting_is_read_from_its_variable(variable: str, text: str, name: str, value: Any) -> None:
    settings, _ = load_settings(None, {variable: text, "GATEWAY_AUTH_MODE": "optional"})
    assert flat(settings)[name] == value


def test_environment_wins_over_the_file(load: Any) -> None:
    settings = load("bind: a:1\nworkers: 2\nkafka: {topic: f}", BIND_ADDR="b:2", GATEWAY_WORKERS="3", KAFKA_TOPIC="e")
    assert (settings.bind, settings.workers, settings.kafka.topic) == (Bind("b", 2), 3, "e")


def test_file_is_checked_where_the_environment_wins(refusal: Any) -> None:
    assert refusal("workers: x", GATEWAY_WORKERS="3").key == "workers"


def test_port_wins_over_the_file_and_loses_to_bind_addr(load: Any) -> None:
    assert load("bind: a:1", PORT="5").bind == Bind("0.0.0.0", 5)
    assert load("bind: a:1", PORT="5", BIND_ADDR="b:6").bind == Bind("b", 6)
    assert load("bind: a:1", PORT="tcp://10.0.0.1:80", BIND_ADDR="b:6").bind == Bind("b", 6)


def test_empty_variable_counts_as_not_set(load: Any) -> None:
    names = {variable_of(name, one): "" for name, one in setting_fields()}
    assert load("workers: 2\nbind: a:1", **names, PORT="").workers == 2


def test_every_setting_has_its_own_variable() -> None:
    variables = [variable_of(name, one) for name, one in setting_fields()]
    assert len(set(variables)) == len(variables)
    assert all(re.fullmatch(r"GATEWAY_[A-Z_]+|KAFKA_[A-Z_]+|BIND_ADDR|JWT_SECRET", name) for name in variables)


@pytest.mark.parametrize(
    ("variable", "text", "key", "expected"),
    [
        ("GATEWAY_WORKERS", "two", "workers", 'expected a whole number from 0 to 256, got "two"'),
        ("GATEWAY_WORKERS", "'2'", "workers", 'got "2"'),
        ("GATEWAY_WORKERS", "[", "workers", "not YAML"),
        ("GATEWAY_WORKERS", "\ud800", "workers", "not YAML"),
        ("GATEWAY_WEBSOCKET_COMPRESSION", "on", "websocket.compression", "expected true or false"),
        ("GATEWAY_HTTP_ALLOWED_ORIGINS", "http://a", "http.allowed_origins", "expected a list of origins"),
        ("GATEWAY_KAFKA_CONSUMER", "{group.id: x}", "kafka.consumer.group.id", "kafka.group_id"),
        ("GATEWAY_INSTRUMENTS", "[{symbol: x}]", "instruments[0].tick", "is missing"),
        ("KAFKA_BROKERS", "a", "kafka.brokers", "expected host:port"),
        ("KAFKA_GROUP_ID", "a\ud800", "kafka.group_id", "in UTF-8"),
        ("JWT_SECRET", "\udcff" * 40, "auth.secret", "in UTF-8"),
        ("BIND_ADDR", "localhost", "bind", "expected host:port"),
        ("PORT", "65536", "bind", "expected a port from 0 to 65535"),
        ("PORT", "tcp://10.0.0.1:80", "bind", "expected a port"),
        ("PORT", "٣", "bind", "expected a port"),
        ("PORT", "-1", "bind", "expected a port"),
        ("PORT", "9" * 5000, "bind", "expected a port"),
        ("KAFKA_ORDER_TOPIC", "market-events", "kafka.order_topic", "another topic"),
    ],
)
def test_variable_is_refused_by_its_name(variable: str, text: str, key: str, expected: str) -> None:
    with pytest.raises(SettingsError) as caught:
        load_settings(None, {variable: text})
    assert (caught.value.source, caught.value.key) == (variable, key)
    assert expected in caught.value.expected


def test_unknown_variable_is_only_warned_of() -> None:
    environ = {
        "GATEWAY_PORT": "tcp://10.0.0.1:80",
        "GATEWAY_AUTH_MOD": "optional",
        "GATEWAY_KAFKA_BROKERS": "a:1",
        "GATEWAY_\n": "x",
        "HOME": "/",
    }
    _, warnings = load_settings(None, environ | {"GATEWAY_AUTH_MODE": "optional"})
    assert warnings == [
        "GATEWAY_?: not a setting, ignored",
        "GATEWAY_AUTH_MOD: not a setting, ignored; did you mean GATEWAY_AUTH_MODE?",
        "GATEWAY_KAFKA_BROKERS: not a setting, ignored; did you mean KAFKA_BROKERS?",
        "GATEWAY_PORT: not a setting, ignored",
    ]


# Settings that depend on each other.


@pytest.mark.parametrize("workers", ["0", "2"])
def test_several_workers_read_every_partition(load: Any, warnings_of: Any, workers: str) -> None:
    assert load(GATEWAY_WORKERS=workers).kafka.consume == "broadcast"
    assert not any("kafka.consume" in warning for warning in warnings_of(GATEWAY_WORKERS=workers))
    assert not any("kafka.consume" in w for w in warnings_of("kafka: {consume: broadcast}", GATEWAY_WORKERS=workers))


def test_several_workers_overrule_shared_with_a_warning(load: Any, warnings_of: Any) -> None:
    text = "workers: 2\nkafka: {consume: shared}"
    assert load(text).kafka.consume == "broadcast"
    assert "kafka.consume: broadcast, and not shared as set, because workers is not 1" in warnings_of(text)


def test_one_worker_stays_in_its_group(load: Any) -> None:
    assert load("workers: 1").kafka.consume == "shared"


def test_embedded_broker_for_several_workers_is_blamed_on_who_asked_for_them(refusal: Any) -> None:
    assert refusal("kafka: {brokers: embedded}", GATEWAY_WORKERS="2").source == "GATEWAY_WORKERS"


@pytest.mark.parametrize(
    ("text", "algorithms"),
    [
        ("", ()),
        (f"auth: {{secret: {SECRET}}}", ("HS256",)),
        ("auth: {jwks_url: 'https://a'}", ("RS256", "ES256")),
        (f"auth: {{secret: {SECRET}, jwks_url: 'https://a'}}", ("HS256", "RS256", "ES256")),
        (f"auth: {{secret: {SECRET}, algorithms: []}}", ("HS256",)),
        (f"auth: {{secret: {SECRET}, jwks_url: 'https://a', algorithms: [ES256]}}", ("ES256",)),
        ("auth: {secret: ''}", ()),
    ],
)
def test_algorithms_follow_from_the_keys(load: Any, text: str, algorithms: tuple[str, ...]) -> None:
    assert load(text).auth.algorithms == algorithms


def test_short_secret_is_taken_with_a_warning_when_tokens_are_optional(load: Any, warnings_of: Any) -> None:
    text = "auth: {mode: optional, secret: short}"
    assert load(text).auth.secret == "short"
    assert [warning.split(";")[0] for warning in warnings_of(text)] == [
        "auth.secret: expected at least 32 bytes for HS256 (RFC 7518 section 3.2)"
    ]


def test_short_secret_is_taken_when_no_token_is_checked_with_it(load: Any) -> None:
    assert load("auth: {secret: short, jwks_url: 'https://a', algorithms: [RS256]}").auth.secret == "short"


@pytest.mark.parametrize(
    ("text", "warning"),
    [
        ("", NO_KEY),
        ("auth: {algorithms: [HS256]}", NO_KEY),
        (f"auth: {{secret: {SECRET}, algorithms: [RS256]}}", NO_KEY),
        (f"auth: {{secret: {SECRET}, algorithms: [HS256, RS256]}}", "auth.algorithms: there is no key for RS256"),
        ("auth: {jwks_url: 'http://keys.internal'}", "auth.jwks_url: http,"),
        ("auth: {jwks_url: 'https://a'}", "orders.id_secret: not set"),
        ("demo: {exchange: true}", "demo.exchange: simulated"),
    ],
)
def test_likely_mistake_is_warned_of(warnings_of: Any, text: str, warning: str) -> None:
    assert any(line.startswith(warning) for line in warnings_of(text))


@pytest.mark.parametrize(
    "text",
    [
        "auth: {mode: optional}",
        f"auth: {{secret: {SECRET}}}",
        f"auth: {{secret: {SECRET}, jwks_url: 'http://localhost:8080/keys'}}",
        f"auth: {{public_key: {PEM!r}}}\norders: {{id_secret: {UUID(int=7)}}}".replace("'", '"'),
        "auth: {mode: optional}\nkafka: {brokers: embedded}\ndemo: {exchange: true}",
    ],
)
def test_what_is_right_is_not_warned_of(warnings_of: Any, text: str) -> None:
    assert warnings_of(text) == []


def test_order_namespace_is_the_configured_one(load: Any) -> None:
    assert load(f"orders: {{id_secret: {UUID(int=7)}}}", JWT_SECRET=SECRET).order_namespace == UUID(int=7)


def test_order_namespace_is_derived_from_the_secret(load: Any) -> None:
    one, other = (load(JWT_SECRET=secret).order_namespace for secret in (SECRET, SECRET + "x"))
    assert one == load(JWT_SECRET=SECRET).order_namespace
    # A golden value: another derivation would make every order a client repeats across an upgrade a second order.
    assert one == UUID("add59b44-dadd-5b2c-8321-8a4d6b1b1eb1")
    assert len({one, other, PUBLIC_NAMESPACE}) == 3
    assert load().order_namespace == PUBLIC_NAMESPACE


@pytest.mark.parametrize(("text", "shown"), [("[::1]:3000", "[::1]:3000"), ("a.b:1", "a.b:1"), (":5", "0.0.0.0:5")])
def test_bind_is_shown_as_it_can_be_written(load: Any, text: str, shown: str) -> None:
    assert str(load(BIND_ADDR=text).bind) == shown
    assert load(BIND_ADDR=shown).bind == load(BIND_ADDR=text).bind


# Secrets.


def test_secrets_are_in_no_repr(load: Any) -> None:
    settings = load(
        f"auth: {{secret: {SECRET}}}\norders: {{id_secret: {UUID(int=987654321)}}}\n"
        f"kafka: {{consumer: {{sasl.password: {SECRET}}}, producer: {{ssl.key.password: {SECRET}}}}}\n"
        f"limits: {{storage: 'redis://:{SECRET}@a'}}"
    )
    assert settings.auth.secret == SECRET
    shown = f"{settings!r} {settings} {settings.kafka.consumer} {vars_text(settings)}"
    assert SECRET not in shown and str(UUID(int=987654321)) not in shown and "sasl.password" in shown


def vars_text(settings: Settings) -> str:
    return " ".join(str(getattr(settings, one.name)) for one in fields(settings))


LEAKS = [
    "auth: {secret: hunter2}",
    "auth:\n  secret: hunter2: x",
    "auth:\n  secret: *hunter2",
    "auth:\n  secret: !hunter2 x",
    "auth:\n  secret: !hunter2!x x",
    "auth:\n  secret: !hun'ter2! x",
    "auth:\n  secret: &a &hunter2 x",
    'auth:\n  secret: "hunter2',
    'auth:\n  secret: "hunter2\\q"',
    "auth:\n  secret: @hunter2",
    "auth:\n  secret: hunter2\n bad",
    "auth:\n  secret: [hunter2]",
    "auth:\n  secret: {hunter2: hunter2}",
    "auth: hunter2",
    "auth: [hunter2]",
    "hunter2",
    "auth: {'secret=hunter2': 1}",
    'auth:\n  secret: "hunter2\\ud800"',
    'auth:\n  secret: "hunter2\x01"',
    "auth: {public_key: hunter2}",
    "auth: {jwks_url: 'https://u:hunter2@a'}",
    "accounts: {url: 'hunter2'}",
    "orders: {id_secret: hunter2}",
    "limits: {storage: 'redi://:hunter2@a'}",
    "kafka: {brokers: 'u:hunter2@a:1'}",
    "auth: {secret: abc,hunter2}",
    "auth: {secret: abc,hunter2,hunter2}",
    "kafka: {consumer: {sasl.password: abc,hunter2}}",
    "kafka: {consumer: {sasl.password: abc,hunter2,hunter2}}",
    "kafka: {consumer: hunter2}",
    "kafka: {consumer: {sasl.password: [hunter2]}}",
    "kafka: {consumer: {sasl.password: {hunter2: 1}}}",
    "kafka: {consumer: {'sasl.password=hunter2': 1}}",
    "kafka: {producer: {acks: hunter2}}",
]


@pytest.mark.parametrize("text", LEAKS)
def test_secret_is_in_no_refusal(refusal: Any, text: str) -> None:
    assert "hunter2" not in str(refusal(text))


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("JWT_SECRET", "hunter2"),
        ("GATEWAY_KAFKA_CONSUMER", "sasl.password=hunter2"),
        ("GATEWAY_KAFKA_CONSUMER", "{sasl.password: *hunter2}"),
        ("GATEWAY_KAFKA_PRODUCER", "{sasl.password: hunter2"),
        ("GATEWAY_ORDERS_ID_SECRET", "hunter2"),
        ("GATEWAY_LIMITS_STORAGE", "hunter2"),
        ("GATEWAY_AUTH_PUBLIC_KEY", "-----BEGIN PRIVATE KEY-----\nhunter2\n-----END PRIVATE KEY-----"),
    ],
)
def test_secret_variable_is_refused_without_its_value(variable: str, value: str) -> None:
    with pytest.raises(SettingsError) as caught:
        load_settings(None, {variable: value})
    assert caught.value.source == variable and "hunter2" not in str(caught.value)


# Neither colon nor line break: what stands before one is a key, and keys are named.
@UNHURRIED
@given(*[st.text(alphabet="{}[]&*!|>'\"%@-#,? \\~", max_size=5)] * 2, st.sampled_from(["auth", "kafka"]))
def test_secret_in_any_broken_text_is_in_no_refusal(junk_file: Path, before: str, after: str, section: str) -> None:
    opening = {"auth": "secret: ", "kafka": "consumer: {sasl.password: "}[section]
    junk_file.write_text(f"{section}: {{{opening}{before}hunter2{after}")
    try:
        load_settings(str(junk_file), {})
    except SettingsError as error:
        assert "hunter2" not in str(error)


# Junk.

NAMES = [name for name, _ in setting_fields()]
VARIABLES = [variable_of(name, one) for name, one in setting_fields()]
JUNK = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=8)
    | st.sampled_from(["embedded", "a:1", "1e9", "http://a", "{pid}", "[::1]:2", "redis://a", "10.0.0.0/8", "A/B"]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=8,
)


def check_only_refused(path: str | None, environ: dict[str, str]) -> None:
    try:
        settings, warnings = load_settings(path, environ)
    except SettingsError as error:
        assert len(str(error).splitlines()) == 1
    else:
        assert isinstance(settings, Settings)
        assert all(len(warning.splitlines()) == 1 for warning in warnings)


@pytest.fixture(scope="module")
def junk_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("junk") / "junk.yaml"


@UNHURRIED
@given(st.binary(max_size=200) | st.text(alphabet="abkfw:{}[]&*!|>'\"%@-#,? \n\t\\x0u~<.", max_size=80).map(str.encode))
@example(b"%YAML 1." + b"1" * 5000)
@example(b"? ? ?")
@example(b"!!timestamp x")
def test_any_bytes_are_read_or_refused(junk_file: Path, data: bytes) -> None:
    junk_file.write_bytes(data)
    check_only_refused(str(junk_file), {})


@UNHURRIED
@given(st.dictionaries(st.sampled_from(NAMES), JUNK, min_size=1, max_size=5))
def test_any_value_is_read_or_refused(junk_file: Path, values: Values) -> None:
    document: Values = {}
    for name, value in values.items():
        section, _, key = name.rpartition(".")
        (document.setdefault(section, {}) if section else document)[key] = value
    junk_file.write_text(yaml.safe_dump(document))
    check_only_refused(str(junk_file), {})


@UNHURRIED
@given(
    st.dictionaries(
        st.sampled_from([*VARIABLES, "PORT", "GATEWAY_X"]),
        st.text(max_size=20) | JUNK.map(lambda value: yaml.safe_dump(value)),
        min_size=1,
        max_size=5,
    )
)
def test_any_environment_is_read_or_refused(environ: dict[str, str]) -> None:
    check_only_refused(None, environ)


@UNHURRIED
@given(st.decimals(min_value="1e-18", max_value="1e18", allow_nan=False, allow_infinity=False))
def test_instruments_are_exact_for_any_decimal(tick: Decimal) -> None:
    written = format(tick, "f")
    environ = {"GATEWAY_INSTRUMENTS": f"[{{symbol: A/B, tick: '{written}', lot: 1, min_quantity: 1}}]"}
    try:
        settings, _ = load_settings(None, environ)
    except SettingsError:
        assert len(written.replace(".", "").lstrip("0")) > 38 or len(written.partition(".")[2]) > 38
    else:
        assert format(settings.instruments[0].tick, "f") == written
