from __future__ import annotations

import asyncio
import os
import ssl
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
)

from core.config.settings import Tls
from core.errors import SettingsError
from process.certificate import Certificate, reload_beside_loop, reloads_on_hangup
from tests.support.certificates import Pair, make_pair, one_pair

START = datetime(2026, 3, 1, tzinfo=UTC)


def with_password(pem: bytes) -> bytes:
    key = load_pem_private_key(pem, None)
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"secret"))


def presented(server: ssl.SSLContext, trusted: Pair) -> bool:
    """Whether a client that believes a pair alone is content with what a server has."""
    a, b = ssl.MemoryBIO(), ssl.MemoryBIO()
    ours = server.wrap_bio(a, b, server_side=True)
    theirs = trusted.trusting().wrap_bio(b, a, server_hostname="localhost")
    for _ in range(10):
        for side in (theirs, ours):
            try:
                side.do_handshake()
            except ssl.SSLWantReadError:
                pass
            except ssl.SSLCertVerificationError:
                return False
            else:
                if side is theirs:
                    return True
    raise AssertionError("the handshake has no end")


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (lambda cert, key: cert.unlink(), "{cert}: tls.cert: cannot be read: No such file or directory"),
        (lambda cert, key: key.unlink(), "{key}: tls.key: cannot be read: No such file or directory"),
        (lambda cert, key: cert.write_text("no PEM"), "{cert}: tls.cert: expected a certificate in PEM"),
        (lambda cert, key: key.write_text("no PEM"), "{key}: tls.key: expected a private key in PEM"),
        (lambda cert, key: key.write_bytes(with_password(key.read_bytes())), "{key}: tls.key: expected a private key"),
        (lambda cert, key: key.write_bytes(make_pair().key), "{key}: tls.key: is not the key of the certificate in"),
        (
            lambda cert, key: make_pair(START, days=1).write(cert.parent),
            "{cert}: tls.cert: the certificate has expired on 2026-03-02",
        ),
        (
            lambda cert, key: make_pair(datetime.now(UTC) + timedelta(days=1)).write(cert.parent),
            "{cert}: tls.cert: the certificate is not valid before",
        ),
    ],
)
def test_certificate_that_cannot_be_used_names_file_and_setting(
    tmp_path: Path, spoil: Callable[[Path, Path], object], says: str
) -> None:
    cert, key = one_pair().write(tmp_path)
    spoil(Path(cert), Path(key))
    with pytest.raises(SettingsError) as refused:
        Certificate.of(Tls(cert, key))
    assert str(refused.value).startswith(says.format(cert=cert, key=key))


def test_certificate_is_none_without_settings() -> None:
    assert Certificate.of(Tls()) is None


def test_certificate_that_is_read_again_is_shown_to_who_comes_from_then_on(tmp_path: Path) -> None:
    old, new = one_pair(), make_pair(days=60)
    certificate = Certificate(*old.write(tmp_path))
    before = certificate.context()
    new.write(tmp_path)
    certificate.reload()
    assert [presented(context, old) for context in (before, certificate.context())] == [True, False]
    assert presented(certificate.context(), new)
    assert certificate.problem is None
    assert 59 < certificate.days_left() < 60


def test_certificate_stays_when_the_new_pair_is_half_written_until_it_is_whole(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    old, new = one_pair(), make_pair()
    certificate = Certificate(*old.write(tmp_path))
    (tmp_path / "cert.pem").write_bytes(new.cert)
    certificate.reload()
    assert presented(certificate.context(), old)
    assert certificate.problem is not None and "tls.key: is not the key" in certificate.problem
    assert [record.levelname for record in caplog.records] == ["ERROR"]
    (tmp_path / "key.pem").write_bytes(new.key)
    certificate.reload()
    assert presented(certificate.context(), new)
    assert certificate.problem is None


def test_certificate_tells_its_days_and_its_end(tmp_path: Path) -> None:
    now = START.timestamp()
    certificate = Certificate(*make_pair(START, days=10).write(tmp_path), lambda: now)
    assert certificate.days_left() == 10
    now += 9.5 * 86_400
    assert (certificate.days_left(), certificate.problem) == (0.5, None)
    now += 86_400
    assert (certificate.days_left(), certificate.problem) == (-0.5, "tls: the certificate has expired")


@pytest.mark.gen_test
async def test_certificate_is_read_by_a_thread(tmp_path: Path) -> None:
    certificate = Certificate(*one_pair().write(tmp_path))
    new = make_pair()
    new.write(tmp_path)
    reload_beside_loop(certificate)
    await asyncio.get_running_loop().shutdown_default_executor()
    assert presented(certificate.context(), new)


def test_hangup_of_a_terminal_ends_a_gateway_that_has_no_certificate(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    certificate = Certificate(*one_pair().write(tmp_path))
    answers = {}
    for is_terminal in (True, False):
        monkeypatch.setattr(os, "isatty", lambda _fd, is_terminal=is_terminal: is_terminal)
        answers[is_terminal] = (reloads_on_hangup(None), reloads_on_hangup(certificate))
    assert answers == {True: (False, True), False: (True, True)}
