"""A rule for each kind of setting.

A rule gets what YAML (or an environment variable) said and gives the value the program uses, or raises `Refused`
with what it expected. A rule whose value may hold a secret (free text, an address, a property) never quotes it.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from decimal import Decimal
from difflib import get_close_matches
from functools import partial
from typing import Any
from urllib.parse import urlsplit
from uuid import UUID

from core.config.yaml_document import Refused, is_unicode, shown_key
from core.messages.attributes import RESERVED, Attribute, Kind, is_attribute_name
from core.messages.model import Instrument, is_symbol, read_decimal

Property = str | int | float | bool


@dataclass(frozen=True, slots=True)
class Rule:
    """How a setting is read. `as_yaml`: an environment variable holds YAML and not the text itself."""

    read: Callable[[Any], Any]
    as_yaml: bool = False


@dataclass(frozen=True, slots=True)
class Bind:
    """An address to listen on; port 0 lets the system choose a free one."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine reaches it. A name is not looked up: it may be another address tomorrow."""
        try:
            return self.host == "localhost" or ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False

    def collides_with(self, other: Bind) -> bool:
        """Whether the two cannot be listened on at once; of names only where they are the same."""
        is_everywhere = {self.host, other.host} & {"0.0.0.0", "::"}
        return self.port == other.port != 0 and (self.host == other.host or bool(is_everywhere))


class Properties(Mapping[str, Property]):
    """librdkafka properties, read-only. Shows its keys but never a value, for they hold passwords and keys."""

    __slots__ = ("_values",)

    def __init__(self, values: Mapping[str, Property] | None = None) -> None:
        self._values = dict(values or {})

    def __getitem__(self, key: str) -> Property:
        return self._values[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def __repr__(self) -> str:
        return f"Properties({', '.join(self._values)})"


def suggestion(word: str, known: Iterable[str], likeness: float = 0.7) -> str:
    """Give `; did you mean X?` for the nearest of the known words, else nothing."""
    near = get_close_matches(word, list(known), n=1, cutoff=likeness)
    return f"; did you mean {near[0]}?" if near else ""


def _got(value: object) -> str:
    """Name what was found. Short words and numbers are quoted; lists, maps and long text are only named."""
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | Decimal):
        return str(value)
    if isinstance(value, str):
        return f'"{value}"' if len(value) <= 24 and value.isprintable() else "text"
    return "a list" if isinstance(value, list) else "a map"


def _text_of(value: object, expected: str) -> str:
    if not isinstance(value, str):
        hint = "; put it in quotes" if isinstance(value, int | Decimal) else ""
        raise Refused(f"expected {expected}{hint}")
    if not is_unicode(value):
        raise Refused(f"expected {expected}, in UTF-8")
    return value


def flag() -> Rule:
    """True or false, and not YAML 1.1's yes, on, off."""

    def read(value: object) -> bool:
        if not isinstance(value, bool):
            raise Refused(f"expected true or false, got {_got(value)}")
        return value

    return Rule(read, as_yaml=True)


def whole(low: int, high: int) -> Rule:
    """A whole number from low to high."""

    def read(value: object) -> int:
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            raise Refused(f"expected a whole number from {low} to {high}, got {_got(value)}")
        return value

    return Rule(read, as_yaml=True)


def number(low: float, high: float) -> Rule:
    """A number from low to high, as a float."""

    def read(value: object) -> float:
        # As floats on both sides: Decimal("0.05") is below the float 0.05.
        if isinstance(value, bool) or not isinstance(value, int | Decimal) or not low <= float(value) <= high:
            raise Refused(f"expected a number from {low} to {high}, got {_got(value)}")
        return float(value)

    return Rule(read, as_yaml=True)


def zero_or(low: float, high: float) -> Rule:
    """0, or a number from low to high; as a float."""
    rule = number(low, high)

    def read(value: object) -> Any:
        if not isinstance(value, bool) and isinstance(value, int | Decimal) and not value:
            return 0.0
        try:
            return rule.read(value)
        except Refused:
            raise Refused(f"expected 0 or a number from {low} to {high}, got {_got(value)}") from None

    return Rule(read, as_yaml=True)


