"""What orders may carry besides, in the ticket: a checkbox or a choice each."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from tests.browser.fake_gateway import ACCEPTED, FakeGateway, place, problem

DECLARED: dict[str, Any] = {
    "post_only": {"type": "boolean"},
    "stp": {"type": "enum", "values": ["cancel_newest", "cancel_oldest"]},
    "reduce": {"type": "boolean", "default": True},
    "route": {"type": "enum", "values": ["slow", "fast"], "default": "fast"},
    "group": {"type": "integer"},
    "stop": {"type": "decimal"},
}


@pytest.fixture
def declaring(start: Callable[..., FakeGateway], page: Page) -> FakeGateway:
    gateway = start(attributes=DECLARED)
    gateway.answer = ACCEPTED
    expect(page.locator("#attributes")).to_be_visible()
    expect(page.locator(".level[data-empty=false]")).to_have_count(4)
    return gateway


def sent(gateway: FakeGateway, page: Page) -> dict[str, Any]:
    place(page, "24.95", "1")
    expect(page.locator("#answer strong")).to_contain_text("Accepted")
    return {name: value for name, value in gateway.orders[-1].items() if name in DECLARED}


def test_ticket_sends_no_attribute_that_is_as_by_default(page: Page, declaring: FakeGateway) -> None:
    assert page.get_by_label("Reduce").is_checked()
    expect(page.get_by_label("Route")).to_have_value("fast")
    assert sent(declaring, page) == {}


def test_ticket_sends_the_attributes_that_were_chosen(page: Page, declaring: FakeGateway) -> None:
    page.get_by_label("Post only").check()
    page.get_by_label("Reduce").uncheck()
    page.get_by_label("Stp").select_option("cancel_oldest")
    page.get_by_label("Route").select_option("slow")
    page.get_by_label("Group").fill(" 12 ")
    page.locator("#attribute-stop").fill("0.10")
    assert sent(declaring, page) == {
        "post_only": True, "reduce": False, "stp": "cancel_oldest", "route": "slow", "group": 12, "stop": "0.10",
    }  # fmt: skip


def test_ticket_shows_a_refused_attribute_beside_it(page: Page, declaring: FakeGateway) -> None:
    declaring.answer = (422, {}, problem(422, errors=[{"field": "group", "message": "expected an integer"}]))
    page.get_by_label("Group").fill("x")
    place(page, "24.95", "1")
    expect(page.locator("#attribute-group-error")).to_have_text("expected an integer")
    expect(page.get_by_label("Group")).to_be_focused()
    assert declaring.orders[-1]["group"] == "x"
    page.get_by_label("Group").fill("1")
    expect(page.locator("#attribute-group-error")).to_have_text("")


def test_ticket_has_no_place_for_attributes_where_there_are_none(page: Page, gateway: FakeGateway) -> None:
    expect(page.locator("#attributes")).to_be_hidden()
    gateway.answer = ACCEPTED
    assert sent(gateway, page) == {}
