"""Limits as they are without a setting: nobody is told apart by an address, but whoever floods the door of accounts."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_network
from typing import Any

import pytest

from core.config.settings import Settings
from wiring.access import build_access

ADDRESS = "192.0.2.7"


@pytest.mark.parametrize("workers", [1, 4, 64])
def test_sixty_sign_ins_at_once_are_admitted_from_one_address_whatever_the_workers(workers: int) -> None:
    admission = build_access(Settings(), 1 / workers).admission
    admission.address_logins._clock = lambda: 1000.0  # a moment later there would be room for one more
    decisions = [admission.take_login(ADDRESS) for _ in range(60)]
    assert all(decision.allowed for decision in decisions)
    assert not admission.take_login(ADDRESS).allowed
    assert admission.take_login("192.0.2.8").allowed


def test_nothing_else_is_limited_by_address_unless_it_is_set() -> None:
    settings = Settings()
    admission = build_access(settings, 1.0).admission
    assert all(admission.take_request(ADDRESS).allowed for _ in range(1000))
    assert admission.address_connects.policy.rate_per_second == 0
    assert settings.websocket.max_connections_per_address == 0


@pytest.mark.parametrize(
    ("section", "changes", "trusts"),
    [
        ("limits", {}, False),
        ("http", {"trusted_proxies": (ip_network("10.0.0.0/8"),)}, True),
        ("limits", {"address_connects_per_second": 1.0}, True),
        ("limits", {"address_requests_per_second": 1.0}, True),
        ("websocket", {"max_connections_per_address": 10}, True),
    ],
)
def test_penalty_is_by_address_too_where_the_operator_says_that_addresses_tell_clients_apart(
    section: str, changes: dict[str, Any], trusts: bool
) -> None:
    settings = Settings()
    settings = replace(settings, **{section: replace(getattr(settings, section), **changes)})
    admission = build_access(settings, 1.0).admission
    assert (admission.trusts_addresses, admission.penalties.seconds) == (trusts, 30)
