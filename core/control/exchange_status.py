"""What holds now, of halts and the announcement together: who may order what, and what everybody is told of it
(docs/contract.md#status).

`HALTED` is what a halt makes of its symbol, or of all. An announced state holds from the announcement's beginning to its end.
Of several that hold for a symbol the one of the highest rank counts.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from typing import Final

from core.errors import Blocked, ControlUnavailable, Halted
from core.messages.control_records import Announcement, Restriction, TradingState

_NEVER: Final = float("inf")


class ExchangeStatus:
    """The state of the exchange, and of symbols that are in another one.

    `look` has to be called often, for announcements begin and end by the clock. `body` is what the channel and `GET
    /api/status` tell, and another object once it has changed.
    """

    def __init__(
        self,
        blocked: Mapping[str, Restriction],
        halted: Mapping[str | None, Restriction],
        announcement: Callable[[], Announcement | None],
        *,
        unread: Callable[[], str | None] = lambda: None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """`blocked` and `halted` are as of `Restrictions`, and live. `unread` says, until it is once known what holds, why it
        is not; None: it is.
        """
        self._blocked = blocked
        self._halted = halted
        self._announcement = announcement
        self._unread = unread
        self._clock = clock
        self._is_known = False
        self._is_old = True
        self._changes_at = _NEVER
        self._state = TradingState.ONLINE
        # Of symbols that are in a state of a higher rank than that.
        self._symbols: dict[str, TradingState] = {}
        self.body: Mapping[str, object] = {}
        self.look()

    def check(self, user_id: str | None, symbol: str) -> None:
        """Whether an order or amend may go out. Raises Blocked, Halted, and ControlUnavailable while that is not known."""
        if not self._is_known:
            self._check_known()
        if user_id is not None and user_id in self._blocked:
            raise Blocked(self._blocked[user_id].reason)
        if self._state is not TradingState.ONLINE or symbol in self._symbols:
            state = self._symbols.get(symbol, self._state)
            raise Halted(symbol, state.value, self._reason(symbol, state))

    def _check_known(self) -> None:
        reason = self._unread()
        if reason is not None:
            raise ControlUnavailable(reason)
        self._is_known = True

    def _reason(self, symbol: str, state: TradingState) -> str | None:
        if state is TradingState.HALTED:
            for name in (symbol, None):
                halt = self._halted.get(name)
                if halt is not None:
                    return halt.reason
        announcement = self._announcement()
        return None if announcement is None else announcement.message

    def on_change(self) -> None:
        """A halt, or the announcement, is another one."""
        self._is_old = True

    def look(self) -> None:
        """Do what follows from the time, and from what has changed."""
        now = self._clock() * 1000
        if self._is_old or now >= self._changes_at:
            self._is_old = False
            self._work_out(now)

    def _work_out(self, now_ms: float) -> None:
        announcement = self._announcement()
        if announcement is not None and announcement.until_ms is not None and announcement.until_ms <= now_ms:
            announcement = None
        is_in_force = announcement is not None and (announcement.from_ms is None or announcement.from_ms <= now_ms)
        states: dict[str | None, TradingState] = dict.fromkeys(self._halted, TradingState.HALTED)
        if announcement is not None and is_in_force:
            for symbol in (None,) if announcement.symbols is None else announcement.symbols:
                states[symbol] = _higher(announcement.state, states.get(symbol))
        state = self._state = states.get(None, TradingState.ONLINE)
        self._symbols = {symbol: own for symbol, own in states.items() if symbol is not None and own.rank > state.rank}
        self._changes_at = _NEVER
        if announcement is not None:
            moment = announcement.until_ms if is_in_force else announcement.from_ms
            self._changes_at = _NEVER if moment is None else moment
        self.body = self._body(announcement, is_in_force)

    def _body(self, announcement: Announcement | None, is_in_force: bool) -> dict[str, object]:
        told = {} if announcement is None else announcement._asdict()
        halt = self._halted.get(None)
        members = {
            "reasons": {name: own.reason for name, own in self._halted.items() if name is not None and own.reason}
            or None,
            "message": told.get("message") or (None if halt is None else halt.reason),
            "from_ms": told.get("from_ms"),
            "until_ms": told.get("until_ms"),
        }
        if announcement is not None and not is_in_force:
            symbols = {} if announcement.symbols is None else {"symbols": announcement.symbols}
            members["announced"] = {"state": announcement.state.value, **symbols}
        return {
            "state": self._state.value,
            "symbols": self._symbols,
            **{name: value for name, value in members.items() if value is not None},
        }

    def text(self) -> bytes:
        """`body` as JSON."""
        return json.dumps(self.body, ensure_ascii=False, separators=(",", ":")).encode()


def _higher(state: TradingState, other: TradingState | None) -> TradingState:
    return state if other is None or state.rank > other.rank else other
