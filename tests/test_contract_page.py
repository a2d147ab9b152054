"""docs/contract.md: its tables are the code's, in both directions."""

from __future__ import annotations

import json
import re
from decimal import Decimal
from typing import Any

import pytest
from confluent_kafka import KafkaError

from core.access.identity import LEEWAY_SECONDS, MAX_TOKEN_BYTES, MAX_USER_ID
from core.channels.names import FORMS, INTERVALS_MS, MAX_DEPTH, STATUS
from core.channels.schedule import HEARTBEAT_SECONDS
from core.channels.subscription import MOST_LEFT
from core.config.settings import setting_fields, variable_of
from core.errors import CODES, PROBLEMS, PoisonedRecord
from core.kafka.missed_records import MAX_BYTES, MAX_RECORDS, MAX_WAITING, READERS, SECONDS, WAIT_SECONDS
from core.kafka.order_log import CERTAINLY_NOT_WRITTEN
from core.kafka.unread_partitions import UNREAD_SECONDS
from core.market.symbol_market import SNAPSHOT_TRADES
from core.messages.commands import AmendOrder, CancelOrder
from core.messages.events import UnknownEvent, read_event
from core.messages.model import ENGINE_DIGITS, MAX_DIGITS
from core.messages.order_ids import MAX_ORDER_ID_CHARACTERS
from core.messages.order_records import REASONS
from core.messages.order_rules import OrderRules, check_place
from core.messages.times import AHEAD_MS, Times
from core.orders.directory import MAX_EARLY_EVENTS
from core.orders.order import Order, Outcome, Status, state
from core.protocol.session import ACCOUNT_CHANNELS
from core.telemetry.metrics import KNOWN_EVENTS
from handlers.passthrough import MAX_BODY_BYTES
from tests.support.asyncapi import MESSAGES, REPLIES, resolve
from tests.support.gateway import REPOSITORY

DOCS = REPOSITORY / "docs"
TEXT = (DOCS / "contract.md").read_text(encoding="utf-8")
BUILT, _, PROMISED = TEXT.partition("\n## Promised, not yet built\n")
OPENAPI: dict[str, Any] = json.loads((DOCS / "openapi.json").read_bytes())
SETTINGS = dict(setting_fields())


def chapter(name: str) -> str:
    """The text under a heading, to the next one of any depth."""
    found = re.search(rf"^##+ {re.escape(name)}\n(.*?)(?=^##|\Z)", TEXT, re.MULTILINE | re.DOTALL)
    assert found, name
    return found[1]


def rows(name: str, table: int = 0) -> list[list[str]]:
    """The cells of a chapter's table, without its head."""
    tables = re.findall(r"(?:^\|.*\n)+", chapter(name), re.MULTILINE)
    lines = tables[table].splitlines()[2:]
    return [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines]


def named(text: str) -> list[str]:
    return re.findall(r"`([^`]+)`", text)


def words(text: str) -> set[str]:
    return set(re.findall(r"[a-z]\w*", text))


# The bus.

EVENT = {
    "symbol": "KCN/EUR",
    "buy_order_id": "a",
    "sell_order_id": 1,
    "order_id": "a",
    "price": "1",
    "quantity": "1",
    "filled_quantity": "0",
    "timestamp": 1,
    "taker_side": "bid",
    "buy_fee": "0.1",
    "sell_fee": "-0.1",
    "fee_currency": "EUR",
    "sequence": 1,
    "bids": [],
    "asks": [],
    "deltas": [{"action": "add", "side": "bid", "price": "1", "quantity": "1"}],
    "side": "bid",
    "order_type": "limit",
    "reason": "none",
}


def test_contract_has_every_type_of_event_and_no_other() -> None:
    assert {named(row[0])[0] for row in rows("Market events")} == KNOWN_EVENTS


@pytest.mark.parametrize("row", rows("Market events"), ids=lambda row: row[0])
def test_event_needs_what_the_contract_says_and_no_more(row: list[str]) -> None:
    [kind] = named(row[0])
    needed, optional = row[1].split(", "), row[2].split(", ")
    event = {"type": kind} | {field: EVENT[field] for field in needed}
    without = [event, {**event, **dict.fromkeys(optional, "?")}]
    assert not any(isinstance(read_event(json.dumps(one).encode()), UnknownEvent) for one in without)
    for field in needed:
        with pytest.raises(PoisonedRecord):
            read_event(json.dumps({name: value for name, value in event.items() if name != field}).encode())
    whole = read_event(json.dumps({**event, **{field: EVENT[field] for field in optional}}).encode())
    assert all(getattr(whole, name.replace("timestamp", "timestamp_ms")) is not None for name in optional)


def test_contract_has_every_reason_for_skipping_a_record() -> None:
    assert [named(row[0])[0] for row in rows("Poisoned records")] == list(REASONS)


