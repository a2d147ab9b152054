"""The log: one line each on standard error, librdkafka's and Tornado's own among them."""

from __future__ import annotations

import logging
import time


def set_up_logging(level: str, worker: int | None = None) -> None:
    """Log from this level on; of several workers, each line says whose it is."""
    who = "" if worker is None else f"worker {worker} "
    formatter = logging.Formatter(
        f"%(asctime)s.%(msecs)03dZ %(levelname)-7s {who}%(name)s: %(message)s", "%Y-%m-%dT%H:%M:%S"
    )
    formatter.converter = time.gmtime
    handler = logging.StreamHandler()
    handler.setFormatter(formatter)
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    logging.getLogger("asyncio").setLevel(logging.WARNING)
