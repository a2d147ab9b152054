"""`GET /api/balance`: what the caller has (docs/contract.md#balances)."""

from __future__ import annotations

from typing import Any

from core.access.scopes import READ
from core.accounts.balances import KnownBalances, balances_text
from core.errors import BalancesUnavailable, TokenNeeded
from handlers.bodies import BaseHandler
from handlers.problems import Context, Refusal, refusal_of


class BalanceHandler(BaseHandler):
    """As of the last record of the caller's that was read."""

    # Tornado calls it with this route's own arguments, and nobody through the base class.
    def initialize(self, context: Context, balances: KnownBalances | None) -> None:  # type: ignore[override]
        """`balances` are None where there is no account topic."""
        super().initialize(context)
        self._balances = balances

    async def get(self) -> None:
        """By currency what is available and what is reserved; nothing for whom no record tells of."""
        self.take_request()
        principal = await self.principal()
        if self._balances is None:
            raise Refusal("not-found", "this gateway knows no balances: no account topic is configured")
        if principal is None:
            raise refusal_of(TokenNeeded("a token is needed"))
        self.check_scope(principal, READ)
        try:
            known = self._balances.of(principal.user_id)
        except BalancesUnavailable as error:
            raise refusal_of(error) from error
        time_text = "null" if known.time_ms is None else repr(known.time_ms / 1000)
        self.answer_text(200, f'{{"balances":{balances_text(known.balances)},"time":{time_text}}}')

    head = get


def routes(context: Context, balances: KnownBalances | None) -> list[tuple[Any, ...]]:
    """The route table of this room."""
    return [(r"/api/balance", BalanceHandler, {"context": context, "balances": balances})]
