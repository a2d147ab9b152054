"""Who operates a gateway, by its address for operators."""

from __future__ import annotations

import re

from tests.support.gateway import GatewayProcess
from tools.admin import Gateway as Operators

TOKEN = "operators-" + "t" * 32
ADMIN = {"admin": {"bind": "127.0.0.1:0", "token": TOKEN}}


def operators_of(gateway: GatewayProcess) -> Operators:
    """Who asks that instance."""
    return Operators(gateway.wait_log(re.compile(r"operators: (http://[\d.:]+)/admin/"))[1], TOKEN)
