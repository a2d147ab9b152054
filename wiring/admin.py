"""The operators' address, from the settings: who may, what they are shown, and where what they set goes."""

from __future__ import annotations

from collections.abc import Callable

from core.access.limits import Limiter
from core.config.settings import Settings
from handlers.admin import GUESSES, Control, Operations
from handlers.admin_server import AdminServer
from handlers.connected_clients import PageQuery, merged
from handlers.problems import Context
from process.worker_reports import Reports
from process.workers import Worker
from wiring.control import ControlRoom

# What a worker asks the others.
CLIENTS = "clients"


def build_admin(
    settings: Settings,
    worker: Worker,
    context: Context,
    reports: Reports,
    control: ControlRoom | None,
    find_market: Callable[[str], object | None],
) -> AdminServer | None:
    """None where there is no such address; connections of this process can be closed from elsewhere all the same.

    `find_market`: what is known of a symbol's market, None: nothing.
    """
    clients = context.clients
    if control is not None:
        control.close_user, control.close_client = clients.close_user, clients.close_client
    reports.words[CLIENTS] = lambda line: clients.page(PageQuery.of_line(line), worker.number)
    if settings.admin.token is None or not worker.listeners.admin:
        return None

    async def page_of_all(query: PageQuery) -> dict[str, object]:
        return merged(await reports.ask(CLIENTS, query.line()), worker.count, query.limit)

    set_by_operators = None
    if control is not None:
        set_by_operators = Control(
            control.restrictions,
            control.announcements,
            control.disconnects,
            control.cancel_open.run,
            control.why_not,
        )
    listed = {instrument.symbol for instrument in settings.instruments}

    def is_known(symbol: str) -> bool:
        return symbol in listed or find_market(symbol) is not None

    operations = Operations(settings.admin.token, page_of_all, set_by_operators, Limiter(GUESSES), is_known)
    return AdminServer(context, operations, worker.listeners.admin)
