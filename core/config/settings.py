"""What an operator can set: one YAML file, environment variables over it, and nothing unchecked.

The dataclasses below are the list of settings: name, default and rule are written here once and
`conf/gateway.yaml` explains them. A setting that is unknown, of the wrong type or impossible stops the start with
one line. Secrets are in no repr and no message.
"""

# ruff: noqa: RUF009 (the calls in these defaults give dataclasses.field)
from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import Field, dataclass, field, fields, replace
from hashlib import sha256
from hmac import digest
from ipaddress import IPv4Network, IPv6Network
from typing import Any, TypeVar
from urllib.parse import urlsplit
from uuid import UUID

from core.config import rules as rules
from core.config.rules import EMBEDDED, Bind, Properties, Rule
from core.config.yaml_document import Path, Refused, read_yaml, shown_key
from core.errors import SettingsError
from core.messages.attributes import Attribute
from core.messages.model import Instrument

__all__ = [
    "Accounts",
    "Admin",
    "Attribute",
    "Auth",
    "Bind",
    "Demo",
    "History",
    "Http",
    "Hub",
    "Instrument",
    "Kafka",
    "Limits",
    "Log",
    "Metrics",
    "Orders",
    "Properties",
    "Settings",
    "Tls",
    "Websocket",
    "load_settings",
]

T = TypeVar("T")

NO_CHECKS: Mapping[str, Callable[[Any], str | None]] = {}
MAX_FILE_BYTES = 1024 * 1024
HMAC_ALGORITHM = "HS256"
KEY_ALGORITHMS = ("RS256", "ES256", "EdDSA")
# RFC 7518 section 3.2: a key of the same size as the hash output or larger MUST be used.
MIN_SECRET_BYTES = 32
LOOPBACK = "127.0.0.1"
# Where no secret is configured there is none to derive a namespace from; a fixed one still makes repeats recognisable.
PUBLIC_NAMESPACE = UUID("1f0d8b52-93cf-5b1c-a3f5-6a3f8f0f6b0e")

_BROKERS_ELSEWHERE = ("the bus is set with kafka.brokers", frozenset[str]())
_EMBEDDED_ELSEWHERE = ("an embedded broker is set with kafka.brokers: embedded", frozenset[str]())
_ACKS = ("a client is told accepted only after all in-sync replicas have the order", frozenset({"all", "-1"}))
_DEADLINE = ("it follows from orders.ack_timeout_seconds", frozenset[str]())
_EAGER = "the feed looks up where to warm up before it takes a partition, so it assigns eagerly"

_CONSUMER_OWNED: Mapping[str, tuple[str, frozenset[str]]] = {
    "bootstrap.servers": _BROKERS_ELSEWHERE,
    "metadata.broker.list": _BROKERS_ELSEWHERE,
    "test.mock.num.brokers": _EMBEDDED_ELSEWHERE,
    "group.id": ("it is set with kafka.group_id", frozenset()),
    "enable.auto.commit": ("offsets of a group never decide where reading starts", frozenset({"false"})),
    "auto.offset.reset": ("anything but error would jump over a gap in silence", frozenset({"error"})),
    "enable.partition.eof": ("the feed tells by it that a partition was read to its end", frozenset({"true"})),
    "partition.assignment.strategy": (
        _EAGER,
        frozenset({"range", "roundrobin", "range,roundrobin", "roundrobin,range"}),
    ),
    "group.protocol": (_EAGER, frozenset({"classic"})),
    "group.remote.assignor": (_EAGER, frozenset()),
}
_PRODUCER_OWNED: Mapping[str, tuple[str, frozenset[str]]] = {
    "bootstrap.servers": _BROKERS_ELSEWHERE,
    "metadata.broker.list": _BROKERS_ELSEWHERE,
    "test.mock.num.brokers": _EMBEDDED_ELSEWHERE,
    "acks": _ACKS,
    "request.required.acks": _ACKS,
    "enable.idempotence": ("a retry inside the producer must not write an order twice", frozenset({"true"})),
    "transactional.id": ("orders are not written in transactions", frozenset()),
    "message.timeout.ms": _DEADLINE,
    "delivery.timeout.ms": _DEADLINE,
    "statistics.interval.ms": ("readiness is told by the producer's statistics", frozenset()),
    "delivery.report.only.error": ("an order is accepted by its delivery report", frozenset({"false"})),
    "partitioner": (
        "the orders of a symbol keep their order only on one partition",
        frozenset({"consistent", "consistent_random", "murmur2", "murmur2_random", "fnv1a", "fnv1a_random"}),
    ),
}


