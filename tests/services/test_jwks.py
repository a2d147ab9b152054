from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress

import pytest
from tornado.httpserver import HTTPServer
from tornado.iostream import StreamClosedError
from tornado.netutil import bind_sockets
from tornado.web import Application, RequestHandler

from core.access.identity import Identity, KeySet
from core.access.keys import MAX_DOCUMENT_BYTES
from core.errors import Unauthorised, UnknownKey
from services.http_client import Headers, HttpResponse, NoAnswer
from services.jwks import COOL_DOWN_SECONDS, Authenticator, KeyFetcher, jwks_client
from tests.core.tokens import GOOD, JWKS, Clock, ec_key, jwk_of, key_set, token
from tests.support.accounts import port_of
from tests.support.deadlines import deadlines, meet

KEEP_SECONDS = 1000.0
REFRESH_SECONDS = 300.0
FIRST = key_set(jwk_of(ec_key("first"), "first"))
SECOND = key_set(jwk_of(ec_key("second"), "second"))
NONE = key_set(jwk_of(ec_key("first"), "first", use="enc"))
REFUSED = NoAnswer("Connection refused", was_sent=False, timed_out=False)

Answer = bytes | HttpResponse | Exception

pytestmark = pytest.mark.gen_test


class FakeIssuer:
    """Answers a fetch with what it has been given, when the test lets it."""

    def __init__(self, answer: Answer = FIRST) -> None:
        self.answer = answer
        self.asked = 0
        self.is_closed = False
        self.ready = asyncio.Event()
        self.ready.set()

    async def fetch(self, method: str, target: str, _headers: Headers, *, is_repeatable: bool) -> HttpResponse:
        assert (method, target, is_repeatable) == ("GET", "", True)
        self.asked += 1
        await self.ready.wait()
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer if isinstance(self.answer, HttpResponse) else HttpResponse(200, (), self.answer)

    def close(self) -> None:
        self.is_closed = True


class Timer:
    """A wait that ends when the test says so."""

    def __init__(self) -> None:
        self.waits: asyncio.Queue[tuple[float, asyncio.Event]] = asyncio.Queue()

    async def __call__(self, seconds: float) -> None:
        over = asyncio.Event()
        self.waits.put_nowait((seconds, over))
        await over.wait()

    async def next_wait(self) -> Callable[[], float]:
        """The next time somebody waits; calling it ends the wait and returns how long it was to be, in seconds."""
        seconds, over = await self.waits.get()

        def end() -> float:
            over.set()
            return seconds

        return end


class WiredFetcher:
    """A fetcher with all that it is wired to."""

    def __init__(self, answer: Answer = FIRST) -> None:
        self.clock = Clock()
        self.issuer = FakeIssuer(answer)
        self.timer = Timer()
        self.keys = KeySet(KEEP_SECONDS, self.clock)
        self.fetcher = KeyFetcher(
            self.issuer,
            self.keys,
            refresh_seconds=REFRESH_SECONDS,
            clock=self.clock,
            wait=self.timer,
        )
        self.authenticator = Authenticator(Identity(JWKS, self.keys, self.clock), self.fetcher)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        task = asyncio.get_running_loop().create_task(self.fetcher.run())
        try:
            yield
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task


async def settle() -> None:
    """Let everything run that can."""
    for _ in range(10):
        await asyncio.sleep(0)


# The timer


async def test_keys_are_fetched_at_once_and_then_on_the_timer() -> None:
    wired = WiredFetcher()
    async with wired.running():
        end_wait = await wired.timer.next_wait()
        assert wired.authenticator.authenticate(token(ec_key("first"), "first")) == GOOD
        wired.issuer.answer = SECOND
        assert end_wait() == REFRESH_SECONDS
        await wired.timer.next_wait()
        assert wired.authenticator.authenticate(token(ec_key("second"), "second")) == GOOD
        assert wired.authenticator.authenticate(token(ec_key("first"), "first")) == GOOD
    assert wired.issuer.asked == 2


async def test_fetch_is_tried_again_ever_later_while_there_has_been_no_key() -> None:
    wired = WiredFetcher(REFUSED)
    waits = []
    async with wired.running():
        for number in range(8):
            end_wait = await wired.timer.next_wait()
            if number == 6:
                wired.issuer.answer = FIRST
            waits.append(end_wait())
    assert waits == [1, 2, 4, 8, 16, 30, 30, REFRESH_SECONDS]


