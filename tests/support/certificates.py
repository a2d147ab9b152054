"""Certificates made for a test, and a client's end of TLS that reads when it is told."""

from __future__ import annotations

import asyncio
import functools
import socket
import ssl
import tempfile
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from process.certificate import Certificate

NAME = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
NAMES = x509.SubjectAlternativeName([x509.DNSName("localhost"), x509.IPAddress(ip_address("127.0.0.1"))])


@dataclass(frozen=True)
class Pair:
    """A certificate that has signed itself, and its key; PEM."""

    cert: bytes
    key: bytes

    def write(self, folder: Path) -> tuple[str, str]:
        """The paths of both, which the next pair takes over."""
        paths = folder / "cert.pem", folder / "key.pem"
        for path, data in zip(paths, (self.cert, self.key), strict=True):
            path.write_bytes(data)
        return str(paths[0]), str(paths[1])

    def trusting(self) -> ssl.SSLContext:
        """What a client has that believes this certificate alone."""
        return ssl.create_default_context(cadata=self.cert.decode())


def make_pair(begins: datetime | None = None, days: float = 30) -> Pair:
    """For localhost and 127.0.0.1; it begins an hour ago."""
    begins = begins or datetime.now(UTC) - timedelta(hours=1)
    key = ec.generate_private_key(ec.SECP256R1())
    cert = (
        x509.CertificateBuilder()
        .subject_name(NAME)
        .issuer_name(NAME)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(begins)
        .not_valid_after(begins + timedelta(days=days))
        .add_extension(NAMES, critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, SHA256())
    )
    return Pair(cert.public_bytes(Encoding.PEM), key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))


@functools.cache
def one_pair() -> Pair:
    """The same for all tests of a process that do not mind."""
    return make_pair()


def server_context(pair: Pair | None) -> ssl.SSLContext | None:
    """What a server in the test's process speaks TLS with; None for none."""
    if pair is None:
        return None
    with tempfile.TemporaryDirectory() as folder:
        return Certificate(*pair.write(Path(folder))).context()


class TlsEnd:
    """A client's end over a socket that does not wait, as far as tests need a socket."""

    def __init__(self, one: socket.socket, context: ssl.SSLContext) -> None:
        self._socket = one
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_hostname="localhost")

    async def handshake(self) -> None:
        """Until both believe."""
        loop = asyncio.get_running_loop()
        while True:
            try:
                self._tls.do_handshake()
            except ssl.SSLWantReadError:
                await self._flush()
                self._incoming.write(await loop.sock_recv(self._socket, 65_536))
            else:
                await self._flush()
                return

    async def sendall(self, data: bytes) -> None:
        """Encrypted."""
        self._tls.write(data)
        await self._flush()

    def recv(self, most: int) -> bytes:
        """Of so many bytes of the socket, what is readable. Raises BlockingIOError if nothing is."""
        encrypted = self._socket.recv(most)
        if encrypted:
            self._incoming.write(encrypted)
        else:
            self._incoming.write_eof()
        parts = []
        try:
            while part := self._tls.read(65_536):
                parts.append(part)
        except ssl.SSLWantReadError:
            if not parts:
                raise BlockingIOError from None
        return b"".join(parts)

    async def _flush(self) -> None:
        await asyncio.get_running_loop().sock_sendall(self._socket, self._outgoing.read())
