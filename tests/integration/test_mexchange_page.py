"""docs/mexchange.md: its commands answer what it says, with an account service that keeps a ledger and an engine that executes."""

from __future__ import annotations

import re
import subprocess

from tests.integration.market import Market
from tests.integration.processes import Gateway, exchange_on
from tests.integration.trading import fresh_user, pass_of, settings
from tests.integration.waiting import wait_until
from tests.support.account_ledger import Ledger
from tests.support.gateway import REPOSITORY
from tests.support.ledger_service import LedgerService, ledger_service

TEXT = (REPOSITORY / "docs" / "mexchange.md").read_text(encoding="utf-8")
COMMANDS: list[tuple[str, str]] = re.findall(r"^\$ (.+)\n(.+)$", TEXT, re.MULTILINE)


def test_commands_of_the_page_answer_what_it_says(market: Market) -> None:
    user_id = fresh_user()
    service = LedgerService(Ledger({(user_id, "EUR"): "1000"}))
    with ledger_service(service) as served, exchange_on(market):
        accounts = {"url": served.open_url()}
        with Gateway.on(market, settings(accounts=accounts)) as gateway:
            environ = {"GATEWAY": gateway.url, "TOKEN": pass_of(user_id), "PATH": "/usr/bin:/bin"}

            def said(command: str) -> str:
                return subprocess.run(["sh", "-c", command], env=environ, capture_output=True, text=True).stdout.strip()

            assert len(COMMANDS) == 7
            for command, told in COMMANDS:
                expected = re.escape(told).replace(re.escape("..."), ".+")
                # What the engine has to say first comes a moment later.
                wait_until(lambda c=command, e=expected: re.fullmatch(e, said(c)), f"{command}\n{told}")