async def test_fetch_is_tried_again_on_the_timer_when_there_are_keys() -> None:
    wired = WiredFetcher()
    waits = []
    async with wired.running():
        for number in range(4):
            end_wait = await wired.timer.next_wait()
            wired.issuer.answer = FIRST if number == 2 else REFUSED
            waits.append(end_wait())
    assert waits == [REFRESH_SECONDS] * 4


async def test_retries_are_not_slower_than_the_timer() -> None:
    wired = WiredFetcher(NONE)
    wired.fetcher._refresh_seconds = 1.5
    async with wired.running():
        waits = [(await wired.timer.next_wait())() for _ in range(4)]
    assert waits == [1, 1.5, 1.5, 1.5]


async def test_run_ends_with_its_fetch_when_it_is_cancelled() -> None:
    wired = WiredFetcher()
    wired.issuer.ready.clear()
    async with wired.running():
        await settle()
        asking = asyncio.create_task(wired.fetcher.refresh())
        await settle()
    assert await asking is False
    assert wired.issuer.asked == 1
    assert wired.fetcher._fetching is None


# What can go wrong


@pytest.mark.parametrize(
    ("answer", "problem"),
    [
        (REFUSED, "the keys could not be fetched: Connection refused"),
        (
            NoAnswer("reset", was_sent=True, timed_out=False),
            "the keys could not be fetched: the answer was cut off, or is too long",
        ),
        (NoAnswer("late", was_sent=True, timed_out=True), "the keys could not be fetched: no answer in time"),
        (NoAnswer("late", was_sent=False, timed_out=True), "the keys could not be fetched: no answer in time"),
        (HttpResponse(503, (), FIRST), "the keys could not be fetched: answered 503"),
        (HttpResponse(302, (), FIRST), "the keys could not be fetched: answered 302"),
        (ZeroDivisionError("secret"), "the keys could not be fetched: see the log"),
        (b"<html>", "the keys could not be read: the document is not JSON"),
        (b"[]", "the keys could not be read: the document is not a JWK Set"),
        (b" " * (MAX_DOCUMENT_BYTES + 1), "the keys could not be read: the document is over 262144 bytes"),
        (NONE, "the keys could not be used: there is none for RS256 or ES256 among them"),
        (b'{"keys": []}', "the keys could not be used: there is none for RS256 or ES256 among them"),
    ],
    ids=range(12),
)
async def test_problem_says_why_and_the_last_keys_stay(
    caplog: pytest.LogCaptureFixture, answer: Answer, problem: str
) -> None:
    caplog.set_level(logging.INFO, "gateway.jwks")
    wired = WiredFetcher()
    assert await wired.fetcher.refresh()
    assert wired.fetcher.problem is None
    wired.issuer.answer = answer
    for _ in range(3):
        wired.clock.now += COOL_DOWN_SECONDS
        assert not await wired.fetcher.refresh()
        assert wired.fetcher.problem == problem
        assert wired.authenticator.authenticate(token(ec_key("first"), "first")) == GOOD
    wired.issuer.answer = FIRST
    wired.clock.now += COOL_DOWN_SECONDS
    assert await wired.fetcher.refresh()
    assert wired.fetcher.problem is None
    states = [line for line in caplog.messages if "not used" not in line and "not known" not in line]
    assert states == ["the keys have changed", f"{problem}; those that are known stay", "the keys are fetched again"]


async def test_error_nobody_knows_is_logged_with_its_traceback(caplog: pytest.LogCaptureFixture) -> None:
    wired = WiredFetcher(ZeroDivisionError("oh"))
    await wired.fetcher.refresh()
    assert "ZeroDivisionError: oh" in caplog.text


async def test_problem_is_none_before_the_first_fetch_has_ended() -> None:
    assert WiredFetcher().fetcher.problem is None


async def test_keys_that_are_not_used_are_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    wired = WiredFetcher(key_set(jwk_of(ec_key("first"), "first"), {"kty": "oct", "k": "c2VjcmV0", "kid": "symmetric"}))
    for _ in range(3):
        assert await wired.fetcher.refresh()
        wired.clock.now += COOL_DOWN_SECONDS
    assert caplog.messages == ["a key of the JWKS is not used: kid 'symmetric': kty is neither RSA, EC nor OKP"]


# For a token whose key is not known


async def test_token_of_an_unknown_key_is_accepted_after_one_fetch() -> None:
    wired = WiredFetcher()
    text = token(ec_key("first"), "first")
    with pytest.raises(UnknownKey):
        wired.authenticator.authenticate(text)
    assert await wired.authenticator.authenticate_fresh(text) == GOOD
    assert await wired.authenticator.authenticate_fresh(text) == GOOD
    assert wired.issuer.asked == 1


