"""What a token allows: its `scope` (RFC 8693 section 4.2), read into the words that mean something here (docs/contract.md#scopes)."""

from __future__ import annotations

from typing import Final

from core.errors import InsufficientScope, Unauthorised

TRADE: Final = "trade"
CANCEL: Final = "cancel"
READ: Final = "read"

# What a token without a scope allows.
EVERYTHING: Final = frozenset({TRADE, CANCEL, READ})
NOTHING: Final = frozenset[str]()


def read_scope(scope: object) -> frozenset[str]:
    """The words of a `scope` claim that mean something here. Raises Unauthorised for what is no text.

    Who may trade may cancel: nobody is to be able to take risks and not to end them.
    """
    if not isinstance(scope, str):
        raise Unauthorised("the token's scope is not a text")
    words = EVERYTHING.intersection(scope.split(" "))
    return words | {CANCEL} if TRADE in words else words


def check_scope(allowed: frozenset[str], needed: str) -> None:
    """Raises InsufficientScope where the word that is needed is not allowed."""
    if needed not in allowed:
        raise InsufficientScope(needed)


def check_command(allowed: frozenset[str], method: str) -> None:
    """As `check_scope`, for what is asked for in a batch by this method."""
    check_scope(allowed, CANCEL if method == "cancel" else TRADE)


def no_scope() -> InsufficientScope:
    """What a token that allows nothing is refused with: it does not even sign in."""
    return InsufficientScope(" ".join(sorted(EVERYTHING)))
