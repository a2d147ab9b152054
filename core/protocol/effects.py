"""What a client's message asks the handler to do, and how its answer is written in the dialect that it came in."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from decimal import Decimal
from typing import Any, NamedTuple, Protocol

import msgspec
import ujson

from core.channels.client_position import Since
from core.channels.names import ChannelName
from core.errors import CloseCode, InsufficientScope, InvalidFields, RequestError
from core.messages.batch_rules import Batch as BatchRequest
from core.messages.commands import AmendOrder, CancelOrder, PlaceOrder
from core.orders.ahead import AccountPosition
from core.orders.order import Order

_encode_id = json.JSONEncoder().encode


class RefusedCommand(msgspec.Struct, frozen=True):
    """What the audit says of an order command that was refused: what it is called, why, and which order it is about."""

    command: str
    error: RequestError
    names: Mapping[str, str]


class Reply(msgspec.Struct, frozen=True):
    """Send this text."""

    text: bytes
    is_refusal: bool = False
    # The text in its frame already, in place of it: a large one is not to be copied.
    frame: bytes | memoryview | None = None
    # What a refusal is counted as.
    counted_as: str = "rpc"
    # Of a refusal that is not yet in the audit.
    refused: RefusedCommand | None = None


class Subscribe(msgspec.Struct, frozen=True):
    """Add these channels; `since` is where the client wants to resume some of them. `status`: and the channel of that name."""

    channels: tuple[ChannelName, ...]
    since: Mapping[str, Since]
    status: bool = False


class Unsubscribe(msgspec.Struct, frozen=True):
    """Drop these channels."""

    names: tuple[str, ...]


class Answer(Protocol):
    """The form of the answer to one request, in the dialect that it came in."""

    def success(self, result: Any) -> Reply | None:
        """What was asked for was done; None where the dialect has no word for that."""

    def failure(self, error: RequestError) -> Reply:
        """It was not."""


class ListAnswer(Answer, Protocol):
    """The form of an answer that is a list of orders, which is written a piece at a time."""

    def write(self, orders: Iterable[Order]) -> bytes:
        """Some of them, with commas between."""

    def around(self) -> tuple[bytes, bytes]:
        """What stands before them all, and behind."""


class Connection(Protocol):
    """Whom answers go to, also when they come later."""

    def tell(self, reply: Reply | None) -> None:
        """Send an answer, if there is one."""

    def end(self, code: CloseCode, reason: str) -> None:
        """Close the connection."""


class Authenticate(msgspec.Struct, frozen=True):
    """Check this token, and answer. What the client sends after it is read after it."""

    answer: Answer
    token: str
    # Whom it has to be of, where the client says so.
    user_id: str | None = None


class SubscribeAccount(msgspec.Struct, frozen=True):
    """Add channels of the account's, answer, and send what each begins with; `since` is where to resume some of them.

    What the client sends after it is read after it.
    """

    answer: RpcAnswer
    names: list[str]
    since: Mapping[str, AccountPosition] = msgspec.field(default_factory=dict)


class Place(msgspec.Struct, frozen=True):
    """Publish this order of the client's, and answer: at once, or when the engine has said what becomes of it."""

    answer: Answer
    order: PlaceOrder
    awaits_engine: bool = False


class PlaceNobodys(msgspec.Struct, frozen=True):
    """Publish these orders of nobody's, those that break no rule, and tell in one answer of what was refused."""

    answer: Answer
    orders: tuple[PlaceOrder | InvalidFields, ...]


class Cancel(msgspec.Struct, frozen=True):
    """Cancel this order of the client's, and answer: at once, or when the engine has said what became of it."""

    answer: Answer
    cancel: CancelOrder
    awaits_engine: bool = False


class Amend(msgspec.Struct, frozen=True):
    """Amend this order of the client's, and answer: at once, or when the engine has said whether it is amended."""

    answer: Answer
    amend: AmendOrder
    awaits_engine: bool = False


class Batch(msgspec.Struct, frozen=True):
    """Do each of these of the client's, and answer what became of them in one."""

    answer: Answer
    batch: BatchRequest


class CancelAll(msgspec.Struct, frozen=True):
    """Cancel the client's open orders (of one symbol), and answer."""

    answer: Answer
    symbol: str | None


