"""How many connections fit into a process: its file limit, raised as far as is allowed, and shared out."""

from __future__ import annotations

import resource
from dataclasses import dataclass, replace

from core.settings import Settings

# A limit may be "none", or so large that programs which walk through all descriptors stand still.
MOST = 1_048_576
# What the process itself needs: the Kafka clients (some connections and pipes for each broker), files, the siblings.
OWN = 128
# With room for fewer clients than these a gateway is hardly of use, and whoever started it has to know.
FEW_CLIENTS = 1_000


@dataclass(frozen=True, slots=True)
class Room:
    """What one process can hold: open connections in all, and how many of them may be WebSockets.

    The rest is for short requests, so that who asks `/health` of a gateway full of clients is still answered. `shortage` is
    a warning where `websocket.max_connections` was set and does not fit, or where hardly anything does.
    """

    connections: int
    clients: int
    shortage: str | None = None


def fitted(settings: Settings, workers: int) -> tuple[Settings, Room]:
    """Raise the limit, and give a worker's settings and room."""
    room = room_of(settings, workers, raise_limit())
    return share_of(settings, workers, room), room


def raise_limit() -> int:
    """Raise the soft limit to the hard one where that is allowed; gives the descriptors that this process may have."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = MOST if hard == resource.RLIM_INFINITY else min(hard, MOST)
    if soft == resource.RLIM_INFINITY or soft >= most:
        return MOST if soft == resource.RLIM_INFINITY else soft
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
    except (OSError, ValueError):
        return soft  # as on macOS, where the kernel has a lower one of its own
    return most


def room_of(settings: Settings, workers: int, limit: int) -> Room:
    """What fits into `limit` descriptors beside the process's own."""
    own = OWN
    if settings.accounts.url is not None:
        # For reservations, and as many for what is passed through.
        own += 2 * _part(settings.accounts.max_connections, workers)
    connections = max(1, limit - own)
    clients = max(1, connections - min(256, connections // 8))
    wanted = _part(settings.websocket.max_connections, workers)
    if wanted <= clients or ("websocket.max_connections" not in settings.given and clients >= FEW_CLIENTS):
        return Room(connections, clients)
    shortage = (
        f"websocket.max_connections: {wanted} clients of one process do not fit into its {limit} file descriptors,"
        f" {clients} do; raise the hard limit (ulimit -Hn, LimitNOFILE)"
    )
    return Room(connections, clients, shortage)


def share_of(settings: Settings, workers: int, room: Room) -> Settings:
    """One worker's settings: its part of what is bounded for all, and no more clients than fit into it.

    `websocket.max_connections_per_address` stays whole: few connections of one address are spread unevenly, and a part of
    it would refuse somebody who is within it.
    """
    wanted = _part(settings.websocket.max_connections, workers)
    clients = min(wanted, room.clients) if wanted else room.clients
    return replace(
        settings,
        websocket=replace(settings.websocket, max_connections=clients),
        accounts=replace(settings.accounts, max_connections=_part(settings.accounts.max_connections, workers)),
    )


def _part(whole: int, workers: int) -> int:
    """Rounded up."""
    return -(-whole // workers)
