"""Which paths are passed through."""

from __future__ import annotations

from collections.abc import Iterator
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from handlers.passthrough_targets import check_target
from handlers.problems import Refusal
from tests.handlers.passing import OK, before_accounts, check_problem, gateway
from tests.support.accounts import account_service, raw_service


@pytest.mark.parametrize(
    "target",
    [
        "/auth/login",
        "/auth/",
        "/auth/a/b/c?x=1&y=%2F..%2F&z=a//b",
        "/api/me",
        "/api/me/",
        "/api/me/keys/1",
        "/api/me?",
        "/api/me?a?b",
        "/api/balances",
        "/api/balances/EUR",
        "/api/orders",
        "/api/orders/17/fills?after=2",
        "/api/faucet/EUR",
        "/api/ohlcv",
        "/api/ohlcv/KCN-EUR?interval=1m",
        "/api/me/j%C3%BCrgen",
        "/api/me/50%25",
        "/api/me/a%20b;v=1/c.d..e/~x/internal",
        "/api/me/%F0%9F%98%80",
    ],
)
@pytest.mark.gen_test
async def test_path_of_the_account_service_is_passed_as_it_came(target: str) -> None:
    async with raw_service(OK) as service, gateway(service.url) as client:
        assert (await client.ask("GET", target)).body == b"ok"
        assert service.head[0] == f"GET {target} HTTP/1.1"
        assert (await client.ask("GET", f"http://exchange.example{target}")).body == b"ok"
        assert service.head[0] == f"GET {target} HTTP/1.1"


@pytest.mark.parametrize(
    "target",
    [
        "/api/meow", "/api/me2", "/api/me;x", "/api/order", "/api/order/1", "/api/ordersx", "/api/balancesheet",
        "/api/faucet", "/api/faucets/1", "/api/ohlcvx", "/auth", "/authx/login", "/AUTH/login", "/Api/me", "/api", "/",
        "/%61uth/login", "/api/m%65", "/x/auth/login", "/api/api/me", "http://exchange.example/api/meow", "*",
    ],
)  # fmt: skip
@pytest.mark.gen_test
async def test_path_of_nobody_else_is_passed(target: str) -> None:
    async with before_accounts() as (client, service):
        check_problem(await client.ask("GET", target), 404, "not-found")
        assert service.seen == []


def spellings_of_internal() -> Iterator[str]:
    internal = [
        "internal",
        "INTERNAL",
        "Internal",
        "%69nternal",
        "%49NTERNAL",
        "%2569nternal",
        "intern%61l",
        "internal;a=b",
    ]
    internal += ["internal%20", "internal.", "internal%00", "%ef%bd%89nternal"]
    ups = [
        "..",
        "%2e%2e",
        "%2E.",
        ".%2e",
        "%252e%252e",
        "%25252e%25252e",
        "..;",
        "..;a=b",
        "..%20",
        "%2e%2e;x",
        ".%00.",
    ]
    ups += ["%c0%ae%c0%ae", "%ef%bc%8e%ef%bc%8e", "%e2%80%a5", "%u002e%u002e", "...", "%uff0e."]
    for name in internal:
        yield from (f"/{name}", f"/{name}/orders", f"//{name}/orders", f"/./{name}/orders", f"/;/{name}/orders")
        yield from (f"\\{name}\\orders", f"/%2f{name}", f"http://127.0.0.1/{name}/orders", f"/api/../{name}")
        for up in ups:
            yield f"/auth/{up}/{name}/orders"
            yield f"/api/me/{up}/{up}/{name}/orders"
            yield f"/api/orders/x/{up}/{up}/{up}/{name}/orders"
    for separator in (
        "%2f",
        "%2F",
        "%5c",
        "%5C",
        "\\",
        "%252f",
        "%25252f",
        "%255C",
        "//",
        "/;/",
        "%c0%af",
        "%ef%bc%8f",
        "%u2215",
    ):
        yield f"/auth/..{separator}internal{separator}orders"
        yield f"/auth{separator}..{separator}internal"
        yield f"/auth/x{separator}..{separator}..{separator}internal/orders?x=/"
        yield f"/auth/{separator}internal{separator}orders"
        yield f"/api/me/{separator}{separator}127.0.0.1{separator}internal"


