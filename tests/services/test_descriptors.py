"""How many connections there is room for."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from services.descriptors import own, reserve

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = """
import resource, sys
from dataclasses import replace
from core.settings import Settings
from services.descriptors import limit, with_room
soft, hard, wanted = map(int, sys.argv[1:])
resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
settings = Settings()
settings = replace(settings, websocket=replace(settings.websocket, max_connections=wanted))
print(with_room(settings).websocket.max_connections, limit())
"""


@pytest.mark.parametrize(
    ("soft", "hard", "wanted", "room", "limit", "warns"),
    [
        (1024, 8192, 500, 500, 1524, False),
        (1024, 1024, 500, 500, 1024, False),
        (1024, 1024, 513, 512, 1024, True),
        (256, 8192, 20_000, 7168, 8192, True),
        (1024, 4096, 0, 3072, 4096, False),
        (4096, 4096, 100, 100, 4096, False),
    ],
)
def test_room_is_the_limit_of_files_less_a_reserve(
    soft: int, hard: int, wanted: int, room: int, limit: int, warns: bool
) -> None:
    command = [sys.executable, "-c", PROGRAM, *map(str, (soft, hard, wanted))]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.split() == [str(room), str(limit)]
    assert ("room for" in done.stderr) == warns


def test_reserves_are_shares_of_a_low_limit() -> None:
    assert [(reserve(files), own(files)) for files in (16, 1024, 2048, 100_000)] == [
        (8, 4),
        (512, 256),
        (1024, 256),
        (1024, 256),
    ]