def _fill() -> dict[str, str]:
    return {"hostname": socket.gethostname(), "pid": str(os.getpid())}


def _setting(default: T, rule: Rule, *, variable: str | None = None, hidden: bool = False) -> T:
    """A field with its default, its rule, and the name of its variable where it has one of its own (docs/contract.md#settings)."""
    metadata = {"rule": rule, "variable": variable}
    value: T = field(default=default, repr=not hidden, metadata=metadata)
    return value


def _properties(owned: Mapping[str, tuple[str, frozenset[str]]]) -> Properties:
    value: Properties = field(default_factory=Properties, metadata={"rule": rules.properties(owned), "variable": None})
    return value


@dataclass(frozen=True, slots=True)
class Kafka:
    """The bus. `brokers` is librdkafka's `bootstrap.servers`, or `embedded`."""

    brokers: str = _setting("localhost:9092", rules.brokers(), variable="KAFKA_BROKERS")
    topic: str = _setting("market-events", rules.topic(), variable="KAFKA_TOPIC")
    group_id: str = _setting("gateway", rules.group_id(_fill), variable="KAFKA_GROUP_ID")
    order_topic: str = _setting("order-commands", rules.topic(), variable="KAFKA_ORDER_TOPIC")
    consume: str = _setting("shared", rules.choice("shared", "broadcast"), variable="KAFKA_CONSUME")
    account_topic: str = _setting("", rules.topic_or_none())
    state_topic: str = _setting("gateway-state", rules.topic_or_none())
    control_topic: str = _setting("gateway-control", rules.topic_or_none())
    state_interval_seconds: float = _setting(5.0, rules.number(0.1, 3600))
    poll_interval_ms: int = _setting(1, rules.whole(1, 1000))
    idle_interval_ms: int = _setting(10, rules.whole(1, 1000))
    warmup_seconds: float = _setting(3600.0, rules.number(0, 31_536_000))
    warmup_records: int = _setting(100_000, rules.whole(0, 100_000_000))
    warmup_min_records: int = _setting(1000, rules.whole(0, 100_000_000))
    consumer: Properties = _properties(_CONSUMER_OWNED)
    producer: Properties = _properties(_PRODUCER_OWNED)

    @property
    def embedded(self) -> bool:
        """Whether the bus is a broker inside this process."""
        return self.brokers == EMBEDDED


@dataclass(frozen=True, slots=True)
class Auth:
    """Whose tokens are good. `algorithms` is what a token may be signed with; empty: no key, no token is good."""

    mode: str = _setting("required", rules.choice("required", "optional"))
    secret: str | None = _setting(None, rules.optional(rules.secret()), variable="JWT_SECRET", hidden=True)
    public_key: str | None = _setting(None, rules.optional(rules.public_key()), hidden=True)
    jwks_url: str | None = _setting(None, rules.optional(rules.url()))
    require_scope: bool = _setting(False, rules.flag())
    algorithms: tuple[str, ...] = _setting((), rules.choices(HMAC_ALGORITHM, *KEY_ALGORITHMS))
    issuer: str | None = _setting(None, rules.optional(rules.line_of_text()))
    audience: str | None = _setting(None, rules.optional(rules.line_of_text()))
    jwks_refresh_seconds: float = _setting(300.0, rules.number(1, 86_400))
    jwks_keep_seconds: float = _setting(86_400.0, rules.number(0, 31_536_000))


@dataclass(frozen=True, slots=True)
class Http:
    """Who may ask, how much at once, and whose word on addresses is believed."""

    allowed_origins: tuple[str, ...] = _setting((), rules.origins())
    max_body_bytes: int = _setting(16_384, rules.whole(1, 64 * 1024 * 1024))
    trusted_proxies: tuple[IPv4Network | IPv6Network, ...] = _setting((), rules.networks())


