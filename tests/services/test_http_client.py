"""What is kept of a connection, and what is asked twice; what an answer may be is in test_accounts.py."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from services.http_client import MAX_IDLE_SECONDS, HttpClient, HttpResponse, NoAnswer
from tests.core.tokens import Clock

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
HANG_UP = b""

pytestmark = pytest.mark.gen_test


class Server:
    """Answers each request with the next of `replies`, then with OK, and goes on; after HANG_UP it closes."""

    def __init__(self) -> None:
        self.replies: list[bytes] = []
        self.asked: list[int] = []
        """For each request the number of its connection, counted from 0."""
        self.open: dict[int, asyncio.StreamWriter] = {}
        self.connections = 0
        self.most_open = 0
        self.gate = asyncio.Event()
        self.gate.set()
        self.port = 0
        self._news = asyncio.Condition()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        number = self.connections
        self.connections += 1
        self.open[number] = writer
        self.most_open = max(self.most_open, len(self.open))
        try:
            while await reader.readuntil(b"\r\n\r\n"):
                self.asked.append(number)
                await self._tell()
                await self.gate.wait()
                reply = self.replies.pop(0) if self.replies else OK
                if reply == HANG_UP:
                    break
                writer.write(reply)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()
            del self.open[number]
            await self._tell()

    async def hang_up(self) -> None:
        """Close what there is, and wait until it is closed."""
        for writer in self.open.values():
            writer.close()
        await self.until(lambda: not self.open)

    async def until(self, condition: Any) -> None:
        async with self._news:
            await self._news.wait_for(condition)

    async def _tell(self) -> None:
        async with self._news:
            self._news.notify_all()


@asynccontextmanager
async def serving(
    max_connections: int = 2, tls: ssl.SSLContext | None = None, **changes: Any
) -> AsyncIterator[tuple[Server, HttpClient]]:
    server = Server()
    listening = await asyncio.start_server(server.serve, "127.0.0.1", 0, ssl=tls)
    server.port = listening.sockets[0].getsockname()[1]
    client = HttpClient(
        f"{'https' if tls else 'http'}://127.0.0.1:{server.port}",
        max_connections=max_connections,
        timeout_seconds=15,
        max_body_bytes=1000,
        **changes,
    )
    try:
        yield server, client
    finally:
        client.close()
        listening.close()
        await server.until(lambda: not server.open)


async def ask(client: HttpClient, method: str = "GET", *, is_repeatable: bool = True) -> HttpResponse:
    return await client.fetch(method, "/", is_repeatable=is_repeatable)


async def test_request_uses_the_connection_of_the_one_before() -> None:
    async with serving() as (server, client):
        for _ in range(3):
            assert (await ask(client)).body == b"ok"
        assert server.asked == [0, 0, 0]


async def test_request_that_must_not_be_repeated_opens_a_connection_which_others_may_use() -> None:
    async with serving() as (server, client):
        await ask(client, "POST", is_repeatable=False)
        await ask(client, "POST", is_repeatable=False)
        await ask(client)
        assert server.asked == [0, 1, 1]


@pytest.mark.parametrize("is_repeatable", [True, False])
async def test_connection_that_the_server_closed_meanwhile_does_no_harm(is_repeatable: bool) -> None:
    async with serving() as (server, client):
        await ask(client)
        await server.hang_up()
        await ask(client, "POST", is_repeatable=is_repeatable)
        assert server.asked == [0, 1]


async def test_connection_that_the_server_closes_on_a_repeatable_request_is_made_good_by_another() -> None:
    async with serving() as (server, client):
        server.replies = [OK, HANG_UP]
        await ask(client)
        assert (await ask(client, "POST")).body == b"ok"
        assert server.asked == [0, 0, 1]


@pytest.mark.parametrize("is_repeatable", [True, False])
async def test_request_on_a_new_connection_is_never_asked_twice(is_repeatable: bool) -> None:
    async with serving() as (server, client):
        server.replies = [HANG_UP]
        with pytest.raises(NoAnswer) as caught:
            await ask(client, is_repeatable=is_repeatable)
        assert caught.value.was_sent
        assert server.asked == [0]


async def test_request_is_asked_twice_at_most() -> None:
    async with serving() as (server, client):
        server.replies = [OK, HANG_UP, HANG_UP]
        await ask(client)
        with pytest.raises(NoAnswer):
            await ask(client)
        assert server.asked == [0, 0, 1]


async def test_request_whose_repeat_finds_no_server_may_have_been_carried_out() -> None:
    async with serving() as (server, client):
        server.replies = [OK, HANG_UP]
        await ask(client)
        client._port = 1
        with pytest.raises(NoAnswer) as caught:
            await ask(client)
        assert caught.value.was_sent


async def test_request_whose_answer_had_begun_is_not_asked_twice() -> None:
    async with serving() as (server, client):
        server.replies = [OK, b"HTTP/1.1 200 OK\r\nContent-Length: 1001\r\n\r\nok"]
        await ask(client)
        with pytest.raises(NoAnswer):
            await ask(client)
        assert server.asked == [0, 0]


@pytest.mark.parametrize(
    ("reply", "method"),
    [
        (b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok", "GET"),
        (b"HTTP/1.1 200 OK\r\nConnection: Close\r\nContent-Length: 2\r\n\r\nok", "GET"),
        (b"HTTP/1.1 204 No Content\r\n\r\n", "GET"),
        (b"HTTP/1.1 304 Not Modified\r\nContent-Length: 2\r\n\r\n", "GET"),
        (OK.removesuffix(b"ok"), "HEAD"),
        (OK + b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nunasked", "GET"),
    ],
)
async def test_connection_is_not_kept_after_an_answer_without_a_clear_end(reply: bytes, method: str) -> None:
    async with serving() as (server, client):
        server.replies = [reply]
        await ask(client, method)
        assert (await ask(client)).body == b"ok"
        assert server.asked == [0, 1]


async def test_connection_is_kept_after_an_answer_in_chunks() -> None:
    async with serving() as (server, client):
        server.replies = [b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n\r\n"]
        assert (await ask(client)).body == b"x"
        await ask(client)
        assert server.asked == [0, 0]


@pytest.mark.parametrize("turns", [0, 20], ids=["unread", "read"])
async def test_what_comes_unasked_is_nobodys_answer(turns: int) -> None:
    async with serving() as (server, client):
        await ask(client)
        server.open[0].write(OK.replace(b"ok", b"no"))
        for _ in range(turns):
            await asyncio.sleep(0)
        assert (await ask(client)).body == b"ok"
        assert server.asked == [0, 1]


async def test_connections_are_bounded_those_that_are_kept_among_them() -> None:
    async with serving(max_connections=2) as (server, client):
        for _ in range(3):
            await asyncio.gather(*(ask(client, "POST", is_repeatable=number % 2 == 0) for number in range(7)))
            await server.until(lambda: len(server.open) <= 2)
        assert len(client._idle) <= 2
        server.gate.clear()
        waiting = [asyncio.ensure_future(ask(client)) for _ in range(4)]
        await server.until(lambda: len(server.asked) == 23)
        assert len(server.open) == 2
        server.gate.set()
        await asyncio.gather(*waiting)


async def test_connection_that_was_idle_for_long_is_dropped() -> None:
    clock = Clock()
    async with serving(clock=clock) as (server, client):
        await ask(client)
        clock.now += MAX_IDLE_SECONDS
        await ask(client)
        clock.now += MAX_IDLE_SECONDS + 0.1
        await ask(client)
        assert server.asked == [0, 0, 1]
        await server.until(lambda: list(server.open) == [1])


async def test_connection_of_a_request_that_is_cancelled_is_dropped_and_its_place_is_free() -> None:
    async with serving(max_connections=1) as (server, client):
        await ask(client)
        server.gate.clear()
        asking = asyncio.ensure_future(ask(client))
        await server.until(lambda: server.asked == [0, 0])
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        server.gate.set()
        assert (await ask(client)).body == b"ok"
        assert server.asked == [0, 0, 1]


async def test_close_drops_what_is_kept_and_keeps_no_more() -> None:
    async with serving() as (server, client):
        await ask(client)
        server.gate.clear()
        asking = asyncio.ensure_future(ask(client, is_repeatable=False))
        await server.until(lambda: server.asked == [0, 1])
        client.close()
        await server.until(lambda: list(server.open) == [1])
        server.gate.set()
        assert (await asking).body == b"ok"
        await server.until(lambda: not server.open)


# TLS.


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate of 127.0.0.1 by itself, and its key, in one file."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "accounts")])
    now = datetime.now(UTC)
    signed = (
        x509.CertificateBuilder(name, name, key.public_key(), 1, now - timedelta(days=1), now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    path = tmp_path_factory.mktemp("tls") / "both.pem"
    pem = serialization.Encoding.PEM
    plain = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    path.write_bytes(signed.public_bytes(pem) + plain)
    return path


def tls_of(certificate: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    return context


async def test_connection_under_tls_is_kept(certificate: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    async with serving(tls=tls_of(certificate)) as (server, client):
        for _ in range(3):
            assert (await ask(client)).body == b"ok"
        assert server.asked == [0, 0, 0]
        await server.hang_up()
        assert (await ask(client)).body == b"ok"


async def test_certificate_that_nobody_vouches_for_gets_no_request(certificate: Path) -> None:
    async with serving(tls=tls_of(certificate)) as (server, client):
        with pytest.raises(NoAnswer, match="certificate") as caught:
            await ask(client)
        assert not caught.value.was_sent
        assert server.asked == []
