"""The demo as `make run` has it, but for how much happens on its market."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import yaml

from tests.browser.serving import REPOSITORY
from tests.support.exchange import exchange_process
from tests.support.gateway import GatewayProcess


def demo_settings(port: int = 0) -> dict[str, Any]:
    settings: dict[str, Any] = yaml.safe_load((REPOSITORY / "conf/demo.yaml").read_text(encoding="utf-8"))
    return {**settings, "bind": f"127.0.0.1:{port}"}


@contextmanager
def quiet_demo(
    rate: float, settings: Mapping[str, Any] | None = None, environ: Mapping[str, str] | None = None
) -> Iterator[GatewayProcess]:
    """Ready, with so many public events a second instead of a hundred, each of which every page draws.

    A page and its gateway take half a core while they stand there, and tests beside others stand there for long.
    """
    of_demo = demo_settings()
    # Fetches that find nothing: four topics, and each two hundred a second by default.
    of_demo["kafka"]["consumer"] = {"fetch.wait.max.ms": 50}
    of_demo["demo"]["exchange"] = False
    with GatewayProcess({**of_demo, **(settings or {})}, environ) as gateway:
        brokers = gateway.wait_log(r"embedded broker on (\S+):").group(1)
        # As process/exchange_process.py starts it.
        topics = ["--brokers", brokers, "--account-topic", of_demo["kafka"]["account_topic"], "--from-beginning"]
        with exchange_process(*topics, "--account", "demo-trader", "--rate", str(rate)):
            gateway.wait_ready()
            yield gateway