@dataclass(frozen=True, slots=True)
class Tls:
    """Files in PEM: the certificate, with what it hangs on behind it, and its key. Both, or none: TLS is a proxy's then."""

    cert: str | None = _setting(None, rules.optional(rules.line_of_text()))
    key: str | None = _setting(None, rules.optional(rules.line_of_text()))


@dataclass(frozen=True, slots=True)
class Accounts:
    """The accounts service in front of the book: it reserves an order's funds, and is passed its own routes.

    `anonymous`: orders without a token are refused, or passed on without a reservation where `auth.mode` allows them.
    """

    url: str | None = _setting(None, rules.optional(rules.url()))
    timeout_seconds: float = _setting(2.0, rules.number(0.05, 60))
    max_connections: int = _setting(64, rules.whole(1, 10_000))
    anonymous: str = _setting("refuse", rules.choice("refuse", "pass"))


@dataclass(frozen=True, slots=True)
class Hub:
    """The fan-out. `slice_ms` is how long it may send before the loop gets a turn."""

    slice_ms: float = _setting(5.0, rules.number(0.1, 1000))


@dataclass(frozen=True, slots=True)
class Websocket:
    """What one connection, and all of them together, may use. `max_connections*` of 0 are no limit."""

    ping_interval_seconds: float = _setting(20.0, rules.number(0.05, 3600))
    max_message_bytes: int = _setting(16_384, rules.whole(1, 64 * 1024 * 1024))
    max_buffer_bytes: int = _setting(1_048_576, rules.whole(1024, 1024 * 1024 * 1024))
    max_subscriptions: int = _setting(1000, rules.whole(1, 1_000_000))
    max_views: int = _setting(10_000, rules.whole(1, 1_000_000))
    max_connections: int = _setting(20_000, rules.whole(0, 10_000_000))
    max_connections_per_address: int = _setting(0, rules.whole(0, 10_000_000))
    compression: bool = _setting(False, rules.flag())


@dataclass(frozen=True, slots=True)
class Orders:
    """Orders: how long a client waits for the bus, and what recognises a repeat (see `Settings.order_namespace`).

    `max_terminal` of 0 is no bound. `disconnect_grace_seconds` of 0: cancelled at once, by this process alone. `amend`: the engine knows the command `amend_order`. `attributes`: what else orders may carry.
    """

    ack_timeout_seconds: float = _setting(5.0, rules.number(0.05, 300))
    keep_terminal_seconds: float = _setting(86_400.0, rules.number(0, 31_536_000))
    max_terminal: int = _setting(1_000_000, rules.whole(0, 1_000_000_000))
    id_secret: UUID | None = _setting(None, rules.optional(rules.uuid()), hidden=True)
    default_symbol: str | None = _setting(None, rules.optional(rules.symbol()))
    amend: bool = _setting(False, rules.flag())
    attributes: tuple[Attribute, ...] = _setting((), rules.attributes())
    disconnect_grace_seconds: float = _setting(10.0, rules.zero_or(2, 3600))


@dataclass(frozen=True, slots=True)
class Limits:
    """Rates; 0 is no limit. Orders and cancels a user, requests a connection, connects a process; by address, both.

    `max_open_orders`: of a user at once, no rate; 0 is no limit.
    """

    orders_per_second: float = _setting(20.0, rules.number(0, 1_000_000))
    orders_burst: int = _setting(20, rules.whole(1, 1_000_000))
    cancels_per_second: float = _setting(100.0, rules.number(0, 1_000_000))
    cancels_burst: int = _setting(100, rules.whole(1, 1_000_000))
    requests_per_second: float = _setting(100.0, rules.number(0, 1_000_000))
    requests_burst: int = _setting(200, rules.whole(1, 1_000_000))
    connects_per_second: float = _setting(1000.0, rules.number(0, 1_000_000))
    address_requests_per_second: float = _setting(0.0, rules.number(0, 1_000_000))
    address_connects_per_second: float = _setting(0.0, rules.number(0, 1_000_000))
    address_logins_per_second: float = _setting(5.0, rules.number(0, 1_000_000))
    address_logins_burst: int = _setting(60, rules.whole(1, 1_000_000))
    max_open_orders: int = _setting(0, rules.whole(0, 1_000_000))
    penalty_seconds: float = _setting(30.0, rules.number(0, 86_400))
    storage: str = _setting("memory", rules.storage(), hidden=True)


