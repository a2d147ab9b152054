"""`python -m bench.tls_cost`: what TLS costs the loop: a frame to a client, beside the same without TLS, and a handshake.

CPU time of this thread alone, both by turns; the other ends are read by it too, outside what is counted.
"""

from __future__ import annotations

import socket
import ssl
import statistics
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from process.certificate import Certificate

CLIENTS = 200
ROUNDS = 60
TURNS = 5
HANDSHAKES = 100
SIZES = (200, 1_000, 8_000)


def context_of(key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey) -> ssl.SSLContext:
    """A server's, as the gateway makes it, with a certificate that has signed itself."""
    name, now = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")]), datetime.now(UTC)
    begun = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    begun = begun.serial_number(1).not_valid_before(now - timedelta(days=1)).not_valid_after(now + timedelta(days=1))
    with tempfile.TemporaryDirectory() as folder:
        cert, secret = Path(folder, "cert.pem"), Path(folder, "key.pem")
        cert.write_bytes(begun.sign(key, SHA256()).public_bytes(Encoding.PEM))
        secret.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
        return Certificate(str(cert), str(secret)).context()


def pair() -> tuple[socket.socket, socket.socket]:
    """The gateway's end and a client's, over the loopback."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        client = socket.create_connection(listening.getsockname())
        ours, _ = listening.accept()
    for one in (ours, client):
        one.setblocking(False)
        one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return ours, client


def shake_hands(context: ssl.SSLContext, trusting: ssl.SSLContext) -> tuple[ssl.SSLSocket, ssl.SSLSocket, float]:
    """Both ends, and the CPU seconds of ours."""
    ours, client = pair()
    there = trusting.wrap_socket(client, do_handshake_on_connect=False)
    began = time.thread_time()
    here = context.wrap_socket(ours, server_side=True, do_handshake_on_connect=False)
    used = time.thread_time() - began
    is_over = [False, False]
    while not all(is_over):
        for number, end in enumerate((there, here)):
            began = time.thread_time()
            try:
                end.do_handshake()
                is_over[number] = True
            except ssl.SSLWantReadError:
                pass
            used += (time.thread_time() - began) * number
    return here, there, used


def microseconds_a_send(sends: list[Callable[[bytes], int]], ends: list[socket.socket], frame: bytes) -> float:
    """A round is one frame to each."""
    used = 0.0
    for _ in range(ROUNDS):
        began = time.thread_time()
        for send in sends:
            send(frame)
        used += time.thread_time() - began
        for end in ends:
            try:
                end.recv(65_536)
            except (BlockingIOError, ssl.SSLWantReadError):
                pass
    return used / ROUNDS / len(sends) * 1e6


def main() -> None:
    """Print all of it."""
    trusting = ssl.create_default_context()
    trusting.check_hostname, trusting.verify_mode = False, ssl.CERT_NONE
    elliptic = context_of(ec.generate_private_key(ec.SECP256R1()))
    for name, context in (("ECDSA P-256", elliptic), ("RSA 2048", context_of(rsa.generate_private_key(65_537, 2048)))):
        used = []
        for _ in range(HANDSHAKES):
            here, there, seconds = shake_hands(context, trusting)
            here.close()
            there.close()
            used.append(seconds)
        print(f"a handshake, {name}: {statistics.median(used) * 1e3:.2f} ms")
    plain = [pair() for _ in range(CLIENTS)]
    encrypted = [shake_hands(elliptic, trusting)[:2] for _ in range(CLIENTS)]
    for size in SIZES:
        frame = b"x" * size
        turns = [
            [
                microseconds_a_send([one.send for one, _ in ends], [other for _, other in ends], frame)
                for ends in (plain, encrypted)
            ]
            for _ in range(TURNS)
        ]
        without, within = (statistics.median(times) for times in zip(*turns, strict=True))
        print(f"{size} bytes to a client: {without:.1f} us plain, {within:.1f} us encrypted")


if __name__ == "__main__":
    main()