def test_contract_says_which_times_are_taken_as_they_are() -> None:
    told = chapter("Times of others")
    assert AHEAD_MS == 60_000
    assert "more than a minute ahead" in told
    assert [int(found) for found in re.findall(r"10\^(\d+)", told)] == [11, 9, 14, 17]
    assert [Times().of_record(10**power) for power in (9, 11, 14, 17)] == [10**12, 10**11, 10**11, 10**11]


def test_contract_has_the_commands_and_their_fields() -> None:
    order = check_place(
        {"symbol": "KCN/EUR", "side": "bid", "order_type": "limit", "price": "1", "quantity": "1"}, OrderRules()
    )
    cancel = CancelOrder("a", None)
    amend = AmendOrder(cancel, Decimal(1), None)
    commands = [order.encode("a", None, 1), *(one.encode("a", "KCN/EUR", None, 1) for one in (cancel, amend))]
    wanted = [(command.pop("type"), list(command)) for command in map(json.loads, commands)]
    assert [(named(row[0])[0], row[1].partition(";")[0].split(", ")) for row in rows("Order commands")] == wanted


def test_contract_names_what_the_broker_refuses_for_certain() -> None:
    certain = rows("Written or not")[0]
    told = {name for name in named(certain[2]) if name.isupper()}
    assert told == {KafkaError(code).name() for code in CERTAINLY_NOT_WRITTEN}


# HTTP.


def test_contract_has_every_route_and_no_other() -> None:
    told = [named(row[0])[0] for row in rows("HTTP")]
    assert len(told) == len(set(told))
    assert set(told) == {
        f"{method.upper()} {path}"
        for path, item in OPENAPI["paths"].items()
        for method in item
        if method in ("get", "post", "put", "patch", "delete")
    }


def test_contract_has_the_answers_of_every_route() -> None:
    for route, _, answers in rows("HTTP"):
        method, path = named(route)[0].split()
        documented = OPENAPI["paths"][path][method.lower()]["responses"]
        told = set(re.findall(r"\b[1-5]\d\d\b", answers))
        assert told
        assert told <= documented.keys(), path


def test_contract_has_the_public_table_of_problems() -> None:
    assert sorted((int(row[0]), named(row[1])[0]) for row in rows("Problems")) == sorted(
        (problem.status, problem.slug) for problem in PROBLEMS.values()
    )


def test_contract_has_every_field_of_an_order_body() -> None:
    fields = [named(row[0])[0] for row in rows("Order body")]
    schemas = OPENAPI["components"]["schemas"]
    kinds = [schemas[kind["$ref"].rpartition("/")[2]] for kind in schemas["order"]["oneOf"]]
    assert set(fields) == {field for kind in kinds for field in kind["properties"]}
    assert len(fields) == len(set(fields))


def test_contract_has_the_members_of_an_order_state_and_every_status() -> None:
    order = check_place({"symbol": "A/B", "side": "bid", "order_type": "market", "quantity": "1"}, OrderRules())
    rejected, amended = (
        state(
            Order(
                "a", None, None, order.symbol, order.side, order.order_type, order.time_in_force, None, "1", None, 1, 1,
                Outcome.ACCEPTED, status=status, reason="none",
            )
        )
        for status in (Status.REJECTED, Status.OPEN)
    )  # fmt: skip
    shown = dict.fromkeys(name for name in [*rejected, *amended] if name != "time") | {"time": None}
    [told] = re.findall(r"^`\{(.*)\}`", chapter("Order state"), re.MULTILINE)
    assert told.replace("?", "").split(", ") == list(shown)
    assert [named(row[0])[0] for row in rows("Order state")] == [status.value for status in Status]
    final = {named(row[0])[0] for row in rows("Order state") if "final" in row[1]}
    assert final == {"filled", "cancelled", "rejected"}


def test_contract_has_the_members_of_health() -> None:
    schema = OPENAPI["components"]["schemas"]["health"]["properties"]
    told = {named(row[0])[0]: row[1] for row in rows("Health")}
    assert told.keys() == schema.keys()
    assert words(named(told["kafka"])[0]) == schema["kafka"]["properties"].keys()
    assert words(named(told["workers"])[0]) == schema["workers"]["items"]["properties"].keys()


# WebSocket.


def test_contract_has_every_method_and_no_other() -> None:
    """asyncapi.json's, which its own test holds to the session's."""
    documented = [MESSAGES[name]["payload"]["properties"] for name in REPLIES]
    methods = [members["method"] for members in documented if "method" in members]
    told = [named(row[0])[0] for row in [*rows("Requests"), *rows("Thalex")]]
    assert len(told) == len(set(told))
    assert set(told) == {name for method in methods for name in method.get("enum", [method.get("const")])}


def test_contract_has_the_public_table_of_codes() -> None:
    told = [(int(code), named(name)[0], meaning, retry) for code, name, meaning, retry in rows("Codes")]
    assert told == [(code.code, code.name, code.meaning, code.retry) for code in CODES]