@dataclass(frozen=True, slots=True)
class History:
    """What a client that comes back can be replayed, per symbol: the shorter of the two."""

    records: int = _setting(10_000, rules.whole(1, 10_000_000))
    seconds: float = _setting(3600.0, rules.number(1, 31_536_000))


@dataclass(frozen=True, slots=True)
class Log:
    """The log, on standard error. `orders`: which order commands have a line; `orders_per_second` of 0 is no bound."""

    level: str = _setting("info", rules.choice("debug", "info", "warning", "error"))
    format: str = _setting("text", rules.choice("text", "json"))
    orders: str = _setting("all", rules.choice("all", "refused", "none"))
    orders_per_second: int = _setting(1000, rules.whole(0, 1_000_000))


@dataclass(frozen=True, slots=True)
class Metrics:
    """Where `/metrics` is served; None: with everything else."""

    bind: Bind | None = _setting(None, rules.optional(rules.bind()))


@dataclass(frozen=True, slots=True)
class Admin:
    """The operators' address; `bind` of None: there is none. `allow_remote`: it may be one that other machines reach."""

    bind: Bind | None = _setting(None, rules.optional(rules.bind(LOOPBACK)))
    token: str | None = _setting(None, rules.optional(rules.bearer_token(MIN_SECRET_BYTES)), hidden=True)
    allow_remote: bool = _setting(False, rules.flag())


@dataclass(frozen=True, slots=True)
class Demo:
    """The demo. `exchange`: start the simulated exchange as a child process; `trader`: print a token for the page."""

    exchange: bool = _setting(False, rules.flag())
    trader: bool = _setting(False, rules.flag())


@dataclass(frozen=True, slots=True)
class Settings:
    """Every setting, checked. `workers` of 0 is one a CPU; `drain_seconds` spreads the closes of a shutdown."""

    bind: Bind = _setting(Bind("0.0.0.0", 3000), rules.bind(), variable="BIND_ADDR")
    workers: int = _setting(1, rules.whole(0, 256))
    drain_seconds: float = _setting(10.0, rules.number(0, 3600))
    kafka: Kafka = field(default_factory=Kafka)
    auth: Auth = field(default_factory=Auth)
    http: Http = field(default_factory=Http)
    tls: Tls = field(default_factory=Tls)
    accounts: Accounts = field(default_factory=Accounts)
    hub: Hub = field(default_factory=Hub)
    websocket: Websocket = field(default_factory=Websocket)
    orders: Orders = field(default_factory=Orders)
    limits: Limits = field(default_factory=Limits)
    instruments: tuple[Instrument, ...] = _setting((), rules.instruments())
    history: History = field(default_factory=History)
    log: Log = field(default_factory=Log)
    metrics: Metrics = field(default_factory=Metrics)
    admin: Admin = field(default_factory=Admin)
    demo: Demo = field(default_factory=Demo)
    given: frozenset[str] = field(default=frozenset(), compare=False)
    """The dotted names of what the file or the environment set: not a setting itself."""

    @property
    def order_namespace(self) -> UUID:
        """The namespace of order ids: `orders.id_secret`, else derived from `auth.secret`, else a fixed, public one."""
        if self.orders.id_secret is not None:
            return self.orders.id_secret
        if self.auth.secret is None:
            return PUBLIC_NAMESPACE
        return UUID(bytes=digest(self.auth.secret.encode(), b"orders.id_secret", sha256)[:16], version=5)


@dataclass(frozen=True, slots=True)
class _Given:
    """A checked value, and the file and line or the variable it came from."""

    value: Any
    source: str


