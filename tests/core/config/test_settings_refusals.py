"""The settings that are refused: file, key and expectation are named, and no secret is ever shown."""

from __future__ import annotations

import re
from dataclasses import fields
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
import yaml
from hypothesis import HealthCheck, example, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from core.config.settings import Settings, load_settings, setting_fields, variable_of
from core.config.yaml_document import MAX_NODES, read_yaml
from core.errors import SettingsError
from tests.core.config.settings_files import PEM, SECRET, Values, write

# The machine may be busy with other things; how long an example takes is not the claim.
UNHURRIED = hypothesis_settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])

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
    ("metrics: {bind: 3000}", "metrics.bind", "expected another port than that of bind (0.0.0.0:3000)"),
    ("admin: {bind: x}", "admin.bind", "expected host:port"),
    ("tls: {cert: cert.pem}", "tls.cert", "expected tls.key as well, or neither"),
    ("tls: {key: key.pem}", "tls.key", "expected tls.cert as well, or neither"),
    ("admin: {bind: 3001}", "admin.token", "expected a secret of at least 32 bytes"),
    (f"admin: {{token: {'x' * 31}}}", "admin.token", "expected a secret of at least 32 bytes"),
    (f"admin: {{token: '{'x' * 32} '}}", "admin.token", "expected letters, digits"),
    (f"admin: {{token: '{'é' * 32}'}}", "admin.token", "expected letters, digits"),
    (f"admin: {{bind: '0.0.0.0:3001', token: {'x' * 32}}}", "admin.bind", "expected an address of the loopback"),
    (f"admin: {{bind: '10.0.0.1:3001', token: {'x' * 32}}}", "admin.bind", "admin.allow_remote"),
    (f"admin: {{bind: 'gateway.example:3001', token: {'x' * 32}}}", "admin.bind", "an address of the loopback"),
    (f"admin: {{bind: '127.0.0.1:3000', token: {'x' * 32}}}", "admin.bind", "another port than that of bind"),
    (
        f"admin: {{bind: '127.0.0.1:3001', token: {'x' * 32}}}\nmetrics: {{bind: 3001}}",
        "admin.bind",
        "another port than that of metrics.bind (0.0.0.0:3001)",
    ),
    (
        f"admin: {{bind: 3001, token: {'x' * 32}}}\nauth: {{secret: {'x' * 32}}}",
        "admin.token",
        "another secret than auth.secret",
    ),
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
    ("kafka: {state_topic: market-events}", "kafka.state_topic", "expected another topic than kafka.topic"),
    ("kafka: {account_topic: order-commands}", "kafka.account_topic", "expected another topic than kafka.topic"),
    ("kafka: {account_topic: gateway-state}", "kafka.account_topic", "expected another topic than kafka.topic"),
    ("kafka: {control_topic: gateway-state}", "kafka.control_topic", "expected a topic of its own"),
    ("kafka: {topic: gateway-control}", "kafka.control_topic", "expected a topic of its own"),
    ("kafka: {state_topic: a b}", "kafka.state_topic", "expected a topic name"),
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
    ("auth: {secret: x}", "auth.secret", "expected at least 32 bytes for HS256"),
    ("auth: {secret: %s}" % ("\N{SNOWMAN}" * 10), "auth.secret", "expected at least 32 bytes for HS256"),
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
    ("orders: {attributes: [post_only]}", "orders.attributes", "expected a map of attributes"),
    ("orders: {attributes: {a: boolean}}", "orders.attributes.a", "expected a map of type, values, default"),
    ("orders: {attributes: {A: {type: boolean}}}", "orders.attributes.A", "expected a name of 1 to 32"),
    ("orders: {attributes: {a-b: {type: boolean}}}", "orders.attributes.a-b", "expected a name of 1 to 32"),
    ("orders: {attributes: {price: {type: decimal}}}", "orders.attributes.price", "another name"),
    (
        "orders: {attributes: {a: {}}}",
        "orders.attributes.a.type",
        "expected boolean or string or integer or decimal or enum",
    ),
    ("orders: {attributes: {a: {type: bool}}}", "orders.attributes.a.type", "did you mean boolean?"),
    ("orders: {attributes: {a: {type: enum}}}", "orders.attributes.a.values", "expected a list of its values"),
    (
        "orders: {attributes: {a: {type: enum, values: []}}}",
        "orders.attributes.a.values",
        "expected a list of its values",
    ),
    ("orders: {attributes: {a: {type: enum, values: [x, x]}}}", "orders.attributes.a.values[1]", "twice"),
    ("orders: {attributes: {a: {type: enum, values: [x, 1]}}}", "orders.attributes.a.values[1]", "expected a word"),
    ("orders: {attributes: {a: {type: enum, values: [x y]}}}", "orders.attributes.a.values[0]", "expected a word"),
    ("orders: {attributes: {a: {type: string, values: [x]}}}", "orders.attributes.a.values", "is only for an enum"),
    (
        "orders: {attributes: {a: {type: string, value: x}}}",
        "orders.attributes.a.value",
        "unknown; did you mean values?",
    ),
    ("orders: {attributes: {a: {type: boolean, default: 1}}}", "orders.attributes.a.default", "expected true or false"),
    ("orders: {attributes: {a: {type: integer, default: 1.5}}}", "orders.attributes.a.default", "expected an integer"),
    ("orders: {attributes: {a: {type: decimal, default: x}}}", "orders.attributes.a.default", "expected a decimal"),
    ("orders: {attributes: {a: {type: enum, values: [x], default: y}}}", "orders.attributes.a.default", 'expected "x"'),
    ("orders: {attributes: {a: {type: string, default: ''}}}", "orders.attributes.a.default", "expected text of 1"),
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
        ("max_quantity", "0"),
        ("max_notional", "-1"),
        ("price_band_percent", "5%"),
    ],
)
def test_instruments_refuse_a_field_that_cannot_be(refusal: Any, field: str, value: str) -> None:
    item = {"symbol": "A/B", "tick": "1", "lot": "1", "min_quantity": "0"} | {field: value}
    text = f"instruments: [{{{', '.join(f'{name}: {inner}' for name, inner in item.items())}}}]"
    error = refusal(text)
    assert error.key == f"instruments[0].{field}"
    assert error.expected.startswith("expected a symbol" if field == "symbol" else "expected a decimal")


def test_instruments_refuse_a_limit_that_no_order_keeps(refusal: Any) -> None:
    error = refusal("instruments: [{symbol: A/B, tick: 1, lot: 1, min_quantity: 2, max_quantity: 1}]")
    assert (error.key, error.expected) == ("instruments[0].max_quantity", "expected at least min_quantity")


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