class CancelAllAfter(msgspec.Struct, frozen=True):
    """Cancel the client's open orders in so many seconds unless it says so again (0: not at all), and answer."""

    answer: Answer
    timeout_seconds: int


class ListOrders(msgspec.Struct, frozen=True):
    """Answer with the client's open orders (of one symbol)."""

    answer: ListAnswer
    symbol: str | None


class SetCancelOnDisconnect(msgspec.Struct, frozen=True):
    """From now on, or no more, cancel this connection's open orders when it ends, and answer with `result`.

    `silence_seconds`: a client that shows no sign of life for so long is gone; None: as everybody.
    """

    answer: Answer
    enabled: bool
    result: Mapping[str, object]
    silence_seconds: float | None = None


Effect = (
    Reply
    | Subscribe
    | Unsubscribe
    | PlaceNobodys
    | Authenticate
    | SubscribeAccount
    | Place
    | Cancel
    | Amend
    | Batch
    | CancelAll
    | CancelAllAfter
    | ListOrders
    | SetCancelOnDisconnect
)


class StampedId(NamedTuple):
    """The id of a request whose answer tells when it came (`us_in`) and when that answer was written.

    Both in microseconds since the Unix epoch; `now_us` is the clock.
    """

    request_id: object
    us_in: int
    now_us: Callable[[], int]


def answer(request_id: object, result: object) -> Reply:
    """The answer to a request that succeeded."""
    return encoded_answer(request_id, _json(result))


def encoded_answer(request_id: object, result: str) -> Reply:
    """The answer to a request whose result is JSON text already, with more digits than a double holds."""
    return Reply(_encode(request_id, "result", result))


def refusal(request_id: object, error: RequestError) -> Reply:
    """The answer to a request that did not."""
    return Reply(
        _encode(request_id, "error", _json(error_object(error))), is_refusal=True, counted_as=counted_as(error)
    )


def counted_as(error: RequestError) -> str:
    """What a refusal over WebSocket is counted as: those of one's own scope apart from the rest."""
    return error.problem if isinstance(error, InsufficientScope) else "rpc"


def error_object(error: RequestError) -> dict[str, object]:
    """Code, message and data of a refusal."""
    told: dict[str, object] = {"code": int(error.code), "message": error.message}
    if error.data is not None:
        told["data"] = error.data
    return told


def _json(value: object) -> str:
    return ujson.dumps(value, escape_forward_slashes=False)


def _encode(request_id: object, member: str, value: str) -> bytes:
    stamps = ""
    if isinstance(request_id, StampedId):
        stamps = f',"usIn":{request_id.us_in},"usOut":{request_id.now_us()}'
        request_id = request_id.request_id
    kind = type(request_id)
    told = str(request_id) if kind is int or kind is Decimal else _encode_id(request_id)
    return f'{{"id":{told},"{member}":{value}{stamps}}}'.encode()


class RpcAnswer(msgspec.Struct, frozen=True):
    """The present dialect: `{"id", "result"}` or `{"id", "error"}`."""

    request_id: object

    def success(self, result: object) -> Reply:
        """The result as it is."""
        return answer(self.request_id, result)

    def failure(self, error: RequestError) -> Reply:
        """Code, message and data."""
        return refusal(self.request_id, error)


class OldestAnswer(msgspec.Struct, frozen=True):
    """The oldest dialect: nothing for success, the present error for a refusal."""

    request_id: object

    def success(self, _result: object) -> None:
        """Not a word."""

    def failure(self, error: RequestError) -> Reply:
        """Code, message and data."""
        return refusal(self.request_id, error)


class OlderAnswer(msgspec.Struct, frozen=True):
    """The second older dialect: `{"type", "success", <what it is about>, "error"}`."""

    kind: str
    about: str
    value: str | None = None

    def success(self, result: Mapping[str, object]) -> Reply:
        """Whom or what it was about."""
        return self._reply(True, result.get(self.about))

    def failure(self, error: RequestError) -> Reply:
        """A sentence; the codes are the present dialect's."""
        value = (error.data or {}).get(self.about, self.value)
        return msgspec.structs.replace(
            self._reply(False, value, error.message), is_refusal=True, counted_as=counted_as(error)
        )

    def _reply(self, success: bool, value: object, error: str | None = None) -> Reply:
        body = {"type": self.kind, "success": success, self.about: value, "error": error}
        return Reply(ujson.dumps(body, escape_forward_slashes=False).encode())