def choice(*words: str) -> Rule:
    """One of the words."""

    def read(value: object) -> str:
        if not isinstance(value, str) or value not in words:
            near = suggestion(value, words) if isinstance(value, str) else ""
            raise Refused(f"expected {' or '.join(words)}, got {_got(value)}{near}")
        return value

    return Rule(read)


def choices(*words: str) -> Rule:
    """A list of distinct words out of these."""
    one = choice(*words).read

    def read(value: object) -> tuple[str, ...]:
        return _distinct(value, f"a list out of {', '.join(words)}", one)

    return Rule(read, as_yaml=True)


def _distinct(value: object, expected: str, one: Callable[[Any], Any]) -> tuple[Any, ...]:
    if not isinstance(value, list):
        raise Refused(f"expected {expected}, such as [A, B]")
    result: list[Any] = []
    for index, item in enumerate(value):
        try:
            read = one(item)
        except Refused as refused:
            raise Refused(refused.expected, f"[{index}]{refused.where}") from refused
        if read in result:
            raise Refused("is in the list twice", f"[{index}]")
        result.append(read)
    return tuple(result)


def optional(rule: Rule) -> Rule:
    """The rule's value, or None for nothing and the empty text."""

    def read(value: object) -> Any:
        return None if value is None or value == "" else rule.read(value)

    return Rule(read, as_yaml=rule.as_yaml)


def line_of_text() -> Rule:
    """One line of printable text."""

    def read(value: object) -> str:
        text = _text_of(value, "text")
        if not text or len(text) > 1000 or not text.isprintable():
            raise Refused("expected one line of text")
        return text

    return Rule(read)


_has_ssh_key = re.compile(r"ssh-(?:rsa|dss|ed25519)|ecdsa-sha2-nistp(?:256|384|521)").search


def secret() -> Rule:
    """A shared secret: text of any kind."""

    def read(value: object) -> str:
        text = _text_of(value, "text (the value is not shown)")
        if "-----BEGIN" in text:
            raise Refused("expected a shared secret, got a PEM key: a public key belongs in auth.public_key")
        if _has_ssh_key(text):  # python-jose takes no such secret
            raise Refused("expected a shared secret, got an SSH key")
        return text

    return Rule(read)


def bearer_token(least_bytes: int) -> Rule:
    """A secret that is sent as it is (RFC 6750 section 2.1: b64token). It is not shown."""

    def read(value: object) -> str:
        text = _text_of(value, "text (the value is not shown)")
        if len(text) < least_bytes:
            raise Refused(f"expected a secret of at least {least_bytes} bytes")
        if not re.fullmatch(r"[A-Za-z0-9._~+/-]+=*", text):
            raise Refused("expected letters, digits and -._~+/ alone (RFC 6750), as openssl rand -hex 32 gives them")
        return text

    return Rule(read)


def public_key() -> Rule:
    """A public key or certificate as PEM, unread; `\\n` may stand for a line's end, as one-line variables need."""

    def read(value: object) -> str:
        text = _text_of(value, "a public key as PEM text").replace("\\n", "\n").strip()
        if "PRIVATE KEY-----" in text:
            raise Refused("expected a public key, got a private one: take that one away from here and renew it")
        if not re.fullmatch(
            r"-----BEGIN ((?:RSA )?PUBLIC KEY|CERTIFICATE)-----\s[A-Za-z0-9+/=\s]+-----END \1-----", text
        ):
            raise Refused("expected a public key as PEM text, from -----BEGIN PUBLIC KEY----- to its END line")
        return text + "\n"

    return Rule(read)


def uuid() -> Rule:
    """A UUID; not shown, because the one we have is a secret."""

    def read(value: object) -> UUID:
        try:
            return UUID(_text_of(value, "a UUID (the value is not shown)"))
        except ValueError as error:
            raise Refused("expected a UUID (the value is not shown)") from error

    return Rule(read)


_HOST = r"(?:[A-Za-z0-9_](?:[A-Za-z0-9_.-]{0,252})|\[[0-9A-Fa-f:.]+\])"


