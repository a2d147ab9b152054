"""What a start tells whoever started it: where the gateway listens, and how to be the demo's trader."""

from __future__ import annotations

import logging
import secrets
import time
from dataclasses import replace

from core.access.identity import demo_token
from core.config.settings import Bind, Settings
from process.file_limit import Capacity
from process.sockets import Listeners

log = logging.getLogger("gateway")

DEMO_TRADER = "demo-trader"
DEMO_SECONDS = 86_400


def with_demo_secret(settings: Settings) -> Settings:
    """The demo has a secret of its own at each start, unless one was set: its tokens die with it."""
    if not settings.demo.trader or settings.auth.secret is not None:
        return settings
    auth = replace(settings.auth, secret=secrets.token_urlsafe(32), algorithms=("HS256", *settings.auth.algorithms))
    return replace(settings, auth=auth)


def report_start(settings: Settings, listeners: Listeners, capacity: Capacity) -> None:
    """Once a start, whatever the number of workers."""
    address = f"http://{listeners.reachable}"
    log.info("listening on %s (bound to %s)", address, listeners.bound)
    for one in listeners.metrics[:1]:
        log.info("metrics: bound to %s", Bind(*one.getsockname()[:2]))
    log.info("console: %s/", address)
    if capacity.shortage is not None:
        log.warning("%s", capacity.shortage)
    if settings.demo.trader and settings.auth.secret is not None:
        # On standard output and not in the log: who reads it may trade.
        token = demo_token(settings.auth.secret, DEMO_TRADER, time.time() + DEMO_SECONDS)
        print(f"\nOpen the page, signed in as {DEMO_TRADER} for a day:\n\n    {address}/#token={token}\n", flush=True)
