"""The certificate and key that TLS is spoken with: read whole or refused, and read again while the old pair serves.

Each pair has an `ssl.SSLContext` of its own, for one that failed to take a pair may have half of it. Who is connected stays with
what it began with.
"""

from __future__ import annotations

import asyncio
import logging
import os
import ssl
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.types import PublicKeyTypes
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key

from core.config.settings import Tls
from core.errors import SettingsError

log = logging.getLogger("gateway.tls")

DAY_SECONDS = 86_400
MAX_FILE_BYTES = 1024 * 1024


@dataclass(frozen=True, slots=True)
class _Pair:
    """What new connections are encrypted by, and until when others believe it; seconds since the epoch."""

    context: ssl.SSLContext
    ends_at: float


class Certificate:
    """The pair of `tls.cert` and `tls.key`."""

    def __init__(self, cert: str, key: str, clock: Callable[[], float] = time.time) -> None:
        """Files in PEM. Raises SettingsError, which names the file and the setting, for a pair that cannot be used."""
        self._cert = cert
        self._key = key
        self._clock = clock
        self._lock = threading.Lock()
        self._refusal: str | None = None
        self._pair = _read_pair(cert, key, clock())

    @classmethod
    def of(cls, settings: Tls) -> Certificate | None:
        """None where no TLS is wanted. Raises SettingsError."""
        return None if settings.cert is None or settings.key is None else cls(settings.cert, settings.key)

    def context(self) -> ssl.SSLContext:
        """What a new connection is encrypted by."""
        return self._pair.context

    def days_left(self) -> float:
        """Until the certificate ends; below 0 behind that."""
        return (self._pair.ends_at - self._clock()) / DAY_SECONDS

    @property
    def problem(self) -> str | None:
        """What is wrong while the gateway goes on: see `core.health.CheckedPart`."""
        if self._refusal is not None:
            return f"tls: the certificate is still the old one: {self._refusal}"
        return "tls: the certificate has expired" if self.days_left() <= 0 else None

    def reload(self) -> None:
        """Read both files again, which waits for the disk: of a pair that cannot be used nothing is taken."""
        with self._lock:
            try:
                self._pair = _read_pair(self._cert, self._key, self._clock())
            except SettingsError as error:
                self._refusal = str(error)
                log.error("the certificate is still the old one: %s", error)
            else:
                self._refusal = None
                log.info("the certificate was read again: it ends in %.1f days", self.days_left())


def reloads_on_hangup(certificate: Certificate | None) -> bool:
    """Whether SIGHUP means to read again, and not that the terminal is gone which a gateway without TLS was started from."""
    return certificate is not None or not os.isatty(0)


def reload_beside_loop(certificate: Certificate | None) -> None:
    """Have a thread read again what there is, because files wait for the disk. To be called on the loop."""
    if certificate is None:
        log.info("asked to read the certificate again, and there is none")
    else:
        asyncio.get_running_loop().run_in_executor(None, certificate.reload)


def _read_pair(cert: str, key: str, now: float) -> _Pair:
    cert_pem, key_pem = _read(cert, "tls.cert"), _read(key, "tls.key")
    try:
        first, *_ = x509.load_pem_x509_certificates(cert_pem)
    except ValueError as error:
        raise SettingsError(
            cert, "tls.cert", "expected a certificate in PEM, and behind it those that it hangs on"
        ) from error
    begins, ends_at = first.not_valid_before_utc, first.not_valid_after_utc.timestamp()
    if ends_at <= now:
        raise SettingsError(cert, "tls.cert", f"the certificate has expired on {first.not_valid_after_utc:%Y-%m-%d}")
    if begins > datetime.fromtimestamp(now, UTC):
        raise SettingsError(cert, "tls.cert", f"the certificate is not valid before {begins:%Y-%m-%d %H:%M} UTC")
    try:
        private = load_pem_private_key(key_pem, None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:  # a TypeError: it has a password
        raise SettingsError(key, "tls.key", "expected a private key in PEM, without a password") from error
    if _bytes_of(private.public_key()) != _bytes_of(first.public_key()):
        raise SettingsError(key, "tls.key", f"is not the key of the certificate in {cert}")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    # What a client could keep a core busy with, and what would let a write wait for something to read.
    context.options |= ssl.OP_NO_RENEGOTIATION
    context.set_alpn_protocols(["http/1.1"])
    try:
        # An empty password: OpenSSL asks the terminal for one otherwise, should the file have become another meanwhile.
        context.load_cert_chain(cert, key, password="")
    except (OSError, ValueError) as error:
        raise SettingsError(cert, "tls.cert", f"OpenSSL takes neither it nor its key: {error}") from error
    return _Pair(context, ends_at)


def _read(path: str, setting: str) -> bytes:
    try:
        with Path(path).open("rb") as file:
            return file.read(MAX_FILE_BYTES)
    except OSError as error:
        raise SettingsError(path, setting, f"cannot be read: {error.strerror}") from error


def _bytes_of(key: PublicKeyTypes) -> bytes:
    encoded: bytes = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return encoded
