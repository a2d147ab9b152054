"""The settings: every default, every source, and every value that is taken."""

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

from core.config.settings import (
    PUBLIC_NAMESPACE,
    Bind,
    Properties,
    Settings,
    load_settings,
    setting_fields,
    variable_of,
)
from core.errors import SettingsError
from core.messages.attributes import Attribute, Kind
from core.messages.model import Instrument
from tests.core.config.settings_files import PEM, SECRET, Values

CONF = Path(__file__).parents[3] / "conf"
NO_KEY = "auth.mode: required, and no key"


def flat(settings: Any) -> Values:
    """Every setting by its dotted name, found without the loader's own walk."""
    found: Values = {}
    for one in fields(settings):
        value = getattr(settings, one.name)
        if type(value).__module__ == "core.config.settings":
            found |= {f"{one.name}.{name}": inner for name, inner in flat(value).items()}
        else:
            found[one.name] = value
    found.pop("given", None)  # which of them were set
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
        kafka.poll_interval_ms kafka.idle_interval_ms kafka.warmup_seconds kafka.warmup_records
        kafka.warmup_min_records kafka.account_topic kafka.state_topic kafka.state_interval_seconds kafka.consumer kafka.producer auth.mode auth.secret auth.public_key auth.jwks_url auth.algorithms auth.issuer auth.audience
        http.allowed_origins http.max_body_bytes http.trusted_proxies accounts.url accounts.anonymous hub.slice_ms
        websocket.ping_interval_seconds websocket.max_message_bytes websocket.max_buffer_bytes
        websocket.max_subscriptions websocket.max_views websocket.max_connections
        websocket.max_connections_per_address websocket.compression orders.ack_timeout_seconds
        orders.keep_terminal_seconds orders.id_secret orders.default_symbol limits.orders_per_second
        limits.orders_burst limits.cancels_per_second limits.cancels_burst limits.requests_per_second
        limits.requests_burst limits.connects_per_second limits.max_open_orders limits.penalty_seconds limits.storage history.records history.seconds
    """
    ours = """
        tls.cert tls.key log.level log.format log.orders log.orders_per_second auth.require_scope metrics.bind admin.bind admin.token admin.allow_remote
        demo.exchange demo.trader auth.jwks_refresh_seconds auth.jwks_keep_seconds
        accounts.timeout_seconds accounts.max_connections kafka.control_topic orders.max_terminal orders.amend orders.attributes orders.disconnect_grace_seconds
        limits.address_requests_per_second
        limits.address_connects_per_second limits.address_logins_per_second limits.address_logins_burst
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
            "kafka.warmup_min_records": 1000,
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

ADMIN_TOKEN = "x" * 32
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
    (f"admin: {{bind: 3001, token: {ADMIN_TOKEN}}}", "admin.bind", Bind("127.0.0.1", 3001)),
    (f"admin: {{bind: '[::1]:3001', token: {ADMIN_TOKEN}}}", "admin.bind", Bind("::1", 3001)),
    (f"admin: {{bind: 'localhost:3001', token: {ADMIN_TOKEN}}}", "admin.token", ADMIN_TOKEN),
    (f"admin: {{bind: '0.0.0.0:3001', allow_remote: true, token: {ADMIN_TOKEN}}}", "admin.bind", Bind("0.0.0.0", 3001)),
    ("admin: {bind: ''}", "admin.bind", None),
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


def test_instruments_may_have_limits(load: Any) -> None:
    needed = "symbol: A/B, tick: 1, lot: 1, min_quantity: 2"
    settings = load(f"instruments: [{{{needed}, max_quantity: 2, max_notional: 0.10, price_band_percent: '2.50'}}]")
    [instrument] = settings.instruments
    limits = instrument.max_quantity, instrument.max_notional, instrument.price_band_percent
    assert [str(limit) for limit in limits] == ["2", "0.10", "2.50"]
    assert instrument.is_limited and not load(f"instruments: [{{{needed}, max_notional: }}]").instruments[0].is_limited


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
    (
        "GATEWAY_ORDERS_ATTRIBUTES",
        "{post_only: {type: boolean, default: false}, limit: {type: decimal, default: 0.10}, kind: {type: enum, values: [a, B-2]}}",
        "orders.attributes",
        (
            Attribute("post_only", Kind.BOOLEAN, (), False),
            Attribute("limit", Kind.DECIMAL, (), "0.10"),
            Attribute("kind", Kind.ENUM, ("a", "B-2")),
        ),
    ),
    ("GATEWAY_ORDERS_ATTRIBUTES", "{}", "orders.attributes", ()),
]


@pytest.mark.parametrize(("variable", "text", "name", "value"), ENVIRONMENT)
def test_setting_is_read_from_its_variable(variable: str, text: str, name: str, value: Any) -> None:
    settings, _ = load_settings(None, {variable: text, "GATEWAY_AUTH_MODE": "optional"})
    assert flat(settings)[name] == value


def test_environment_wins_over_the_file(load: Any) -> None:
    settings = load("bind: a:1\nworkers: 2\nkafka: {topic: f}", BIND_ADDR="b:2", GATEWAY_WORKERS="3", KAFKA_TOPIC="e")
    assert (settings.bind, settings.workers, settings.kafka.topic) == (Bind("b", 2), 3, "e")


def test_settings_know_which_of_them_were_given(load: Any) -> None:
    settings = load("hub: {slice_ms: 5}", GATEWAY_WEBSOCKET_MAX_CONNECTIONS="20000", GATEWAY_WORKERS="")
    assert settings == load("")
    assert settings.given == {"hub.slice_ms", "websocket.max_connections"}


def test_given_is_no_setting(refusal: Any) -> None:
    assert refusal("given: [workers]").expected.startswith("unknown setting")


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
        ("auth: {jwks_url: 'https://a'}", ("RS256", "ES256", "EdDSA")),
        (f"auth: {{secret: {SECRET}, jwks_url: 'https://a'}}", ("HS256", "RS256", "ES256", "EdDSA")),
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


def test_grace_of_a_disconnect_may_be_none_at_all(load: Any) -> None:
    for told, seconds in (("0", 0.0), ("2", 2.0)):
        assert load(f"orders: {{disconnect_grace_seconds: {told}}}").orders.disconnect_grace_seconds == seconds


def test_amends_beside_an_account_service_are_warned_of(warnings_of: Any) -> None:
    text = "orders: {amend: true}\naccounts: {url: 'http://127.0.0.1:8000'}"
    assert any("orders.amend" in warning for warning in warnings_of(text))


def test_attributes_may_be_none(load: Any) -> None:
    assert load("orders: {attributes: }").orders.attributes == ()