@pytest.mark.gen_test
async def test_no_spelling_of_internal_reaches_the_service() -> None:
    targets = list(spellings_of_internal())
    assert len(targets) > 700
    async with account_service() as service, gateway(service.url) as client:
        for target in targets:
            for method in ("POST", "DELETE"):
                answer = await client.ask(method, target, "X-User-Id: ann")
                assert answer.status in (400, 404), target
        for target in (
            "http://x/internal",
            "http://x/auth/../internal/orders",
            "/auth/../internal/orders",
            "/auth/..;/INTERNAL",
            "/api/me/%2e%2e/%252e%252e/%69nternal/x",
        ):
            check_problem(await client.ask("POST", target), 404, "not-found")
        assert service.seen == []


@pytest.mark.parametrize(
    "target",
    [
        "/auth/..", "/auth/../x", "/auth/x/../y", "/auth/.", "/auth/./x", "/auth/%2e/x", "/auth/%2e%2e/x",
        "/auth/%252e%252e/x", "/auth/.%252e", "/auth/..;a/x", "/auth/.../x", "/auth/.. /x".replace(" ", "%20"),
        "/auth//x", "/auth//", "/auth/x//y", "/auth/;/x", "/auth/x/;a=1/y", "/auth/%20/x",
        "/auth/a%2fb", "/auth/a%2Fb", "/auth/a%5cb", "/auth/a%5Cb", "/auth/a%252fb", "/auth/a%255cb", "/auth/a\\b",
        "/auth/a%25252fb", "/auth/%2525252525",
        "/auth/a%00b", "/auth/a%0d%0ab", "/auth/a%0ab", "/auth/a%7f", "/auth/a%c2%85", "/auth/a%2500b", "/auth/a%250ab",
        "/auth/%", "/auth/%2", "/auth/%zz", "/auth/%u002f", "/auth/a%ffb", "/auth/a%c0%afb", "/auth/a%e0%80%afb",
        "/auth/a%ef%bc%8fb", "/auth/%ef%bc%8e%ef%bc%8e/x", "/auth/a%ef%bc%bcb", "/auth/%e2%80%a6/x", "/auth/%ef%bc%85",
        "/auth/x#y", "/auth/x?y#z",
    ],
)  # fmt: skip
@pytest.mark.gen_test
async def test_path_that_two_servers_could_read_differently_is_refused(target: str) -> None:
    async with before_accounts() as (client, service):
        check_problem(await client.ask("GET", target), 400, "bad-request")
        assert (await client.ask("GET", "/api/me")).status == 200, "the connection goes on"
        assert [seen.uri for seen in service.seen] == ["/api/me"]


@pytest.mark.parametrize(
    "raw",
    [b"/auth/\x00", b"/auth/\x7fx", b"/auth/\xff", b"/auth/\xc0\xaf", b"/auth/x\ty", b"/auth/x y", b"/auth/\xc3\xbc"],
)
@pytest.mark.gen_test
async def test_path_with_bytes_that_no_url_has_is_refused(raw: bytes) -> None:
    async with before_accounts() as (client, service):
        answer = await client.exchange(b"GET " + raw + b" HTTP/1.1\r\nHost: x\r\n\r\n")
        assert answer.status == 400
        assert service.seen == []


@given(
    st.lists(
        st.sampled_from([*"/.;%\\ ax", "..", "%2e", "%2f", "%25", "internal", "%69", "%c0%af", "／", "．"]), max_size=12
    )
)
def test_target_that_passes_is_read_the_same_by_every_server(parts: list[str]) -> None:
    target = "/auth/" + quote("".join(parts), safe="/.;%\\ ")
    try:
        check_target(target)
    except Refusal:
        return
    for spelling in (target, target.replace("%2e", "."), target.replace("%25", "%")):
        segments = [segment.partition(";")[0] for segment in spelling.split("/")[1:]]
        assert segments[0] == "auth"
        assert ".." not in segments and "" not in segments[1:-1]
        assert "\\" not in spelling and "%2f" not in spelling
