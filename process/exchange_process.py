"""The simulated exchange of the demo: a process of its own that knows nothing but Kafka, started again when it dies."""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import Callable
from pathlib import Path

log = logging.getLogger("gateway")

END_SECONDS = 1.0
PAUSE_SECONDS = 1.0


class ExchangeProcess:
    """`python -m exchange` on the given brokers and topics; it ends when its standard input does, as when we die."""

    def __init__(
        self,
        folder: Path,
        brokers: str,
        topic: str,
        order_topic: str,
        account_topic: str,
        *,
        trader: str | None,
        is_fresh: bool,
    ) -> None:
        """`folder` is the one that the package `exchange` is in; without an `account_topic` it keeps no accounts, with one the
        `trader` has one from the beginning. `is_fresh`: nothing can be on the topics yet. Then an order that was accepted before
        the exchange came up is still executed by it, the first time.
        """
        self._folder = folder
        self._arguments = ["--brokers", brokers, "--topic", topic, "--order-topic", order_topic, "--log-commands"]
        if account_topic:
            self._arguments += ["--account-topic", account_topic]
            self._arguments += [] if trader is None else ["--account", trader]
        self._first_arguments = ["--from-beginning"] if is_fresh else []
        self._process: asyncio.subprocess.Process | None = None

    async def run(self, is_stopping: Callable[[], bool]) -> None:
        """Keep it running until somebody stops it."""
        while True:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "exchange", *self._arguments, *self._first_arguments, "--until-stdin-closes",
                stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.DEVNULL, cwd=self._folder,
                start_new_session=True,
            )  # fmt: skip
            self._first_arguments = []
            log.info("simulated exchange started (process %d)", self._process.pid)
            code = await self._process.wait()
            if is_stopping():
                return
            log.error("the simulated exchange ended with code %d; starting it again", code)
            await asyncio.sleep(PAUSE_SECONDS)

    async def end(self) -> None:
        """Let it end, or end it."""
        if self._process is None or self._process.returncode is not None:
            return
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            await asyncio.wait_for(self._process.wait(), END_SECONDS)
        except TimeoutError:
            self._process.kill()
            await self._process.wait()
