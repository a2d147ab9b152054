"""schemathesis against a live gateway: whatever the OpenAPI document lets in or keeps out, the answer is a documented one.

Two runs, for what a JSON Schema can say of orders is not all there is: requests that are good by a document as narrow as
this gateway's rules have to be taken, and requests that are bad by the document as it is have to be refused.
Both are seeded, and speak to the loopback alone.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.core.tokens import SECRET, token
from tests.integration.clients import WebSocket
from tests.support.examples import load
from tests.support.gateway import REPOSITORY, GatewayProcess

DOCUMENT_FILE = REPOSITORY / "docs" / "openapi.json"
SYMBOL = "KCN/EUR"
EXAMPLES = load(25)
SEED = 20
TIMEOUT_SECONDS = 240  # a run takes some ten seconds where nothing else runs
MANY = 1_000_000
SETTINGS = {
    "kafka": {"brokers": "embedded", "consume": "broadcast", "account_topic": "accounts"},
    "auth": {"mode": "optional"},
    "orders": {"default_symbol": SYMBOL},
    "limits": {
        "orders_per_second": MANY,
        "orders_burst": MANY,
        "cancels_per_second": MANY,
        "cancels_burst": MANY,
    },
}


@pytest.fixture(scope="module")
def gateway() -> Iterator[GatewayProcess]:
    """With a secret, so that tokens count, and without instruments, whose ticks no schema knows."""
    with GatewayProcess(SETTINGS, {"JWT_SECRET": SECRET}) as process:
        process.wait_ready()
        yield process


def narrowed() -> dict[str, Any]:
    """The document without what this gateway is not set up for, and with what a schema cannot say."""
    document: dict[str, Any] = json.loads(DOCUMENT_FILE.read_bytes())
    schemas = document["components"]["schemas"]
    references = [alternative["$ref"] for alternative in schemas["order"]["oneOf"]]
    assert references[2:] == ["#/components/schemas/marketOrderByAmount"]
    schemas["order"]["oneOf"].pop()  # there is no account service
    for form in ("limitOrder", "marketOrder"):
        for member in ("quote_amount", "max_slippage_price"):
            del schemas[form]["properties"][member]
    text, number = schemas["decimal"]["anyOf"]
    assert (text["type"], number["type"]) == ("string", "number")
    number |= {"minimum": 1e-15, "maximum": 1e15}  # of 17 digits, all within the 38
    text, number = schemas["orderIdIn"]["anyOf"]
    assert (text["type"], number["type"]) == ("string", "integer")
    schemas["orderIdIn"] = text  # 1.0 is an integer too to a schema
    for path in ("/api/book", "/api/trades", "/api/fills", "/api/order/history", "/api/candles"):
        for operation in document["paths"][path].values():
            for parameter in [*operation.get("parameters", ())]:
                if parameter["name"] == "grouping":
                    parameter["schema"] = {"const": "none"}  # there are no ticks
                elif parameter["name"] == "before" or (path == "/api/fills" and parameter["name"] == "after"):
                    # Not together with after; and of the caller's own only those that there are.
                    operation["parameters"].remove(parameter)
                elif parameter["name"] == "from":
                    operation["parameters"].remove(parameter)  # never behind to
    schemas["cancelAllAfter"]["properties"]["timeout_seconds"] = {
        "enum": [0, 1, 60, 3600]
    }  # 1.0 is an integer too to a schema
    schemas["deadline"] = {"type": "null"}  # which are in time changes while they are made up
    schemas["amend"]["properties"]["symbol"] = {"const": SYMBOL}
    schemas["cancel"]["properties"]["symbol"] = {"const": SYMBOL}  # another one than the order's is refused
    return document


def fuzz(gateway: GatewayProcess, folder: Path, document: dict[str, Any], mode: str, unchecked: str) -> str:
    """One run, but for one check; its report. Fails with the report if schemathesis finds anything."""
    (folder / "openapi.json").write_text(json.dumps(document), encoding="utf-8")
    command = [
        *(sys.executable, "-W", "ignore", "-m", "schemathesis.cli", "run", "openapi.json"),
        *("--url", gateway.url, "--header", f"Authorization: Bearer {token(exp=int(time.time()) + 3600)}"),
        *("--mode", mode, "--seed", str(SEED), "--max-examples", str(EXAMPLES), "--workers", "1"),
        *("--generation-database", "none", "--no-color"),
        # An upgrade is more than a request; tests/integration/test_openapi.py makes some.
        *("--exclude-path", "/ws"),
        # The first of these follows links of its own guess, to orders of which it placed none.
        *("--exclude-checks", f"ensure_resource_availability,{unchecked}"),
    ]
    environ = {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}
    environ["HYPOTHESIS_STORAGE_DIRECTORY"] = str(
        REPOSITORY / ".hypothesis"
    )  # where its table of all characters is kept
    done = subprocess.run(
        command, cwd=folder, env=environ, capture_output=True, text=True, timeout=TIMEOUT_SECONDS, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def cases(report: str) -> int:
    found = re.search(r"(\d+) generated", report)
    assert found, report
    return int(found[1])


def test_requests_that_are_good_by_the_document_are_taken(gateway: GatewayProcess, tmp_path: Path) -> None:
    report = fuzz(gateway, tmp_path, narrowed(), "positive", "negative_data_rejection")
    assert cases(report) > 12 * EXAMPLES


def test_links_of_the_document_lead_to_orders_that_there_are(gateway: GatewayProcess, tmp_path: Path) -> None:
    document = narrowed()
    # Among all routes a run of this length seldom places an order and then asks for it.
    document["paths"] = {path: of for path, of in document["paths"].items() if path.startswith("/api/order")}
    report = fuzz(gateway, tmp_path, document, "positive", "negative_data_rejection")
    assert re.search(r"API Links: +[1-9]", report), report


def test_requests_that_are_bad_by_the_document_are_refused(gateway: GatewayProcess, tmp_path: Path) -> None:
    document = json.loads(DOCUMENT_FILE.read_bytes())
    for operations in document["paths"].values():
        operations.pop("options", None)  # what a resource takes does not depend on the request
    assert cases(fuzz(gateway, tmp_path, document, "negative", "positive_data_acceptance")) > 12 * EXAMPLES


def test_gateway_is_as_well_as_before(gateway: GatewayProcess) -> None:
    assert gateway.get("/ready").json()["status"] == "ok"
    with WebSocket(gateway.url, "/ws?stream=none") as client:
        assert client.call("public/ping")[0]["result"] == "pong"
    assert 'gateway_refusals_total{reason="internal"} 0.0' in gateway.get("/metrics").body.decode()