def _is_host(host: str) -> bool:
    if not host.startswith("["):
        return True
    try:
        ipaddress.IPv6Address(host[1:-1])
    except ValueError:
        return False
    return True


def _host_port(text: str, low: int) -> tuple[str, int] | None:
    match = re.fullmatch(rf"({_HOST}):([0-9]{{1,5}})", text)
    if not match or not low <= int(match[2]) <= 65535 or not _is_host(match[1]):
        return None
    return match[1], int(match[2])


def bind(default_host: str = "0.0.0.0") -> Rule:
    """`host:port`, `[::1]:3000`, `:3000` or `3000`, the last two on `default_host`; port 0 is any free one."""

    def read(value: object) -> Bind:
        text = str(value) if isinstance(value, int) and not isinstance(value, bool) else value
        expected = 'expected host:port such as "0.0.0.0:3000" or "[::1]:3000", the port from 0 to 65535'
        if not isinstance(text, str):
            raise Refused(expected)
        found = _host_port(f"{default_host}:{text.removeprefix(':')}" if re.fullmatch(r":?[0-9]+", text) else text, 0)
        if found is None:
            raise Refused(expected)
        return Bind(found[0].strip("[]"), found[1])

    return Rule(read)


EMBEDDED = "embedded"


def brokers() -> Rule:
    """`embedded`, or bootstrap brokers as `host:port,host:port` or a list of them; gives the comma-separated form."""

    def read(value: object) -> str:
        entries = value if isinstance(value, list) else str(value).split(",")
        if isinstance(value, str) and value.strip() == EMBEDDED:
            return EMBEDDED
        if not isinstance(value, str | list) or not all(isinstance(entry, str) for entry in entries):
            raise Refused(f"expected host:port,host:port or {EMBEDDED}")
        hosts = [entry.strip() for entry in entries]
        if any("@" in host for host in hosts):
            raise Refused("expected host:port without credentials; give sasl.* in kafka.consumer and kafka.producer")
        if any("://" in host for host in hosts):
            raise Refused("expected host:port without a scheme; give security.protocol in kafka.consumer and .producer")
        if not hosts or not all(_host_port(host, 1) for host in hosts):
            raise Refused(f"expected host:port,host:port (ports from 1 to 65535) or {EMBEDDED}")
        return ",".join(hosts)

    return Rule(read)


def topic() -> Rule:
    """A topic's name by Kafka's rule (org.apache.kafka.common.internals.Topic)."""

    def read(value: object) -> str:
        text = _text_of(value, "a topic name")
        if text in (".", "..") or not re.fullmatch(r"[a-zA-Z0-9._-]{1,249}", text):
            raise Refused("expected a topic name: 1 to 249 letters, digits, '.', '_' or '-', and not '.' or '..'")
        return text

    return Rule(read)


def topic_or_none() -> Rule:
    """A topic's name, or nothing: none is wanted."""
    name = topic()
    return Rule(lambda value: "" if value in ("", None) else name.read(value))


def group_id(fill: Callable[[], Mapping[str, str]]) -> Rule:
    """A consumer group's id, its `{hostname}` and `{pid}` filled in with what `fill` gives."""

    def read(value: object) -> str:
        text: str = line_of_text().read(value)
        parts = fill()
        for name, part in parts.items():
            text = text.replace(f"{{{name}}}", part)
        if "{" in text or "}" in text:
            raise Refused(f"expected only {' and '.join(f'{{{name}}}' for name in parts)} in braces")
        return text

    return Rule(read)


def url() -> Rule:
    """An http or https URL without credentials, query or fragment; a slash at its end is dropped."""

    def read(value: object) -> str:
        text = _text_of(value, "an http:// or https:// URL")
        expected = "expected an http:// or https:// URL without credentials or fragment"
        try:
            parts = urlsplit(text)
            port = parts.port
        except ValueError as error:
            raise Refused(expected) from error
        good = parts.scheme in ("http", "https") and parts.hostname and port != 0 and "@" not in parts.netloc
        if not good or "#" in text or not re.fullmatch(r"[!-~]+", text):
            raise Refused(expected)
        return text.rstrip("/")

    return Rule(read)


