from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace

import pytest

from core.settings import Accounts, Settings, Websocket
from services.descriptors import OWN, room_of, share_of
from tests.support.gateway import REPOSITORY


def of(max_connections: int, **more: object) -> Settings:
    return replace(Settings(), websocket=Websocket(max_connections=max_connections), **more)  # type: ignore[arg-type]


def test_clients_that_fit_are_all_taken() -> None:
    room = room_of(of(20_000), 1, 65_536)
    assert room.shortage is None
    assert room.clients < room.connections == 65_536 - OWN
    assert share_of(of(20_000), 1, room).websocket.max_connections == 20_000


def test_clients_that_do_not_fit_are_told_and_no_more_are_taken_than_fit() -> None:
    room = room_of(of(20_000), 1, 1024)
    assert room.shortage is not None
    assert f"20000 clients of one process do not fit into its 1024 file descriptors, {room.clients} do" in room.shortage
    assert share_of(of(20_000), 1, room).websocket.max_connections == room.clients


def test_no_limit_is_what_fits() -> None:
    room = room_of(of(0), 1, 1024)
    assert room.shortage is None
    assert share_of(of(0), 1, room).websocket.max_connections == room.clients


def test_workers_share_what_is_bounded_for_all_and_round_up() -> None:
    settings = of(1001, accounts=Accounts(max_connections=9))
    room = room_of(settings, 4, 65_536)
    shared = share_of(settings, 4, room)
    assert (shared.websocket.max_connections, shared.accounts.max_connections) == (251, 3)
    assert shared.websocket.max_connections_per_address == settings.websocket.max_connections_per_address


def test_several_workers_hold_what_one_cannot() -> None:
    assert room_of(of(1500), 1, 1024).shortage is not None
    assert room_of(of(1500), 2, 1024).shortage is None


def test_room_is_kept_for_the_accounts_service() -> None:
    with_accounts = of(10, accounts=Accounts(url="http://accounts:1", max_connections=64))
    assert room_of(with_accounts, 1, 1024).connections == room_of(of(10), 1, 1024).connections - 64


@pytest.mark.parametrize("limit", [1, 64, OWN, OWN + 1, OWN + 2, 256])
def test_smallest_limits_leave_room_for_somebody(limit: int) -> None:
    room = room_of(of(0), 1, limit)
    assert 1 <= room.clients <= room.connections


SCRIPT = """
import json, resource, sys
soft, hard = json.loads(sys.argv[1])
resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
from services.descriptors import raise_limit
print(json.dumps([raise_limit(), *resource.getrlimit(resource.RLIMIT_NOFILE)]))
"""


@pytest.mark.system
@pytest.mark.parametrize(("soft", "hard", "after"), [(256, 512, 512), (512, 512, 512)])
def test_soft_limit_is_raised_to_the_hard_one(soft: int, hard: int, after: int) -> None:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, json.dumps([soft, hard])],
        cwd=REPOSITORY, capture_output=True, text=True, check=True, timeout=30,
    )  # fmt: skip
    assert json.loads(done.stdout) == [after, after, hard]
