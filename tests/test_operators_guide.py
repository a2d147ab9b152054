"""docs/operators.md: its metrics, settings, numbers and warnings are those of the code."""

from __future__ import annotations

import re

import pytest

import core.orders.directory
import services.accounts
import services.jwks
import services.redis_limits
from core.access.identity import LEEWAY_SECONDS
from core.config.settings import setting_fields
from core.errors import PROBLEMS
from core.telemetry.metrics import Metrics
from exchange.matching import REMEMBERED_ORDER_IDS
from handlers.passthrough import MAX_BODY_BYTES, PATHS
from process.worker_reports import RESTARTS, UP
from tests.support.gateway import REPOSITORY

TEXT = (REPOSITORY / "docs" / "operators.md").read_text(encoding="utf-8")
CODE = re.findall(r"`([^`\n]+)`", TEXT)
SETTINGS = {name: field.default for name, field in setting_fields()}
SECTIONS = {name.partition(".")[0] for name in SETTINGS if "." in name}


def test_guide_has_every_metric_and_no_other() -> None:
    families = list(Metrics().registry.collect())
    names = {f"{family.name}_total" if family.type == "counter" else family.name for family in families}
    told = {found for text in CODE for found in re.findall(r"\b(?:gateway|process|python)_\w+", text)}
    # The workers' own are in no registry: the others tell of a worker that cannot.
    assert told == names | {UP, RESTARTS}


def test_guide_names_settings_that_there_are() -> None:
    told = {text for text in CODE if re.fullmatch(rf"(?:{'|'.join(SECTIONS)})\.\w+", text)}
    beside_settings = {"kafka.connected", "kafka.partial", "kafka.partitions", "kafka.lag"}  # members of /health
    assert told - beside_settings <= SETTINGS.keys()
    assert len(told) > 25


@pytest.mark.parametrize(
    ("setting", "told"),
    [
        ("limits.orders_per_second", "`limits.orders_per_second` 20,"),
        ("limits.orders_burst", "`limits.orders_burst` 20 |"),
        ("limits.cancels_per_second", "`limits.cancels_per_second` 100,"),
        ("limits.cancels_burst", "`limits.cancels_burst` 100 |"),
        ("limits.requests_per_second", "`limits.requests_per_second` 100,"),
        ("limits.requests_burst", "`limits.requests_burst` 200 |"),
        ("limits.connects_per_second", "`limits.connects_per_second` 1000 |"),
        ("limits.address_logins_per_second", "`limits.address_logins_per_second` 5,"),
        ("limits.address_logins_burst", "`limits.address_logins_burst` 60 |"),
        ("websocket.max_connections", "`websocket.max_connections` 20,000,"),
        ("websocket.max_subscriptions", "`websocket.max_subscriptions` 1,000,"),
        ("websocket.max_views", "`websocket.max_views` 10,000 |"),
        ("auth.jwks_refresh_seconds", "`auth.jwks_refresh_seconds` (300)"),
        ("auth.jwks_keep_seconds", "`auth.jwks_keep_seconds` (86,400)"),
        ("kafka.warmup_seconds", "`kafka.warmup_seconds` (3,600)"),
        ("kafka.warmup_min_records", "`kafka.warmup_min_records` (1,000)"),
        ("accounts.timeout_seconds", "`accounts.timeout_seconds` (2)"),
    ],
)
def test_guide_has_the_defaults(setting: str, told: str) -> None:
    found = re.search(r"([\d,]+)\D*$", told)
    assert found
    assert told in TEXT
    assert float(found[1].replace(",", "")) == SETTINGS[setting]


def test_guide_has_the_numbers_of_the_code() -> None:
    assert core.orders.directory.MAX_EARLY_EVENTS == 100_000
    assert "100,000 order events wait" in TEXT
    assert REMEMBERED_ORDER_IDS == 100_000
    assert "the last 100,000 ids" in TEXT
    assert (services.accounts.CIRCUIT_FAILURES, services.accounts.CIRCUIT_PAUSE_SECONDS) == (5, 5.0)
    assert services.accounts.RELEASE_BACKOFF_SECONDS == (0.5, 2.0)
    assert services.redis_limits.TIMEOUT_SECONDS == 0.08
    assert services.jwks.COOL_DOWN_SECONDS == 10.0
    assert LEEWAY_SECONDS == 60.0
    assert MAX_BODY_BYTES == 1 << 20
    assert PATHS == r"(?:/auth/.*|/api/(?:me|balances|orders|ohlcv)(?:/.*)?|/api/faucet/.*)"


def test_guide_tells_of_every_problem_that_health_can_have() -> None:
    """Their texts, as the code has them."""
    code = "".join(
        (REPOSITORY / name).read_text(encoding="utf-8")
        for name in (
            "wiring/http.py",
            "core/kafka/topic_lifecycle.py",
            "core/kafka/compacted_topic.py",
            "services/jwks.py",
            "services/redis_limits.py",
            "services/circuit_breaker.py",
            "services/releases.py",
            "process/certificate.py",
            "process/worker_reports.py",
        )
    )
    for text, told in [
        ('"the number of partitions of the market topic has changed: restart"', "has changed: restart`"),
        ('f"the keys could not be read: ', "`the keys could not be read: ...`"),
        ('"the keys could not be fetched: ', "`the keys could not be fetched: ...`"),
        ('"the keys could not be used: ', "`the keys could not be used: ...`"),
        ('f"Redis is away ({type(error).__name__}): limits', "`Redis is away (...): limits"),
        ('f"tls: the certificate is still the old one: ', "`tls: the certificate is still the old one: ...`"),
        ('"tls: the certificate has expired"', "`tls: the certificate has expired`"),
        ('f"worker {number} does not answer"', "`worker ... does not answer`"),
        ('f"{self._name} fails: {reason}"', "`the account service fails: ...`"),
        (
            'f"topic {self.topic} does not exist: what it says is not known"',
            "`topic ... does not exist: what it says is not known`",
        ),
        ('f"the account service has not released {', "`the account service has not released ... ended orders`"),
    ]:
        assert text in code, text
        assert told in TEXT, told
    sources = re.search(r"\{\s*\"partitions\": .*?\}", code, re.DOTALL)
    assert sources
    assert re.findall(r"\.(\w+)", sources[0]) == [
        "topic_lifecycle",
        "key_fetcher",
        "redis",
        "release_worker",
        "compacted",
    ]


def test_guide_links_to_chapters_that_there_are() -> None:
    chapters = {
        line[3:].strip().lower().replace(" ", "-").replace(",", "") for line in re.findall(r"^## .*", TEXT, re.M)
    }
    assert set(re.findall(r"\(#([\w-]+)\)", TEXT)) == chapters


def test_guide_names_problems_that_there_are() -> None:
    assert {"bus-unavailable", "unavailable"} <= {text for text in CODE if text in PROBLEMS}