async def test_forged_kids_do_not_make_us_ask_again_and_again() -> None:
    wired = WiredFetcher()
    for number in range(20):
        with pytest.raises(UnknownKey):
            await wired.authenticator.authenticate_fresh(token(ec_key("forger"), f"forged-{number}"))
    assert wired.issuer.asked == 1
    wired.clock.now += COOL_DOWN_SECONDS - 0.001
    assert await wired.fetcher.refresh() is False
    wired.clock.now += 0.001
    assert await wired.fetcher.refresh() is True
    assert wired.issuer.asked == 2


async def test_cool_down_counts_when_the_fetch_fails_too() -> None:
    wired = WiredFetcher(REFUSED)
    assert [await wired.fetcher.refresh() for _ in range(3)] == [False] * 3
    assert wired.issuer.asked == 1


async def test_fetch_of_the_timer_does_not_keep_a_new_key_from_being_looked_for() -> None:
    """Or every key would be refused that came just after the timer's fetch."""
    wired = WiredFetcher()
    async with wired.running():
        await wired.timer.next_wait()
        wired.issuer.answer = SECOND
        assert await wired.authenticator.authenticate_fresh(token(ec_key("second"), "second")) == GOOD


async def test_all_who_ask_at_once_share_one_fetch() -> None:
    wired = WiredFetcher()
    wired.issuer.ready.clear()
    asking = [asyncio.create_task(wired.authenticator.authenticate_fresh(token(ec_key("first"), "first", n=n))) for n in range(9)]  # fmt: skip
    await settle()
    wired.issuer.ready.set()
    assert await asyncio.gather(*asking) == [GOOD] * 9
    assert wired.issuer.asked == 1


async def test_who_asks_during_the_fetch_of_the_timer_shares_it() -> None:
    wired = WiredFetcher()
    wired.issuer.ready.clear()
    async with wired.running():
        await settle()
        asking = asyncio.create_task(wired.fetcher.refresh())
        await settle()
        wired.issuer.ready.set()
        assert await asking is True
        await wired.timer.next_wait()
    assert wired.issuer.asked == 1


async def test_fetch_goes_on_for_the_others_when_one_who_asked_is_cancelled() -> None:
    wired = WiredFetcher()
    wired.issuer.ready.clear()
    first, second = (asyncio.create_task(wired.fetcher.refresh()) for _ in range(2))
    await settle()
    first.cancel()
    await settle()
    wired.issuer.ready.set()
    assert await second is True
    assert first.cancelled()


async def test_token_that_is_bad_in_another_way_is_no_reason_to_fetch() -> None:
    wired = WiredFetcher()
    assert await wired.fetcher.refresh()
    wired.clock.now += COOL_DOWN_SECONDS
    for bad in ("", "a.b.c", token(), token(ec_key("forger"), "first"), token(ec_key("first"), "first", exp=1)):
        with pytest.raises(Unauthorised):
            await wired.authenticator.authenticate_fresh(bad)
    assert wired.issuer.asked == 1


async def test_unknown_key_is_refused_where_nothing_is_fetched() -> None:
    keys = KeySet(KEEP_SECONDS)
    with pytest.raises(UnknownKey):
        await Authenticator(Identity(JWKS, keys), None).authenticate_fresh(token(ec_key("first"), "first"))


# Over a real socket


class IssuerServer:
    """An issuer on a port of its own, which can be down, slow, wrong, or elsewhere."""

    def __init__(self) -> None:
        self.document: bytes = FIRST
        self.status = 200
        self.headers: dict[str, str] = {}
        self.release = asyncio.Event()
        self.release.set()
        self.seen_paths: list[str] = []
        self.seen_ports: list[int] = []
        self.asked = asyncio.Event()
        server = self

        class Keys(RequestHandler):
            async def get(self) -> None:
                server.seen_paths.append(self.request.path)
                server.seen_ports.append(port_of(self.request))
                server.asked.set()
                for name, value in server.headers.items():
                    self.set_header(name, value)
                self.set_status(server.status)
                await server.release.wait()
                with suppress(StreamClosedError):  # who asked did not wait
                    await self.finish(server.document)

        self._application = Application([("/.*", Keys)], log_function=lambda _handler: None)
        self._http = HTTPServer(self._application)
        (socket,) = bind_sockets(0, "127.0.0.1")
        self.port: int = socket.getsockname()[1]
        self._http.add_sockets([socket])

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/keys"

    async def stop(self) -> None:
        self.release.set()
        self._http.stop()
        await self._http.close_all_connections()

    def start(self) -> None:
        self._http = HTTPServer(self._application)
        self._http.listen(self.port, "127.0.0.1")