def storage() -> Rule:
    """Where limits are counted: `memory` (this process), or a Redis that all instances share."""

    def read(value: object) -> str:
        text = _text_of(value, "memory or a redis:// URL")
        if text != "memory" and not re.fullmatch(r"(redis|rediss)://[!-~]+", text):
            raise Refused("expected memory, or redis://host:port or rediss://host:port (the value is not shown)")
        return text

    return Rule(read)


def origins() -> Rule:
    """Browser origins (RFC 6454), spelled as browsers send them: lower case, the scheme's own port left out."""

    def one(value: object) -> str:
        expected = "expected an origin such as https://app.example.com or http://localhost:8080: no path, no wildcard"
        match = re.fullmatch(
            rf"([A-Za-z][A-Za-z0-9+.-]*)://({_HOST})(?::([0-9]{{1,5}}))?", _text_of(value, expected[9:])
        )
        if not match or not _is_host(match[2]) or (match[3] and not 1 <= int(match[3]) <= 65535):
            raise Refused(expected)
        scheme, host = match[1].lower(), match[2].lower()
        own = {"http": 80, "https": 443}.get(scheme)
        return f"{scheme}://{host}" + (f":{int(match[3])}" if match[3] and int(match[3]) != own else "")

    return Rule(lambda value: _distinct(value, "a list of origins", one), as_yaml=True)


def networks() -> Rule:
    """IP networks in CIDR notation."""

    def one(value: object) -> ipaddress.IPv4Network | ipaddress.IPv6Network:
        text = _text_of(value, "a network such as 10.0.0.0/8")
        try:
            return ipaddress.ip_network(text)
        except ValueError as error:
            raise Refused("expected a network such as 10.0.0.0/8 or fd00::/8, with no bits set behind /N") from error

    return Rule(lambda value: _distinct(value, "a list of networks", one), as_yaml=True)


def symbol() -> Rule:
    """A symbol, BASE/QUOTE."""

    def read(value: object) -> str:
        if not isinstance(value, str) or not is_symbol(value):
            raise Refused(f"expected a symbol such as KCN/EUR, got {_got(value)}")
        return value

    return Rule(read)


def instruments() -> Rule:
    """A list of `{symbol, tick, lot, min_quantity}` and limits, each symbol once, its decimals exact."""
    needed = ("symbol", "tick", "lot", "min_quantity")
    limits = ("max_quantity", "max_notional", "price_band_percent")
    fields = (*needed, *limits)

    def decimal(item: Mapping[str, object], name: str, least: str) -> Decimal:
        value = item[name]
        expected = f"expected a decimal {least}, got {_got(value)}"
        if isinstance(value, bool) or not isinstance(value, str | int | Decimal):
            raise Refused(expected, f".{name}")
        try:
            result = read_decimal(value)
        except ValueError as error:
            raise Refused(expected, f".{name}") from error
        if result < 0 or (result == 0 and least == "above 0"):
            raise Refused(expected, f".{name}")
        return result

    def one(value: object) -> Instrument:
        if not isinstance(value, dict):
            raise Refused(f"expected a map of {', '.join(needed)}")
        for key in value:
            if key not in fields:
                raise Refused(f"unknown{suggestion(key, fields)}", f".{shown_key(key, value[key])}")
        for name in needed:
            if name not in value:
                raise Refused("is missing", f".{name}")
        try:
            name = symbol().read(value["symbol"])
        except Refused as refused:
            raise Refused(refused.expected, ".symbol") from refused
        instrument = Instrument(
            symbol=name,
            tick=decimal(value, "tick", "above 0"),
            lot=decimal(value, "lot", "above 0"),
            min_quantity=decimal(value, "min_quantity", "of 0 or more"),
            **{limit: decimal(value, limit, "above 0") for limit in limits if value.get(limit) is not None},
        )
        if instrument.max_quantity is not None and instrument.max_quantity < instrument.min_quantity:
            raise Refused("expected at least min_quantity", ".max_quantity")
        return instrument

    def read(value: object) -> tuple[Instrument, ...]:
        result: tuple[Instrument, ...] = _distinct(value, "a list of {symbol, tick, lot, min_quantity}", one)
        seen = set[str]()
        for index, instrument in enumerate(result):
            if instrument.symbol in seen:
                raise Refused(f"{instrument.symbol} is in the list twice", f"[{index}].symbol")
            seen.add(instrument.symbol)
        return result

    return Rule(read, as_yaml=True)


