from __future__ import annotations

from dataclasses import replace

import pytest

from core.access.identity import Principal
from core.access.scopes import CANCEL, EVERYTHING, NOTHING, READ, TRADE, check_scope, read_scope
from core.errors import InsufficientScope, Unauthorised
from tests.core.access.test_admission import run
from tests.core.admission import Tokens, admission
from tests.core.tokens import HS256, claims, identity_with, refusal, token


@pytest.mark.parametrize(
    ("scope", "allowed"),
    [
        ("read", {READ}),
        ("cancel", {CANCEL}),
        ("trade", {TRADE, CANCEL}),
        ("read trade", EVERYTHING),
        ("openid read profile", {READ}),
        ("openid", NOTHING),
        ("", NOTHING),
        (" read  cancel ", {READ, CANCEL}),
        ("read\tcancel", NOTHING),
        ("Read TRADE traders", NOTHING),
    ],
)
def test_scope_is_read_by_its_words(scope: str, allowed: frozenset[str]) -> None:
    assert read_scope(scope) == allowed
    assert identity_with(HS256).authenticate(token(scope=scope)).allowed == allowed


@pytest.mark.parametrize("scope", [["read"], 1, True, None, {"read": True}])
def test_scope_that_is_no_text_is_a_bad_token(scope: object) -> None:
    with pytest.raises(Unauthorised):
        read_scope(scope)
    assert refusal(identity_with(HS256), token(scope=scope)) == "the token's scope is not a text"


@pytest.mark.parametrize(("is_required", "allowed"), [(False, EVERYTHING), (True, NOTHING)])
def test_token_without_a_scope_allows_everything_unless_one_is_required(
    is_required: bool, allowed: frozenset[str]
) -> None:
    identity = identity_with(replace(HS256, require_scope=is_required))
    assert "scope" not in claims()
    assert identity.authenticate(token()).allowed == allowed
    assert identity.authenticate(token(scope="read")).allowed == {READ}


def test_token_allows_the_same_when_it_comes_again() -> None:
    identity = identity_with(HS256)
    read, trade = token(scope="read"), token(scope="trade")
    for _ in range(2):
        assert (identity.authenticate(read).allowed, identity.authenticate(trade).allowed) == ({READ}, {TRADE, CANCEL})


def test_scope_that_lacks_the_word_is_refused_by_it() -> None:
    check_scope(frozenset({READ}), READ)
    with pytest.raises(InsufficientScope) as refused:
        check_scope(frozenset({READ}), TRADE)
    assert (refused.value.needed, str(refused.value)) == (TRADE, "the token's scope has no trade")


@pytest.mark.parametrize(
    ("allowed", "needed", "user_id"),
    [(EVERYTHING, READ, "alice"), (EVERYTHING, None, "alice"), (frozenset({READ}), READ, "alice"),
     (frozenset({READ}), None, None), (NOTHING, None, None)],
)  # fmt: skip
def test_user_of_a_header_is_told_as_far_as_its_scope_suffices(
    allowed: frozenset[str], needed: str | None, user_id: str | None
) -> None:
    tokens = Tokens()
    tokens.good["a"] = Principal("alice", float("inf"), allowed)
    assert run(admission(tokens).user_of("Bearer a", needed)) == user_id


def test_user_of_a_header_is_refused_where_its_scope_does_not_suffice() -> None:
    tokens = Tokens()
    tokens.good["a"] = Principal("alice", float("inf"), frozenset({READ}))
    with pytest.raises(InsufficientScope):
        run(admission(tokens).user_of("Bearer a", TRADE))
