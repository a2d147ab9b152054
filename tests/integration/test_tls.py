"""A gateway that speaks TLS by itself (docs/contract.md#tls), and reads its certificate again while clients are connected."""

from __future__ import annotations

import signal
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.integration.clients import WebSocket, exact
from tests.integration.events import fill, fresh_symbol, snapshot
from tests.integration.market import Market
from tests.integration.processes import Gateway
from tests.integration.test_settings_process import run
from tests.integration.trading import Trader, limit, settings
from tests.support.certificates import Pair, make_pair, one_pair


@contextmanager
def gateway_with(pair: Pair, folder: Path, market: Market, **more: object) -> Iterator[Gateway]:
    cert, key = pair.write(folder)
    gateway = Gateway(
        settings(tls={"cert": cert, "key": key}, websocket={"ping_interval_seconds": 3600}, drain_seconds=0, **more),
        bus=market,
    )
    gateway.trusting = pair.trusting()
    with gateway:
        gateway.wait_ready()
        yield gateway


def has(gateway: Gateway, pair: Pair) -> bool:
    """Whether who connects now is shown this certificate."""
    gateway.trusting = pair.trusting()
    try:
        return gateway.get("/health").status == 200
    except ssl.SSLCertVerificationError:
        return False


def test_gateway_serves_https_and_wss_and_reads_its_certificate_again(market: Market, tmp_path: Path) -> None:
    old, new = one_pair(), make_pair(days=100)
    symbol = fresh_symbol("T")
    with gateway_with(old, tmp_path, market) as gateway:
        assert gateway.url.startswith("https://")
        assert Trader().place(gateway, limit("KCN/EUR"))["status"] == "accepted"
        with WebSocket(gateway.address, "/ws?stream=none", tls=gateway.trusting) as client:
            client.subscribe(f"events.{symbol}")
            assert 29 < gateway.metric("gateway_certificate_days", address="bind") < 30

            (tmp_path / "cert.pem").write_bytes(new.cert)
            gateway.send_signal(signal.SIGHUP)
            gateway.wait_log("the certificate is still the old one: .*: tls.key: is not the key of the certificate")
            assert has(gateway, old)
            assert [one for one in gateway.health()["problems"] if one.startswith("tls: ")]
            assert gateway.metric("gateway_problem", kind="tls") == 1

            new.write(tmp_path)
            gateway.send_signal(signal.SIGHUP)
            gateway.wait_log("the certificate was read again")
            assert has(gateway, new)
            assert "problems" not in gateway.health()
            assert 99 < gateway.metric("gateway_certificate_days", address="bind") < 100

            market.publish(symbol, snapshot(symbol), fill(symbol))
            client.receive_until(lambda message: exact(message)["notification"]["event"]["type"] == "fill")


def test_workers_read_the_certificate_again_when_their_parent_is_told(market: Market, tmp_path: Path) -> None:
    if market.embedded:
        pytest.skip("an embedded broker is one process")
    old, new = one_pair(), make_pair()
    with gateway_with(old, tmp_path, market, workers=2) as gateway:
        new.write(tmp_path)
        gateway.send_signal(signal.SIGHUP)
        for number in range(2):
            gateway.wait_log(rf"worker {number} gateway\.tls: the certificate was read again")
        # Whoever the kernel chooses to answer.
        assert all(has(gateway, new) for _ in range(8))


def test_gateway_does_not_start_with_a_certificate_that_cannot_be_used(tmp_path: Path) -> None:
    cert, key = one_pair().write(tmp_path)
    Path(key).write_bytes(make_pair().key)
    file = tmp_path / "gateway.yaml"
    file.write_text(f"tls: {{cert: {cert}, key: {key}}}\nbind: 127.0.0.1:0\n")
    told = run("--config", str(file))
    assert (told.returncode, told.stdout) == (2, "")
    assert told.stderr == f"gateway: {key}: tls.key: is not the key of the certificate in {cert}\n"


def test_hangup_is_no_reason_to_end_for_a_gateway_without_a_certificate(market: Market) -> None:
    with Gateway.on(market, settings()) as gateway:
        gateway.send_signal(signal.SIGHUP)
        gateway.wait_log("asked to read the certificate again, and there is none")
        assert gateway.get("/ready").status == 200