def attributes() -> Rule:
    """By name `{type, values?, default?}`: what else an order may carry."""
    fields = ("type", "values", "default")
    kind = choice(*Kind)

    def part(read: Callable[[Any], Any], value: object, where: str) -> Any:
        try:
            return read(value)
        except Refused as refused:
            raise Refused(refused.expected, f".{where}{refused.where}") from refused

    def enum_value(value: object) -> str:
        if not isinstance(value, str) or not re.fullmatch(r"[A-Za-z0-9_.-]{1,64}", value):
            raise Refused(f"expected a word of A-Z, a-z, 0-9, '_', '.' and '-', got {_got(value)}")
        return value

    def one(name: str, value: object) -> Attribute:
        if not is_attribute_name(name):
            raise Refused("expected a name of 1 to 32 of a-z, 0-9 and '_', a letter first")
        if name in RESERVED:
            raise Refused("is what orders have already; expected another name")
        if not isinstance(value, dict):
            raise Refused("expected a map of type, values, default")
        for key in value:
            if key not in fields:
                raise Refused(f"unknown{suggestion(key, fields)}", f".{shown_key(key, value[key])}")
        if value.get("type") is None:
            raise Refused(f"expected {' or '.join(Kind)}, got nothing", ".type")
        attribute = Attribute(name, Kind(part(kind.read, value["type"], "type")))
        values = value.get("values")
        if attribute.kind is Kind.ENUM:
            expected = "a list of its values"
            words = part(lambda listed: _distinct(listed, expected, enum_value), values, "values")
            if not words:
                raise Refused(f"expected {expected}, such as [A, B]", ".values")
            attribute = replace(attribute, values=words)
        elif values is not None:
            raise Refused("is only for an enum", ".values")
        if value.get("default") is None:
            return attribute
        try:
            return replace(attribute, default=attribute.read(value["default"]))
        except ValueError as error:
            raise Refused(str(error), ".default") from error

    def read(value: object) -> tuple[Attribute, ...]:
        if value in (None, ""):
            return ()
        if not isinstance(value, dict):
            raise Refused("expected a map of attributes, such as {post_only: {type: boolean}}")
        return tuple(part(partial(one, name), item, shown_key(name, item)) for name, item in value.items())

    return Rule(read, as_yaml=True)


def properties(owned: Mapping[str, tuple[str, frozenset[str]]]) -> Rule:
    """librdkafka properties. `owned` names those that are the gateway's: why, and which values are harmless."""

    def read(value: object) -> Properties:
        if not isinstance(value, dict):
            raise Refused("expected a map of librdkafka properties")
        result: dict[str, Property] = {}
        for key, item in value.items():
            if item is None:
                raise Refused("a property without a value; put text with a comma in quotes")
            where = f".{shown_key(key, item)}"
            if not re.fullmatch(r"[a-z0-9]+(?:[._][a-z0-9]+)*", key):
                raise Refused("expected the name of a librdkafka property", where)
            if key.endswith("_cb") or key in ("logger", "opaque"):
                raise Refused("is code, which a setting cannot give", where)
            if isinstance(item, Decimal):
                item = float(item)
            if not isinstance(item, str | int | float) or (isinstance(item, str) and not is_unicode(item)):
                raise Refused("expected text, a number, true or false", where)
            why, harmless = owned.get(key, ("", frozenset()))
            if why and str(item).lower() not in harmless:
                raise Refused(f"is not free: {why}", where)
            result[key] = item
        return Properties(result)

    return Rule(read, as_yaml=True)
