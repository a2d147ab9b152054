from __future__ import annotations

import pytest

from core.errors import CODES, PROBLEM_OF_STATUS, PROBLEMS, CloseCode, RpcCode


def test_codes_table_has_every_code_once() -> None:
    codes = [meaning.code for meaning in CODES]
    assert len(set(codes)) == len(codes)
    assert set(codes) >= {int(code) for code in RpcCode}
    assert len({meaning.name for meaning in CODES}) == len(CODES)


@pytest.mark.parametrize("code", CloseCode)
def test_codes_table_has_every_close_code(code: CloseCode) -> None:
    assert int(code) in {meaning.code for meaning in CODES}


@pytest.mark.parametrize("slug", PROBLEMS)
def test_problem_has_a_type_of_its_own_and_a_status_that_is_an_error(slug: str) -> None:
    problem = PROBLEMS[slug]
    assert problem.slug == slug
    assert problem.type == f"urn:mexchange:problem:{slug}"
    assert 400 <= problem.status < 600


@pytest.mark.parametrize("status", [400, 401, 404, 405, 409, 413, 415, 422, 429, 503, 504])
def test_problem_stands_for_every_status_of_the_contract(status: int) -> None:
    assert PROBLEM_OF_STATUS[status].status == status
