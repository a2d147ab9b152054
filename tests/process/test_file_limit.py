from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace

import pytest

from core.config.settings import Accounts, Settings, Websocket
from process.file_limit import FEW_CLIENTS, OWN_DESCRIPTORS, capacity_of, settings_of_worker
from tests.support.gateway import REPOSITORY

ASKED_FOR = frozenset({"websocket.max_connections"})


def of(max_connections: int, given: frozenset[str] = ASKED_FOR, **more: object) -> Settings:
    websocket = Websocket(max_connections=max_connections)
    return replace(Settings(), websocket=websocket, given=given, **more)  # type: ignore[arg-type]


def test_clients_that_fit_are_all_taken() -> None:
    capacity = capacity_of(of(20_000), 1, 65_536)
    assert capacity.shortage is None
    assert capacity.clients < capacity.connections == 65_536 - OWN_DESCRIPTORS
    assert settings_of_worker(of(20_000), 1, capacity).websocket.max_connections == 20_000


def test_clients_that_do_not_fit_are_told_and_no_more_are_taken_than_fit() -> None:
    capacity = capacity_of(of(20_000), 1, 1024)
    assert capacity.shortage is not None
    assert (
        f"20000 clients of one process do not fit into its 1024 file descriptors, {capacity.clients} do"
        in capacity.shortage
    )
    assert settings_of_worker(of(20_000), 1, capacity).websocket.max_connections == capacity.clients


@pytest.mark.parametrize(
    ("given", "clients", "is_told"),
    [
        (ASKED_FOR, 20_000, False),
        (ASKED_FOR, 19_999, True),
        (frozenset({"websocket.max_views"}), 19_999, False),
        (frozenset(), FEW_CLIENTS, False),
        (frozenset(), FEW_CLIENTS - 1, True),
    ],
)
def test_clients_that_do_not_fit_are_told_where_they_were_asked_for_or_hardly_any_fit(
    given: frozenset[str], clients: int, is_told: bool
) -> None:
    limit = next(limit for limit in range(clients, 2 * clients) if capacity_of(of(0), 1, limit).clients == clients)
    capacity = capacity_of(of(20_000, given), 1, limit)
    assert capacity.clients == clients
    assert (capacity.shortage is not None) == is_told


def test_no_limit_is_what_fits() -> None:
    capacity = capacity_of(of(0), 1, 1024)
    assert capacity.shortage is None
    assert settings_of_worker(of(0), 1, capacity).websocket.max_connections == capacity.clients


def test_workers_share_what_is_bounded_for_all_and_round_up() -> None:
    settings = of(1001, accounts=Accounts(max_connections=9))
    capacity = capacity_of(settings, 4, 65_536)
    shared = settings_of_worker(settings, 4, capacity)
    assert (shared.websocket.max_connections, shared.accounts.max_connections) == (251, 3)
    assert shared.websocket.max_connections_per_address == settings.websocket.max_connections_per_address


def test_several_workers_hold_what_one_cannot() -> None:
    assert capacity_of(of(1200), 1, 1024).shortage is not None
    assert capacity_of(of(1200), 2, 1024).shortage is None


def test_room_is_kept_for_reservations_and_for_what_is_passed_through() -> None:
    with_accounts = of(10, accounts=Accounts(url="http://accounts:1", max_connections=64))
    assert capacity_of(with_accounts, 1, 1024).connections == capacity_of(of(10), 1, 1024).connections - 2 * 64


@pytest.mark.parametrize("limit", [1, 64, OWN_DESCRIPTORS, OWN_DESCRIPTORS + 1, OWN_DESCRIPTORS + 2, 512])
def test_smallest_limits_leave_room_for_somebody(limit: int) -> None:
    capacity = capacity_of(of(0), 1, limit)
    assert 1 <= capacity.clients <= capacity.connections


SCRIPT = """
import json, resource, sys
soft, hard = json.loads(sys.argv[1])
resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
from process.file_limit import raise_file_limit
print(json.dumps([raise_file_limit(), *resource.getrlimit(resource.RLIMIT_NOFILE)]))
"""


@pytest.mark.system
@pytest.mark.parametrize(("soft", "hard", "after"), [(256, 512, 512), (512, 512, 512)])
def test_soft_limit_is_raised_to_the_hard_one(soft: int, hard: int, after: int) -> None:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, json.dumps([soft, hard])],
        cwd=REPOSITORY, capture_output=True, text=True, check=True, timeout=30,
    )  # fmt: skip
    assert json.loads(done.stdout) == [after, after, hard]
