from __future__ import annotations

import asyncio
import json
import logging
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from ipaddress import ip_network
from typing import Any

import pytest
from tornado.web import HTTPError

import handlers.bodies
from core.access.admission import Admission
from core.access.limits import Limiter, Policy
from core.config.settings import Settings
from core.errors import FieldError, InvalidFields
from core.telemetry.metrics import Metrics
from handlers.bodies import BaseHandler
from handlers.problems import Context, Refusal, Status
from tests.core.admission import admission
from tests.handlers.wire import Connection, Response, connected, request, serving

BODY_BYTES = 200


class EchoHandler(BaseHandler):
    """POST says how large the body was; GET says hello."""

    def get(self) -> None:
        self.answer(200, {"hello": "you/me"})

    head = get

    def post(self) -> None:
        self.answer(202, {"size": len(self.json_body())})


class WhoHandler(BaseHandler):
    """Says whose request it takes this for, and counts it."""

    def get(self) -> None:
        self.take_request()
        self.answer(200, {"address": self.address})

    def post(self) -> None:
        self.take_login()
        self.answer(200, {})


TWO_FIELDS = InvalidFields((FieldError("price", "too low"), FieldError("side", "missing")))


class FaultHandler(BaseHandler):
    """Fails in the way that its path names."""

    def get(self, how: str) -> None:
        if how == "bug":
            raise ZeroDivisionError("a secret detail")
        if how.isdecimal():
            raise HTTPError(int(how), "a detail for the log")
        raise Refusal(
            "invalid-fields",
            "two fields",
            members={"order_id": "o/1", **TWO_FIELDS.members},
            headers={"Retry-After": "7"},
        )


class FaultServer:
    def __init__(self, port: int, context: Context) -> None:
        self.port = port
        self.context = context

    def refusals(self, slug: str) -> float | None:
        return self.context.metrics.registry.get_sample_value("gateway_refusals_total", {"reason": slug})


@asynccontextmanager
async def serve(
    *origins: str, admitting: Admission | None = None, address_requests_per_second: float = 0.0
) -> AsyncIterator[tuple[Connection, FaultServer]]:
    """`origins` are `http.allowed_origins`."""
    defaults = Settings()
    http = replace(defaults.http, max_body_bytes=BODY_BYTES, allowed_origins=origins)
    limits = replace(defaults.limits, address_requests_per_second=address_requests_per_second)
    context = Context(replace(defaults, http=http, limits=limits), Metrics(), Status(), admitting or admission())
    routes = [
        (r"/echo", EchoHandler, {"context": context}),
        (r"/who", WhoHandler, {"context": context}),
        (r"/fault/(.*)", FaultHandler, {"context": context}),
    ]
    async with serving(context, routes) as port, connected(port) as connection:
        yield connection, FaultServer(port, context)


def chunked(*chunks: bytes) -> bytes:
    return b"".join(b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in (*chunks, b""))


CHUNKED = request("POST", "/echo", {"Host": "x", "Content-Type": "application/json", "Transfer-Encoding": "chunked"})


def check_problem(body: dict[str, Any], status: int, slug: str) -> None:
    assert body["status"] == status
    assert body["type"] == f"urn:mexchange:problem:{slug}"
    assert body["title"]
    assert body["detail"] == body["error"] != ""
    assert body["request_id"]
    assert ("errors" in body) is (slug == "invalid-fields")


# Bodies.


@pytest.mark.gen_test
async def test_body_is_taken_up_to_its_bound() -> None:
    async with serve() as (connection, _):
        for size in (0, 1, BODY_BYTES):
            answer = await connection.ask("POST", "/echo", b"x" * size, Content_Type="application/json")
            assert (answer.status, answer.json()) == (202, {"size": size})


@pytest.mark.gen_test
@pytest.mark.parametrize("media_type", ["application/json", "application/json; charset=utf-8", "application/ld+json"])
async def test_body_is_the_same_whether_it_was_gathered_or_streamed(media_type: str) -> None:
    async with serve() as (connection, _):
        answer = await connection.ask("POST", "/echo", b"x" * BODY_BYTES, Content_Type=media_type)
        assert (answer.status, answer.json()) == (202, {"size": BODY_BYTES})