def load_settings(
    path: str | None, environ: Mapping[str, str], checks: Mapping[str, Callable[[Any], str | None]] = NO_CHECKS
) -> tuple[Settings, list[str]]:
    """Read the file (None: none), put the environment over it, and check all of it.

    Gives the settings and warnings, one line each, for the log. `checks`: by setting, what only those can judge who use
    its value; they say what is wrong with it. Raises SettingsError, which names file or variable, key and what was
    expected, for whatever is unknown in the file, of a wrong type or impossible.
    """
    warnings: list[str] = []
    given = _from_file(path) if path is not None else {}
    given |= _from_environment(environ, warnings)
    names = frozenset(given)
    if "auth.algorithms" not in given or not given["auth.algorithms"].value:
        given["auth.algorithms"] = _Given(_usable_algorithms(given), "auth")
    if "workers" in given and given["workers"].value != 1:
        # One group for several workers would give each a part of the symbols, and a client a worker at random.
        if "kafka.consume" in given and given["kafka.consume"].value != "broadcast":
            warnings.append("kafka.consume: broadcast, and not shared as set, because workers is not 1")
        given["kafka.consume"] = _Given("broadcast", given["workers"].source)
    for name, check in checks.items():
        if name in given and given[name].value is not None and (wrong := check(given[name].value)) is not None:
            raise _refusal(given, (name,), wrong)
    settings: Settings = replace(_build(Settings, given, ""), given=names)
    _check_together(settings, given, warnings)
    return settings, warnings


def setting_fields(section: Any = Settings, prefix: str = "") -> Iterator[tuple[str, Field[Any]]]:
    """Give every setting's dotted name and its field."""
    for one in _settable(section):
        if "rule" in one.metadata:
            yield prefix + one.name, one
        else:
            yield from setting_fields(one.default_factory, f"{prefix}{one.name}.")


def _settable(section: Any) -> list[Field[Any]]:
    """The settings and sections in a section: without `given`."""
    return [one for one in fields(section) if one.compare]


def variable_of(name: str, one: Field[Any]) -> str:
    """Give the environment variable that sets the setting of this dotted name."""
    return one.metadata["variable"] or "GATEWAY_" + name.replace(".", "_").upper()


def _printable(text: str) -> str:
    return "".join(character if character.isprintable() else "?" for character in text)