def test_contract_has_every_channel_and_no_other() -> None:
    told = [named(row[0])[0] for row in rows("Channels")]
    forms = [re.sub(r"[{}]", "", form.replace("{symbol}", "BASE/QUOTE")) for form in told]
    assert sorted(forms) == sorted([*FORMS.values(), "events", STATUS, *ACCOUNT_CHANNELS])


def test_contract_has_every_interval_and_no_other() -> None:
    [told] = re.findall(r"^- `interval` .*?(?=^- )", chapter("Channels"), re.MULTILINE | re.DOTALL)
    assert set(named(told)) == {"interval", *INTERVALS_MS}


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("book", "bookSnapshot"),
        ("ticker", "ticker"),
        ("lwt", "lwt"),
        ("trades", "trades"),
        ("account.orders", "accountOrders"),
        ("account.trades", "accountTrades"),
        ("account.balances", "accountBalances"),
    ],
)
def test_contract_has_the_members_of_a_notification(kind: str, message: str) -> None:
    said = MESSAGES[message]["payload"]["properties"]["notification"]
    members = _members(said)
    [row] = [row for row in rows("Channels") if row[0].startswith((f"`{kind}.", f"`{kind}`"))]
    braces = re.findall(r"`\{(.*?)\}`", row[1])[0]
    told = words(re.sub(r"\[.*?\]", "", braces))
    assert told <= members, told - members
    everything = {name for text in named(chapter("Channels")) for name in words(text)}
    assert members - {"snapshot", "stale", "conflated"} <= everything, members - everything


def _members(schema: dict[str, Any]) -> set[str]:
    """Property names of an object's schema, whatever it is put together of."""
    found = set(schema.get("properties", ()))
    for name in ("allOf", "anyOf"):
        for part in schema.get(name, ()):
            found |= _members(part)
    if "$ref" in schema:
        found |= _members(resolve(schema["$ref"]))
    return found


# Settings.


def test_contract_has_every_setting_and_no_other() -> None:
    told = [name for row in rows("Settings") for name in named(row[1])]
    assert len(told) == len(set(told))
    assert set(told) == SETTINGS.keys()


def test_contract_has_the_variables_with_names_of_their_own() -> None:
    told = {named(row[0])[0]: named(row[1])[0] for row in rows("Settings", table=1)}
    names = {variable_of(name, one): name for name, one in SETTINGS.items()}
    assert told == {variable: name for variable, name in names.items() if not variable.startswith("GATEWAY_")}


def test_contract_speaks_of_settings_that_there_are_and_promises_those_that_there_are_not() -> None:
    sections = "|".join({name.partition(".")[0] for name in SETTINGS if "." in name})

    def settings_in(text: str) -> set[str]:
        return {name for name in named(text) if re.fullmatch(rf"(?:{sections}|admin)\.[a-z_]+", name)}

    assert settings_in(BUILT) <= SETTINGS.keys()
    assert not settings_in(PROMISED) & SETTINGS.keys(), "it is built now: move it up"


@pytest.mark.parametrize(
    ("told", "value"),
    [
        ("From clients it has at most 38 digits", MAX_DIGITS),
        ("from the engine at most 60", ENGINE_DIGITS),
        ("any text of at most 128 characters", MAX_ORDER_ID_CHARACTERS),
        ("at most 100,000 of them, beyond that", MAX_EARLY_EVENTS),
        ("Over 4 KiB a token", MAX_TOKEN_BYTES / 1024),
        ("1 to 256 characters, no control characters", MAX_USER_ID),
        ("with 60 s of leeway", LEEWAY_SECONDS),
        ("bodies up to 1 MiB", MAX_BODY_BYTES / 1024**2),
        ("`depth` is 1 to 1000 or `all`", MAX_DEPTH),
        ("a snapshot is the last 100, oldest first", SNAPSHOT_TRADES),
        ("on a connection has the last 100 trades too", SNAPSHOT_TRADES),
        ("of the last 8 `book` channels that the connection left", MOST_LEFT),
        ("at most 200,000 records", MAX_RECORDS),
        ("32 MiB and ten", MAX_BYTES / 1024**2),
        ("every 5 s, whatever its interval", HEARTBEAT_SECONDS),
        ("lost, revoked or unread for 5 s", UNREAD_SECONDS),
    ],
)
def test_contract_has_the_numbers_of_the_code(told: str, value: float) -> None:
    assert told in BUILT
    assert f"{value:g}" in re.findall(r"\d+", told.replace(",", ""))


def test_contract_has_the_bounds_of_reading_back() -> None:
    assert (SECONDS, READERS, WAIT_SECONDS, MAX_WAITING) == (10.0, 4, 10.0, 1_000)
    assert "ten\nseconds; one such reading at a time for a connection, four for a process" in BUILT
    assert "waits for a turn, ten seconds at most and a\nthousand in all" in BUILT