@pytest.mark.gen_test
@pytest.mark.parametrize("announced", ["1" * 30, "9" * 5000, "\xb2", "-1", "1, 2"])
async def test_announced_size_that_is_no_size_or_beyond_all_sizes_is_no_fault_of_ours(
    announced: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with serve() as (connection, _):
        head = (
            f"POST /echo HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {announced}\r\n\r\n"
        )
        await connection.send(head.encode("latin-1"))
        assert (await connection.reader.readline()).split()[1] in (b"400", b"413")
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


@pytest.mark.gen_test
async def test_body_that_is_announced_too_large_is_read_to_its_end_and_answered_413() -> None:
    async with serve() as (connection, server):
        for size in (BODY_BYTES + 1, 3_000_000):
            answer = await connection.ask("POST", "/echo", b"x" * size, Content_Type="application/json")
            assert (answer.status, answer.headers["content-type"]) == (413, "application/problem+json")
            check_problem(answer.json(), 413, "too-large")
            assert str(BODY_BYTES) in answer.json()["error"]
        assert server.refusals("too-large") == 2
        again = await connection.ask("POST", "/echo", b"x", Content_Type="application/json")
        assert again.status == 202, "the connection goes on"


@pytest.mark.gen_test
async def test_body_that_is_announced_absurdly_large_is_answered_before_it_comes() -> None:
    async with serve() as (connection, _):
        size = str(handlers.bodies.READ_AND_DROP_BYTES + 1)
        answer = await connection.ask("POST", "/echo", Content_Type="application/json", Content_Length=size)
        assert answer.status == 413


@pytest.mark.gen_test
async def test_body_in_chunks_is_taken_up_to_its_bound() -> None:
    async with serve() as (connection, _):
        await connection.send(CHUNKED + chunked(*[b"x"] * BODY_BYTES))
        answer = await connection.response()
        assert (answer.status, answer.json()) == (202, {"size": BODY_BYTES})


@pytest.mark.parametrize("chunks", [[b"x"] * (BODY_BYTES + 1), [b"x" * 100_000] * 20, [b"x" * 201]], ids=len)
@pytest.mark.gen_test
async def test_body_in_chunks_that_is_too_large_is_read_to_its_end_and_answered_413(chunks: list[bytes]) -> None:
    async with serve() as (connection, _):
        await connection.send(CHUNKED + chunked(*chunks))
        answer = await connection.response()
        assert answer.status == 413
        check_problem(answer.json(), 413, "too-large")
        await connection.send(CHUNKED + chunked(b"x"))
        assert (await connection.response()).status == 202


@pytest.mark.gen_test
async def test_body_in_chunks_without_end_is_answered_413_when_enough_was_dropped(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("handlers.bodies.READ_AND_DROP_BYTES", 50_000)
    async with serve() as (connection, _):
        await connection.send(CHUNKED)
        for _ in range(6):
            await connection.send(b"2710\r\n" + b"x" * 10_000 + b"\r\n")
        assert (await connection.response()).status == 413


@pytest.mark.parametrize(
    "media_type",
    ["application/json", "Application/JSON; charset=utf-8", "application/vnd.x+json", " application/json "],
)
@pytest.mark.gen_test
async def test_body_is_json_by_its_content_type(media_type: str) -> None:
    async with serve() as (connection, _):
        assert (await connection.ask("POST", "/echo", b"{}", Content_Type=media_type)).status == 202


@pytest.mark.parametrize(
    "media_type", ["", "text/plain", "text/json", "application/jsonx", "text/vnd.x+json", "application/x-json-seq"]
)
@pytest.mark.gen_test
async def test_body_of_another_content_type_is_answered_415(media_type: str) -> None:
    async with serve() as (connection, _):
        answer = await connection.ask("POST", "/echo", b"{}", Content_Type=media_type)
        assert answer.status == 415
        check_problem(answer.json(), 415, "not-json-type")


# Answers.


@pytest.mark.gen_test
async def test_answer_is_json_that_nobody_caches_or_guesses_at() -> None:
    async with serve() as (connection, _):
        answer = await connection.ask("GET", "/echo")
        assert (answer.status, answer.body) == (200, b'{"hello":"you/me"}')
        assert answer.headers["content-type"] == "application/json"
        assert answer.headers["cache-control"] == "no-store"
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["server"] == "mexchange-gateway"
        assert "etag" not in answer.headers


@pytest.mark.gen_test
async def test_head_has_the_headers_of_get_and_no_body() -> None:
    async with serve() as (connection, _):
        got, head = await connection.ask("GET", "/echo"), await connection.ask("HEAD", "/echo")
        varying = ("x-request-id", "date")
        assert {name: value for name, value in head.headers.items() if name not in varying} == {
            name: value for name, value in got.headers.items() if name not in varying
        }
        assert head.headers["content-length"] == str(len(got.body))
        assert (await connection.ask("GET", "/echo")).status == 200, "no byte was left of the HEAD's answer"


@pytest.mark.parametrize("given", ["abc", "A.b_c-9", "x" * 64])
@pytest.mark.gen_test
async def test_request_id_of_the_client_is_given_back(given: str) -> None:
    async with serve() as (connection, _):
        for path in ("/echo", "/fault/bug", "/nowhere"):
            answer = await connection.ask("GET", path, X_Request_Id=given)
            assert answer.headers["x-request-id"] == given
        assert answer.json()["request_id"] == given


@pytest.mark.parametrize("given", [None, "", "x" * 65, "a b", "a/b", "ä"])
@pytest.mark.gen_test
async def test_request_id_is_made_when_the_client_gave_no_plain_one(given: str | None) -> None:
    async with serve() as (connection, _):
        headers = {"X_Request_Id": given} if given is not None else {}
        made = [(await connection.ask("GET", "/echo", None, **headers)).headers["x-request-id"] for _ in range(2)]
        assert len(set(made)) == 2
        assert all(len(one) == 16 and int(one, 16) >= 0 for one in made)


@pytest.mark.parametrize("path", ["/fault/bug", "/fault/refusal", "/nowhere"])
@pytest.mark.gen_test
async def test_request_has_one_id_in_header_body_and_log(caplog: pytest.LogCaptureFixture, path: str) -> None:
    caplog.set_level(logging.DEBUG, "gateway.http")
    async with serve() as (connection, _):
        answer = await connection.ask("GET", path)
    request_id = answer.headers["x-request-id"]
    assert answer.json()["request_id"] == request_id
    lines = [record.getMessage() for record in caplog.records if record.name == "gateway.http"]
    assert len(lines) == 1, "one line a refusal, or one with the fault's traceback"
    assert lines[0].startswith(f"request {request_id}: GET {path} ")


@pytest.mark.gen_test
async def test_requests_of_one_connection_have_ids_of_their_own() -> None:
    async with serve() as (connection, _):
        ids = [(await connection.ask("GET", "/fault/refusal")).json()["request_id"] for _ in range(3)]
    assert len(set(ids)) == 3


# Pages of other origins (Fetch standard, section 3.2).

PAGE = "https://app.example"
OTHER_PAGE = "https://other.example:8443"


def cors_of(answer: Response) -> dict[str, str]:
    return {name: value for name, value in answer.headers.items() if name.startswith("access-control-")}


@pytest.mark.parametrize("origin", [PAGE, OTHER_PAGE, "HTTPS://App.Example"])
@pytest.mark.parametrize("path", ["/echo", "/fault/refusal", "/fault/bug", "/fault/404", "/nowhere"])
@pytest.mark.gen_test
async def test_allowed_page_may_read_answers_and_problems_with_its_credentials(origin: str, path: str) -> None:
    async with serve(PAGE, OTHER_PAGE) as (connection, _):
        answer = await connection.ask("GET", path, Origin=origin)
    cors = cors_of(answer)
    assert cors["access-control-allow-origin"] == origin
    assert cors["access-control-allow-credentials"] == "true"
    exposed = re.split(", *", cors["access-control-expose-headers"].lower())
    assert {"retry-after", "ratelimit", "ratelimit-policy", "x-request-id"} <= set(exposed)
    assert answer.headers["vary"] == "Origin"


@pytest.mark.parametrize(
    "origin",
    [
        None, "", "null", "*", "https://evil.example", "http://app.example", "https://app.example:444",
        "https://app.example.evil.example", "https://app.example/", "https://app.example, https://evil.example",
    ],
)  # fmt: skip
@pytest.mark.parametrize("path", ["/echo", "/nowhere"])
@pytest.mark.gen_test
async def test_other_pages_may_not_read_answers_which_caches_keep_apart(origin: str | None, path: str) -> None:
    async with serve(PAGE) as (connection, _):
        answer = await connection.ask("GET", path, **({} if origin is None else {"Origin": origin}))
    assert answer.status in (200, 404)
    assert cors_of(answer) == {}
    assert answer.headers["vary"] == "Origin"


@pytest.mark.gen_test
async def test_no_page_may_read_answers_where_no_origin_is_configured() -> None:
    async with serve() as (connection, _):
        answers = [
            await connection.ask("GET", "/echo", Origin=PAGE),
            await connection.ask("OPTIONS", "/echo", Origin=PAGE, Access_Control_Request_Method="POST"),
        ]
    assert [answer.status for answer in answers] == [200, 403]
    for answer in answers:
        assert cors_of(answer) == {}
        assert "vary" not in answer.headers


@pytest.mark.parametrize("method", ["GET", "POST", "DELETE"])
@pytest.mark.gen_test
async def test_allowed_page_is_told_what_it_may_send(method: str) -> None:
    async with serve(PAGE) as (connection, _):
        answer = await connection.ask(
            "OPTIONS", "/echo", Origin=PAGE, Access_Control_Request_Method=method,
            Access_Control_Request_Headers="authorization,content-type",
        )  # fmt: skip
        assert (await connection.ask("GET", "/echo")).status == 200, "the connection goes on"
    assert (answer.status, answer.body) == (204, b"")
    cors = cors_of(answer)
    assert cors["access-control-allow-origin"] == PAGE
    assert cors["access-control-allow-credentials"] == "true"
    assert method in cors["access-control-allow-methods"].split(", ")
    asked = {name.lower() for name in cors["access-control-allow-headers"].split(", ")}
    assert {"authorization", "content-type", "x-request-id"} <= asked
    assert 0 < int(cors["access-control-max-age"]) <= 86_400
    assert answer.headers["vary"] == "Origin"


@pytest.mark.parametrize("origin", [None, "null", "https://evil.example"])
@pytest.mark.gen_test
async def test_other_pages_are_refused_before_they_send(origin: str | None) -> None:
    async with serve(PAGE) as (connection, _):
        headers = {} if origin is None else {"Origin": origin}
        answer = await connection.ask("OPTIONS", "/echo", Access_Control_Request_Method="POST", **headers)
    check_problem(answer.json(), 403, "forbidden")
    assert cors_of(answer) == {}


@pytest.mark.gen_test
async def test_options_without_a_page_names_the_methods() -> None:
    async with serve(PAGE) as (connection, _):
        answer = await connection.ask("OPTIONS", "/echo")
        assert (answer.status, answer.body) == (204, b"")
        assert set(answer.headers["allow"].split(", ")) == {"GET", "HEAD", "OPTIONS", "POST"}
        assert (await connection.ask("OPTIONS", "/nowhere")).status == 404


@pytest.mark.gen_test
async def test_nothing_ever_allows_every_page() -> None:
    async with serve(PAGE) as (connection, _):
        for method, path in (("GET", "/echo"), ("OPTIONS", "/echo"), ("GET", "/nowhere"), ("PUT", "/echo")):
            for origin in (PAGE, "*", "https://evil.example"):
                answer = await connection.ask(method, path, Origin=origin, Access_Control_Request_Method="GET")
                assert "*" not in "".join(cors_of(answer).values())


# Addresses.


@pytest.mark.parametrize(
    ("trusted", "forwarded", "address"),
    [
        ([], "203.0.113.9", "127.0.0.1"),
        (["127.0.0.0/8"], None, "127.0.0.1"),
        (["127.0.0.0/8"], "203.0.113.9", "203.0.113.9"),
        (["127.0.0.0/8"], "198.51.100.1, 203.0.113.9", "203.0.113.9"),
        (["127.0.0.0/8", "203.0.113.0/24"], "198.51.100.1, 203.0.113.9", "198.51.100.1"),
        (["10.0.0.0/8"], "203.0.113.9", "127.0.0.1"),
    ],
)
@pytest.mark.gen_test
async def test_address_is_the_peers_but_for_what_trusted_proxies_say(
    trusted: list[str], forwarded: str | None, address: str
) -> None:
    async with serve(admitting=admission(trusted_proxies=tuple(map(ip_network, trusted)))) as (connection, _):
        headers = {} if forwarded is None else {"X_Forwarded_For": forwarded}
        assert (await connection.ask("GET", "/who", **headers)).json() == {"address": address}


@pytest.mark.gen_test
async def test_address_is_read_from_every_header_in_its_order() -> None:
    proxies = tuple(map(ip_network, ["127.0.0.0/8", "203.0.113.0/24"]))
    async with serve(admitting=admission(trusted_proxies=proxies)) as (connection, _):
        await connection.send(
            b"GET /who HTTP/1.1\r\nHost: x\r\nX-Forwarded-For: 198.51.100.1\r\nX-Forwarded-For: 203.0.113.9\r\n\r\n"
        )
        assert (await connection.response()).json() == {"address": "198.51.100.1"}


def one_each() -> Limiter:
    return Limiter(Policy("requests", 0.5, 1), clock=lambda: 0.0)


@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.gen_test
async def test_requests_and_logins_of_an_address_are_limited_and_told_when_to_come_back(method: str) -> None:
    proxies = (ip_network("127.0.0.0/8"),)
    admitting = admission(address_requests=one_each(), address_logins=one_each(), trusted_proxies=proxies)
    async with serve(admitting=admitting, address_requests_per_second=0.5) as (connection, server):
        for address in ("203.0.113.9", "203.0.113.10"):
            taken = await connection.ask(method, "/who", X_Forwarded_For=address)
            refused = await connection.ask(method, "/who", X_Forwarded_For=address)
            assert (taken.status, refused.status) == (200, 429)
            check_problem(refused.json(), 429, "too-many-requests")
            assert refused.headers["retry-after"] == "2"
            assert refused.headers["ratelimit-policy"] == '"requests";q=1;w=2'
        counted = server.context.metrics.registry.get_sample_value
        what = "requests of this address" if method == "GET" else "logins of this address"
        assert counted("gateway_rate_limited_total", {"route": what}) == 2


@pytest.mark.gen_test
async def test_requests_of_an_address_are_not_counted_where_there_is_no_limit() -> None:
    async with serve(admitting=admission(address_requests=one_each())) as (connection, _):
        assert [(await connection.ask("GET", "/who")).status for _ in range(3)] == [200] * 3


# Problems.


@pytest.mark.parametrize("method", ["PUT", "DELETE", "PATCH", "BREW"])
@pytest.mark.gen_test
async def test_method_that_is_not_taken_is_answered_405_with_those_that_are(method: str) -> None:
    async with serve() as (connection, _):
        answer = await connection.ask(method, "/echo")
        assert answer.status == 405
        assert set(answer.headers["allow"].split(", ")) == {"GET", "HEAD", "OPTIONS", "POST"}
        check_problem(answer.json(), 405, "method-not-allowed")


@pytest.mark.parametrize("method", ["GET", "POST", "DELETE"])
@pytest.mark.gen_test
async def test_path_that_does_not_exist_is_answered_404_whatever_the_method(method: str) -> None:
    async with serve() as (connection, server):
        answer = await connection.ask(method, "/no/where?x=1")
        assert (answer.status, answer.headers["content-type"]) == (404, "application/problem+json")
        check_problem(answer.json(), 404, "not-found")
        assert answer.json()["error"] == "there is no /no/where"
        assert server.refusals("not-found") == 1


@pytest.mark.gen_test
async def test_path_that_does_not_exist_is_answered_after_its_body_was_read() -> None:
    async with serve() as (connection, _):
        for size in (0, 3_000_000):
            answer = await connection.ask("POST", "/nowhere", b"x" * size, Content_Type="application/json")
            assert answer.status == 404
        assert (await connection.ask("GET", "/echo")).status == 200, "the connection goes on"


@pytest.mark.gen_test
async def test_refusal_carries_its_fields_members_and_headers() -> None:
    async with serve() as (connection, _):
        answer = await connection.ask("GET", "/fault/refusal")
        assert (answer.status, answer.headers["retry-after"]) == (422, "7")
        assert answer.headers["cache-control"] == "no-store"
        body = answer.json()
        check_problem(body, 422, "invalid-fields")
        assert body["order_id"] == "o/1"
        assert body["errors"] == [
            {"field": "price", "message": "too low"},
            {"field": "side", "message": "missing"},
        ]
        assert b"\\/" not in answer.body


@pytest.mark.gen_test
async def test_fault_of_ours_is_logged_whole_and_told_without_detail(caplog: pytest.LogCaptureFixture) -> None:
    async with serve() as (connection, server):
        answer = await connection.ask("GET", "/fault/bug", X_Request_Id="mine")
        assert answer.status == 500
        check_problem(answer.json(), 500, "internal")
        assert answer.json()["error"] == "a fault of the gateway's own; it was logged"
        assert b"secret" not in answer.body
        assert b"Traceback" not in answer.body
        assert server.refusals("internal") == 1
    [record] = caplog.records
    assert (record.name, record.levelno) == ("gateway.http", logging.ERROR)
    assert record.getMessage() == "request mine: GET /fault/bug failed"
    assert record.exc_info is not None
    assert isinstance(record.exc_info[1], ZeroDivisionError)


@pytest.mark.parametrize(("status", "slug"), [(400, "bad-request"), (403, "forbidden"), (404, "not-found")])
@pytest.mark.gen_test
async def test_error_of_the_server_library_is_told_as_a_problem_and_not_logged(
    caplog: pytest.LogCaptureFixture, status: int, slug: str
) -> None:
    async with serve() as (connection, _):
        answer = await connection.ask("GET", f"/fault/{status}")
        assert answer.status == status
        check_problem(answer.json(), status, slug)
        assert b"a detail for the log" not in answer.body
    assert caplog.records == []


@pytest.mark.gen_test
async def test_error_that_the_table_does_not_have_is_told_as_one_that_it_has() -> None:
    async with serve() as (connection, _):
        answer = await connection.ask("GET", "/fault/418")
        assert answer.status == 500
        check_problem(answer.json(), 500, "internal")


@pytest.mark.gen_test
async def test_requests_of_one_connection_are_answered_in_their_order() -> None:
    async with serve() as (connection, _):
        requests = [
            request("GET", path, {"Host": "x", "X-Request-Id": f"r{number}"})
            for number, path in enumerate(["/echo", "/fault/404", "/fault/refusal", "/echo"])
        ]
        await connection.send(b"".join(requests))
        answers = [await connection.response() for _ in requests]
        assert [answer.headers["x-request-id"] for answer in answers] == ["r0", "r1", "r2", "r3"]
        assert [answer.status for answer in answers] == [200, 404, 422, 200]
        assert json.loads(answers[3].body) == {"hello": "you/me"}


@pytest.mark.gen_test
async def test_client_that_leaves_in_the_middle_of_its_body_harms_nobody(caplog: pytest.LogCaptureFixture) -> None:
    async with serve() as (_, server):
        async with connected(server.port) as leaving:
            headers = {"Host": "x", "Content-Type": "application/json", "Content-Length": "100"}
            await leaving.send(request("POST", "/echo", headers) + b"x" * 50)
        async with connected(server.port) as other:
            assert (await other.ask("GET", "/echo")).status == 200
        await asyncio.sleep(0)
    assert [record for record in caplog.records if record.levelno >= logging.ERROR] == []