@asynccontextmanager
async def serving() -> AsyncIterator[IssuerServer]:
    server = IssuerServer()
    try:
        yield server
    finally:
        await server.stop()


@asynccontextmanager
async def fetching(url: str, **changes: float) -> AsyncIterator[tuple[KeySet, Clock, KeyFetcher]]:
    clock = Clock()
    keys = KeySet(KEEP_SECONDS, clock)
    client = jwks_client(url, **changes)
    try:
        yield keys, clock, KeyFetcher(client, keys, refresh_seconds=REFRESH_SECONDS, clock=clock)
    finally:
        client.close()


async def test_keys_rotate_over_http_and_outlive_its_faults() -> None:
    async with serving() as server, fetching(server.url) as (keys, clock, fetcher):
        authenticator = Authenticator(Identity(JWKS, keys, clock), fetcher)
        first, second = (token(ec_key(name), name) for name in ("first", "second"))
        problems = []

        async def ask() -> None:
            clock.now += COOL_DOWN_SECONDS
            assert await fetcher.refresh() == (fetcher.problem is None)
            problems.append((fetcher.problem or "fine").removeprefix("the keys could not be "))
            assert authenticator.authenticate(first) == GOOD

        assert await authenticator.authenticate_fresh(first) == GOOD
        server.document, server.status = b"down for maintenance", 503
        await ask()
        server.status = 200
        await ask()
        server.document = json.dumps({"keys": "x" * MAX_DOCUMENT_BYTES}).encode()
        await ask()
        server.document, server.status, server.headers = SECOND, 302, {"Location": "/elsewhere"}
        await ask()
        server.status, server.headers = 206, {}
        await ask()
        server.status, server.document = 200, SECOND
        server.release.clear()
        server.asked.clear()
        with deadlines() as begun:
            asking = asyncio.create_task(ask())
            await server.asked.wait()
            meet(begun.pop())
            await asking
        await server.stop()
        await ask()
        server.start()
        clock.now += COOL_DOWN_SECONDS
        assert await authenticator.authenticate_fresh(second) == GOOD
        assert authenticator.authenticate(first) == GOOD
        assert fetcher.problem is None
        assert set(server.seen_paths) == {"/keys"}
    assert problems == [
        "fetched: answered 503",
        "read: the document is not JSON",
        "fetched: the answer was cut off, or is too long",
        "fetched: answered 302",
        "fetched: answered 206",
        "fetched: no answer in time",
        "fetched: Connection refused",
    ]


async def test_keys_are_fetched_over_one_connection_and_over_another_when_the_issuer_has_closed_it() -> None:
    async with serving() as server, fetching(server.url) as (_, clock, fetcher):
        for again in (False, False, True):
            if again:
                await server.stop()
                server.start()
            clock.now += COOL_DOWN_SECONDS
            assert await fetcher.refresh()
        first, second, third = server.seen_ports
        assert first == second != third


async def test_run_closes_its_connection_when_it_is_cancelled() -> None:
    wired = WiredFetcher()
    async with wired.running():
        await wired.timer.next_wait()
        assert not wired.issuer.is_closed
    assert wired.issuer.is_closed


async def test_answer_that_drips_is_cut_off_in_time() -> None:
    hung_up = asyncio.Event()

    async def drip(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
        with suppress(ConnectionError):
            for _ in range(999):
                writer.write(b" ")
                await writer.drain()
                await asyncio.sleep(0.02)
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()
        hung_up.set()

    server = await asyncio.start_server(drip, "127.0.0.1", 0)
    async with server:
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/keys"
        async with fetching(url, timeout_seconds=0.2) as (_, _, fetcher):
            assert not await fetcher.refresh()
            await hung_up.wait()
    assert fetcher.problem == "the keys could not be fetched: no answer in time"


async def test_name_that_is_none_is_a_problem() -> None:
    async with fetching("http://keys.invalid") as (_, _, fetcher):
        assert not await fetcher.refresh()
    assert fetcher.problem is not None and fetcher.problem.startswith("the keys could not be fetched: ")


async def test_fetch_over_http_ends_when_run_is_cancelled() -> None:
    async with serving() as server:
        server.release.clear()
        fetcher = KeyFetcher(jwks_client(server.url), KeySet(KEEP_SECONDS), refresh_seconds=REFRESH_SECONDS)
        task = asyncio.create_task(fetcher.run())
        await server.asked.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await settle()
        assert fetcher._fetching is None