def _from_file(path: str) -> dict[str, _Given]:
    shown = _printable(path)
    try:
        with open(path, "rb") as file:
            data = file.read(MAX_FILE_BYTES + 1)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not a file's name"
        raise SettingsError(shown, "", f"cannot be read: {reason}") from error
    if len(data) > MAX_FILE_BYTES:
        raise SettingsError(shown, "", f"expected at most {MAX_FILE_BYTES} bytes")
    try:
        document, lines = read_yaml(data.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise SettingsError(f"{shown}:{line}", "", "expected UTF-8") from error
    except Refused as refused:
        raise SettingsError(f"{shown}:{refused.line}" if refused.line else shown, "", refused.expected) from refused
    given: dict[str, _Given] = {}
    _walk(Settings, document, (), lines, shown, given)
    return given


def _walk(
    section: Any,
    document: object,
    path: Path,
    lines: Mapping[Path, int],
    file: str,
    given: dict[str, _Given],
) -> None:
    """Check one section of the file against its dataclass. A section whose every line is a comment is null."""
    if document is None:
        return
    source = f"{file}:{lines[path]}"
    if not isinstance(document, dict):
        raise SettingsError(source, ".".join(map(str, path)), "expected a map of settings")
    known = {one.name: one for one in _settable(section)}
    for key, value in document.items():
        source = f"{file}:{lines[*path, key]}"
        near = "" if key in known else _suggestion(key, known)
        name = ".".join([*map(str, path), key if key in known else shown_key(key, near or value)])
        if key not in known:
            raise SettingsError(source, name, f"unknown setting{near}")
        rule: Rule | None = known[key].metadata.get("rule")
        if rule is None:
            _walk(known[key].default_factory, value, (*path, key), lines, file, given)
        else:
            given[name] = _Given(_read(rule, value, source, name), source)


def _suggestion(key: str, known: Iterable[str]) -> str:
    """A setting of this very name in another section, or of nearly this name in its own."""
    elsewhere = [f"; did you mean {name}?" for name, _ in setting_fields() if name.rpartition(".")[2] == key]
    return elsewhere[0] if elsewhere else rules.suggestion(key, known)


def _read(rule: Rule, value: object, source: str, name: str) -> Any:
    try:
        return rule.read(value)
    except Refused as refused:
        raise SettingsError(source, name + refused.where, refused.expected) from refused


def _from_environment(environ: Mapping[str, str], warnings: list[str]) -> dict[str, _Given]:
    """Read the variables that are settings. An empty one counts as not set, as shells and compose files make them."""
    given: dict[str, _Given] = {}
    ours: set[str] = set()
    for name, one in setting_fields():
        variable = variable_of(name, one)
        ours.add(variable)
        text = environ.get(variable, "")
        if not text:
            continue
        rule: Rule = one.metadata["rule"]
        value: object = text
        if rule.as_yaml:
            try:
                value, _ = read_yaml(text)
            except Refused as refused:
                raise SettingsError(variable, name, refused.expected) from refused
        given[name] = _Given(_read(rule, value, variable, name), variable)
    port = environ.get("PORT", "")
    if port and "bind" not in given:
        if not (port.isascii() and port.isdigit() and len(port) <= 5 and int(port) <= 65535):
            raise SettingsError("PORT", "bind", "expected a port from 0 to 65535")
        given["bind"] = _Given(Bind("0.0.0.0", int(port)), "PORT")
    short = {"GATEWAY_" + name.replace(".", "_").upper(): variable_of(name, one) for name, one in setting_fields()}
    for variable in sorted(environ):
        if variable.startswith("GATEWAY_") and variable not in ours:
            # They all begin alike, so what is only somewhat alike (GATEWAY_PORT, GATEWAY_WORKERS) is no slip.
            guess = rules.suggestion(variable, ours, 0.87)
            near = f"; did you mean {short[variable]}?" if variable in short else guess
            warnings.append(f"{_printable(variable)}: not a setting, ignored{near}")
    return given


def _usable_algorithms(given: Mapping[str, _Given]) -> tuple[str, ...]:
    """Without a list, a token may be signed with what there is a key for: never with what the token says."""
    has = {name for name in ("auth.secret", "auth.public_key", "auth.jwks_url") if name in given and given[name].value}
    hmac = (HMAC_ALGORITHM,) if "auth.secret" in has else ()
    return hmac + (KEY_ALGORITHMS if has - {"auth.secret"} else ())


def _build(section: Any, given: Mapping[str, _Given], prefix: str) -> Any:
    values = {}
    for one in _settable(section):
        name = prefix + one.name
        if "rule" not in one.metadata:
            values[one.name] = _build(one.default_factory, given, f"{name}.")
        elif name in given:
            values[one.name] = given[name].value
    return section(**values)


def _refusal(given: Mapping[str, _Given], names: tuple[str, ...], expected: str) -> SettingsError:
    """Blame the first of these settings; the source is that of the first one that was given at all."""
    return SettingsError(next(given[name].source for name in names if name in given), names[0], expected)


def _check_together(settings: Settings, given: Mapping[str, _Given], warnings: list[str]) -> None:
    """Refuse settings that are right alone and impossible together; warn of those that are likely a mistake."""
    kafka = settings.kafka
    if kafka.topic == kafka.order_topic:
        names = ("kafka.order_topic", "kafka.topic")
        raise _refusal(given, names, "expected another topic than kafka.topic")
    if kafka.state_topic in (kafka.topic, kafka.order_topic):
        blamed = ("kafka.state_topic", "kafka.topic", "kafka.order_topic")
        raise _refusal(given, blamed, "expected another topic than kafka.topic and kafka.order_topic")
    if kafka.account_topic and kafka.account_topic in (kafka.topic, kafka.order_topic, kafka.state_topic):
        accused = ("kafka.account_topic", "kafka.topic", "kafka.order_topic", "kafka.state_topic")
        expected = "expected another topic than kafka.topic, kafka.order_topic and kafka.state_topic"
        raise _refusal(given, accused, expected)
    if kafka.control_topic and kafka.control_topic in (
        kafka.topic, kafka.order_topic, kafka.state_topic, kafka.account_topic
    ):  # fmt: skip
        others = ("kafka.topic", "kafka.order_topic", "kafka.state_topic", "kafka.account_topic")
        raise _refusal(given, ("kafka.control_topic", *others), "expected a topic of its own")
    if kafka.poll_interval_ms > kafka.idle_interval_ms:
        names = ("kafka.poll_interval_ms", "kafka.idle_interval_ms")
        raise _refusal(given, names, f"expected at most kafka.idle_interval_ms ({kafka.idle_interval_ms})")
    if kafka.embedded and settings.workers != 1:
        raise _refusal(
            given, ("workers", "kafka.brokers"), "expected 1, because kafka.brokers: embedded is one process"
        )
    symbols = [instrument.symbol for instrument in settings.instruments]
    if settings.orders.default_symbol is not None and symbols and settings.orders.default_symbol not in symbols:
        raise _refusal(given, ("orders.default_symbol",), "expected one of instruments")
    if settings.orders.amend and settings.accounts.url is not None:
        warnings.append(
            "orders.amend: no order is amended, because accounts.url is set, and that service cannot reserve anew"
        )
    for name, other in (("tls.cert", "tls.key"), ("tls.key", "tls.cert")):
        if name in given and given[name].value and not (other in given and given[other].value):
            raise _refusal(given, (name,), f"expected {other} as well, or neither")
    of_metrics = settings.metrics.bind
    if of_metrics is not None and of_metrics.collides_with(settings.bind):
        raise _refusal(given, ("metrics.bind",), f"expected another port than that of bind ({settings.bind})")
    if settings.demo.exchange and not kafka.embedded:
        warnings.append("demo.exchange: simulated orders and trades go to a bus that is not embedded")
    _check_keys(settings, given, warnings)
    _check_admin(settings, given)


def _check_admin(settings: Settings, given: Mapping[str, _Given]) -> None:
    admin, blamed = settings.admin, ("admin.bind",)
    if admin.bind is None:
        return
    if not admin.bind.is_loopback and not admin.allow_remote:
        expected = "expected an address of the loopback, such as 127.0.0.1:3001; admin.allow_remote: true allows others"
        raise _refusal(given, blamed, expected)
    for name, other in (("bind", settings.bind), ("metrics.bind", settings.metrics.bind)):
        if other is not None and admin.bind.collides_with(other):
            raise _refusal(given, blamed, f"expected another port than that of {name} ({other})")
    # The demo makes one of its own.
    if admin.token is None and not settings.demo.trader:
        raise _refusal(
            given,
            ("admin.token", "admin.bind"),
            f"expected a secret of at least {MIN_SECRET_BYTES} bytes, as admin.bind is set",
        )
    if admin.token is not None and admin.token == settings.auth.secret:
        raise _refusal(given, ("admin.token",), "expected another secret than auth.secret")


def _check_keys(settings: Settings, given: Mapping[str, _Given], warnings: list[str]) -> None:
    auth = settings.auth
    usable = _usable_algorithms(given)
    if auth.secret is not None and HMAC_ALGORITHM in auth.algorithms and len(auth.secret.encode()) < MIN_SECRET_BYTES:
        expected = f"expected at least {MIN_SECRET_BYTES} bytes for {HMAC_ALGORITHM} (RFC 7518 section 3.2)"
        if auth.mode == "required":
            raise _refusal(given, ("auth.secret",), expected)
        warnings.append(f"auth.secret: {expected}; with auth.mode: optional it is taken, and can be guessed")
    idle = [name for name in auth.algorithms if name not in usable]
    if idle:
        warnings.append(f"auth.algorithms: there is no key for {', '.join(idle)}")
    if auth.mode == "required" and len(idle) == len(auth.algorithms):
        warnings.append(
            "auth.mode: required, and no key to check a token with: all orders will be answered 401"
            " (set auth.secret, auth.public_key or auth.jwks_url, or auth.mode: optional)"
        )
    if auth.jwks_url is not None and auth.jwks_url.startswith("http:"):
        host = urlsplit(auth.jwks_url).hostname
        if host not in ("localhost", "127.0.0.1", "::1"):
            warnings.append("auth.jwks_url: http, so who can change its answer can sign tokens; https is expected")
    if usable and settings.order_namespace == PUBLIC_NAMESPACE:
        warnings.append("orders.id_secret: not set, and no auth.secret to derive it from: order ids can be guessed")
