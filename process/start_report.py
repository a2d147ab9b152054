"""What a start tells whoever started it: where the gateway listens, and how to be the demo's trader."""

from __future__ import annotations

import logging
import os
import secrets
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace

from core.access.identity import demo_token
from core.config.settings import Bind, Settings
from process.file_limit import Capacity
from process.sockets import Listeners

log = logging.getLogger("gateway")

DEMO_TRADER = "demo-trader"
DEMO_SECONDS = 86_400
ADMIN_TOKEN_PREFIX = "gateway-admin-token-"


def with_demo_secret(settings: Settings) -> Settings:
    """The demo has a secret of its own at each start, unless one was set: its tokens die with it."""
    if not settings.demo.trader or settings.auth.secret is not None:
        return settings
    auth = replace(settings.auth, secret=secrets.token_urlsafe(32), algorithms=("HS256", *settings.auth.algorithms))
    return replace(settings, auth=auth)


@contextmanager
def demo_admin_token(settings: Settings) -> Iterator[Settings]:
    """The operators of the demo have a token of their own at each start, in a file that this user alone may read and that is
    gone with the process; unless one was set. Where no file can be made, the demo has no operators' address.
    """
    if settings.admin.bind is None or settings.admin.token is not None:
        yield settings
        return
    try:
        handle, path = tempfile.mkstemp(prefix=ADMIN_TOKEN_PREFIX)
    except OSError as error:
        log.warning("no operators' address: their token cannot be kept: %s", error.strerror)
        yield replace(settings, admin=replace(settings.admin, bind=None))
        return
    try:
        token = secrets.token_urlsafe(32)
        with os.fdopen(handle, "w") as file:
            file.write(token + "\n")
        log.info("the operators' token is kept in %s", path)
        yield replace(settings, admin=replace(settings.admin, token=token))
    finally:
        with suppress(OSError):
            os.unlink(path)


def report_start(settings: Settings, listeners: Listeners, capacity: Capacity) -> None:
    """Once a start, whatever the number of workers."""
    address = f"{'http' if listeners.certificate is None else 'https'}://{listeners.reachable}"
    log.info("listening on %s (bound to %s)", address, listeners.bound)
    for one in listeners.metrics[:1]:
        log.info("metrics: bound to %s", Bind(*one.getsockname()[:2]))
    for one in listeners.admin[:1]:
        log.info("operators: http://%s/admin/", Bind(*one.getsockname()[:2]))
    log.info("console: %s/", address)
    if capacity.shortage is not None:
        log.warning("%s", capacity.shortage)
    if settings.demo.trader and settings.auth.secret is not None:
        # On standard output and not in the log: who reads it may trade.
        token = demo_token(settings.auth.secret, DEMO_TRADER, time.time() + DEMO_SECONDS)
        print(f"\nOpen the page, signed in as {DEMO_TRADER} for a day:\n\n    {address}/#token={token}\n", flush=True)
