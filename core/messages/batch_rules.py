"""What a batch has to be: several orders, cancels and amends in one body, each checked as if it came alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from msgspec.structs import replace

from core.errors import FieldError, InvalidFields, NoAmends, RequestError
from core.messages.commands import AmendOrder, CancelOrder, PlaceOrder
from core.messages.order_rules import (
    OrderRules,
    check_amend,
    check_cancel,
    check_manner,
    check_object,
    check_place,
    check_unknown,
)

MOST_REQUESTS: Final = 20

_FIELDS: Final = frozenset({"requests", "deadline_ms", "validate_only"})
_REQUEST_FIELDS: Final = frozenset({"method", "params"})
_METHODS: Final[Mapping[str, Callable[[object, OrderRules], PlaceOrder | CancelOrder | AmendOrder]]] = {
    "place": check_place,
    "cancel": check_cancel,
    "amend": check_amend,
}

Permit = Callable[[str], None]

# What is to be done, or why it is not.
BatchItem = PlaceOrder | CancelOrder | AmendOrder | RequestError


@dataclass(frozen=True, slots=True)
class Batch:
    """The requests in order. `deadline_ms` and `validate_only` are those of the whole, and in its orders and amends already."""

    items: list[BatchItem]
    deadline_ms: int | None = None
    validate_only: bool = False
    # As they came, for whoever tells of them.
    given: Sequence[object] = ()


def check_batch(body: object, rules: OrderRules, permit: Permit | None = None) -> Batch:
    """The requests of a batch. Raises InvalidFields where it is none; what is wrong with one is in its place.

    `permit` raises RequestError for a method that the caller may not use, whatever else is wrong with the request.
    """
    members = check_object(body)
    errors: list[FieldError] = []
    requests = members.get("requests")
    if not isinstance(requests, list) or not 1 <= len(requests) <= MOST_REQUESTS:
        errors.append(FieldError("requests", f"expected a list of 1 to {MOST_REQUESTS}"))
    deadline_ms, validate_only = check_manner(members, errors)
    check_unknown(members, _FIELDS, errors)
    if errors:
        raise InvalidFields(errors)
    assert isinstance(requests, list)
    items = [_check_request(request, rules, permit) for request in requests]
    if deadline_ms is not None or validate_only:
        items = [_of_batch(item, deadline_ms, validate_only) for item in items]
    return Batch(items, deadline_ms, validate_only, requests)


def _of_batch(item: BatchItem, deadline_ms: int | None, validate_only: bool) -> BatchItem:
    """What holds for the batch holds for its orders and amends, unless they say otherwise."""
    if isinstance(item, PlaceOrder | AmendOrder):
        return replace(
            item,
            deadline_ms=deadline_ms if item.deadline_ms is None else item.deadline_ms,
            validate_only=validate_only or item.validate_only,
        )
    return item


def _check_request(request: object, rules: OrderRules, permit: Permit | None) -> BatchItem:
    try:
        members: Mapping[str, Any] = check_object(request)
        errors: list[FieldError] = []
        method: Any = members.get("method")
        check = _METHODS.get(method) if isinstance(method, str) else None
        if check is None:
            errors.append(FieldError("method", 'expected "place", "cancel" or "amend"'))
        elif check is check_amend and (reason := rules.why_no_amends()) is not None:
            raise NoAmends(reason)
        elif permit is not None:
            permit(method)
        params = members.get("params")
        if not isinstance(params, dict):
            errors.append(FieldError("params", "expected a JSON object"))
        check_unknown(members, _REQUEST_FIELDS, errors)
        if errors or check is None:
            raise InvalidFields(errors)
        return check(params, rules)
    except RequestError as error:
        return error
