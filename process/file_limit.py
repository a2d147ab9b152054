"""How many connections fit into a process: its file limit, raised as far as is allowed, and shared out."""

from __future__ import annotations

import resource
from dataclasses import dataclass, replace

from core.config.settings import Settings

# A limit may be "none", or so large that programs which walk through all descriptors stand still.
MAX_DESCRIPTORS = 1_048_576
# What the process itself needs: the Kafka clients (with pipes and files 66 on one broker, 127 on three), connections that are
# being refused (64 at once), the siblings.
OWN_DESCRIPTORS = 256
# With room for fewer clients than these a gateway is hardly of use, and whoever started it has to know.
FEW_CLIENTS = 1_000


@dataclass(frozen=True, slots=True)
class Capacity:
    """What one process can hold: open connections in all, and how many of them may be WebSockets.

    The rest is for short requests, so that who asks `/health` of a gateway full of clients is still answered. `shortage` is
    a warning where `websocket.max_connections` was set and does not fit, or where hardly anything does.
    """

    connections: int
    clients: int
    shortage: str | None = None


def fit_to_file_limit(settings: Settings, workers: int) -> tuple[Settings, Capacity]:
    """Raise the limit, and give a worker's settings and capacity."""
    capacity = capacity_of(settings, workers, raise_file_limit())
    return settings_of_worker(settings, workers, capacity), capacity


def raise_file_limit() -> int:
    """Raise the soft limit to the hard one where that is allowed; gives the descriptors that this process may have."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = MAX_DESCRIPTORS if hard == resource.RLIM_INFINITY else min(hard, MAX_DESCRIPTORS)
    if soft == resource.RLIM_INFINITY or soft >= most:
        return MAX_DESCRIPTORS if soft == resource.RLIM_INFINITY else soft
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
    except (OSError, ValueError):
        return soft  # as on macOS, where the kernel has a lower one of its own
    return most


def capacity_of(settings: Settings, workers: int, limit: int) -> Capacity:
    """What fits into `limit` descriptors beside the process's own."""
    own = OWN_DESCRIPTORS
    if settings.accounts.url is not None:
        # For reservations, and as many for what is passed through.
        own += 2 * _part(settings.accounts.max_connections, workers)
    connections = max(1, limit - own)
    clients = max(1, connections - min(256, connections // 8))
    wanted = _part(settings.websocket.max_connections, workers)
    if wanted <= clients or ("websocket.max_connections" not in settings.given and clients >= FEW_CLIENTS):
        return Capacity(connections, clients)
    shortage = (
        f"websocket.max_connections: {wanted} clients of one process do not fit into its {limit} file descriptors,"
        f" {clients} do; raise the hard limit (ulimit -Hn, LimitNOFILE)"
    )
    return Capacity(connections, clients, shortage)


def settings_of_worker(settings: Settings, workers: int, capacity: Capacity) -> Settings:
    """One worker's settings: its part of what is bounded for all, and no more clients than fit into it.

    `websocket.max_connections_per_address` stays whole: few connections of one address are spread unevenly, and a part of
    it would refuse somebody who is within it.
    """
    wanted = _part(settings.websocket.max_connections, workers)
    clients = min(wanted, capacity.clients) if wanted else capacity.clients
    return replace(
        settings,
        websocket=replace(settings.websocket, max_connections=clients),
        accounts=replace(settings.accounts, max_connections=_part(settings.accounts.max_connections, workers)),
    )


def _part(whole: int, workers: int) -> int:
    """Rounded up."""
    return -(-whole // workers)
