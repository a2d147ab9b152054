"""What the operators' page does, for a terminal: the gateway's address for operators (docs/operators.md#blocks-and-halts).

    python -m tools.admin [--url http://127.0.0.1:3001] [--token-file FILE] [--json] [--yes] COMMAND ...

The token is in the variable GATEWAY_ADMIN_TOKEN or in a file, never among the arguments, which everybody on the machine can
read. Ends with 0 once it is done, 1 where the gateway refused, 2 for arguments that are wrong, 3 where it could not be reached,
4 where it is not known whether it was done, 5 where the question was not answered with yes.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple, TextIO
from urllib.parse import urlencode, urlsplit

URL = "http://127.0.0.1:3001"
TOKEN_VARIABLE = "GATEWAY_ADMIN_TOKEN"
SECONDS = 30.0
DONE, REFUSED, USAGE, UNREACHABLE, UNKNOWN, NOT_WANTED = range(6)
STATES = ("online", "cancel_only", "halted", "maintenance")


class Failure(Exception):
    """What did not work, and the exit code that says so."""

    def __init__(self, code: int, text: str) -> None:
        self.code = code
        super().__init__(text)


class Gateway(NamedTuple):
    """The operators' address, and what its requests bear."""

    url: str
    token: str

    def ask(self, path: str, body: Mapping[str, object] | None = None) -> dict[str, Any]:
        """The answer's body. Raises Failure."""
        parts = urlsplit(self.url)
        connect = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
        connection = connect(parts.hostname or "", parts.port, timeout=SECONDS)
        headers = {"Authorization": f"Bearer {self.token}", "Content-Type": "application/json"}
        is_sent = False
        try:
            connection.connect()
            is_sent = body is not None
            method, payload = ("GET", None) if body is None else ("POST", json.dumps(body))
            connection.request(method, f"{parts.path.rstrip('/')}/admin/{path}", payload, headers)
            answer = connection.getresponse()
            status, text = answer.status, answer.read()
        except (OSError, http.client.HTTPException) as error:
            if is_sent:
                raise Failure(UNKNOWN, f"{self.url} gave no answer, so it may or may not be done: {error}") from error
            raise Failure(UNREACHABLE, f"{self.url} cannot be reached: {error}") from error
        finally:
            connection.close()
        try:
            told = json.loads(text)
            error_text = told.get("error", "")
        except (ValueError, AttributeError) as error:
            raise Failure(REFUSED, f"{self.url} answered {status}, and not as a gateway does") from error
        if status >= 300:
            raise Failure(UNKNOWN if status == 504 else REFUSED, f"{status}: {error_text}")
        result: dict[str, Any] = told
        return result


def shown(text: object) -> str:
    """Text for a terminal, which is not to do what a user's name says."""
    return "".join(character if character.isprintable() else f"\\u{ord(character):04x}" for character in str(text))


def moment(milliseconds: int) -> str:
    """A time, in UTC."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(milliseconds / 1000))


def parser() -> argparse.ArgumentParser:
    """Of the arguments."""
    made = argparse.ArgumentParser(prog="python -m tools.admin", description="Ask a gateway's address for operators.")
    made.add_argument("--url", default=URL, help=f"where it is (default: {URL})")
    made.add_argument("--token-file", metavar="FILE", help=f"a file with the token (default: {TOKEN_VARIABLE})")
    made.add_argument("--json", action="store_true", help="show the answer as JSON")
    made.add_argument("--yes", action="store_true", help="do not ask before something is done")
    commands = made.add_subparsers(dest="command", required=True, metavar="COMMAND")
    clients = commands.add_parser("clients", help="list connections")
    clients.add_argument("--user", help="of this user alone")
    commands.add_parser("state", help="show blocks, halts and the announcement")
    disconnect = commands.add_parser("disconnect", help="close connections")
    whose = disconnect.add_mutually_exclusive_group(required=True)
    whose.add_argument("--user", help="all of this user's")
    whose.add_argument("--client", help="this one, by its name in the list")
    block = commands.add_parser("block", help="refuse a user's orders")
    block.add_argument("user")
    block.add_argument("--reason", help="told to the user")
    block.add_argument("--cancel-open", action="store_true", help="cancel the open ones too")
    commands.add_parser("unblock", help="take a block back").add_argument("user")
    halt = commands.add_parser("halt", help="refuse orders of a symbol, or of all")
    resume = commands.add_parser("resume", help="take back the halt of a symbol, or that of all")
    for one in (halt, resume):
        which = one.add_mutually_exclusive_group(required=True)
        which.add_argument("symbol", nargs="?", metavar="SYMBOL")
        which.add_argument("--all", action="store_true", help="all symbols")
    halt.add_argument("--reason", help="told to everybody")
    announce = commands.add_parser("announce", help="tell everybody; any state but online refuses orders too")
    announce.add_argument("state", choices=STATES)
    announce.add_argument("--symbol", action="append", help="of this symbol; may be given again (default: all)")
    announce.add_argument("--message")
    announce.add_argument("--from-ms", type=int, metavar="MS", help="Unix time in milliseconds (default: now)")
    announce.add_argument("--until-ms", type=int, metavar="MS", help="(default: until it is withdrawn)")
    commands.add_parser("withdraw", help="take the announcement back")
    return made


def action_of(options: argparse.Namespace) -> tuple[str, dict[str, object]]:
    """What is to be done, as a question, and the body that asks for it."""
    match options.command:
        case "disconnect":
            name, value = ("user_id", options.user) if options.user is not None else ("client", options.client)
            return f"disconnect {name.removesuffix('_id')} {value}", {name: value}
        case "block":
            also = " and cancel all open orders" if options.cancel_open else ""
            body = {"user_id": options.user, "reason": options.reason, "cancel_open": options.cancel_open}
            return f"block user {options.user}{also}", body
        case "unblock":
            return f"unblock user {options.user}", {"user_id": options.user}
        case "halt":
            body = {"symbol": options.symbol, "reason": options.reason}
            return f"halt {options.symbol or 'all symbols'}", body
        case "resume":
            return f"resume {options.symbol or 'all symbols'}", {"symbol": options.symbol}
        case "announce":
            fields = {name: getattr(options, name) for name in ("state", "message", "from_ms", "until_ms")}
            refusing = "" if options.state == "online" else ", so refuse orders,"
            return f"announce {options.state}{refusing}", {**fields, "symbols": options.symbol}
        case _:
            return "withdraw the announcement", {}


def all_clients(gateway: Gateway, user_id: str | None) -> dict[str, Any]:
    """Every page as one. Raises Failure."""
    query = {"limit": "1000"} | ({} if user_id is None else {"user_id": user_id})
    whole = page = gateway.ask(f"clients?{urlencode(query)}")
    while page["next"] is not None:
        page = gateway.ask(f"clients?{urlencode({**query, 'after': page['next']})}")
        whole["clients"] += page["clients"]
    whole["next"] = None
    return whole


def write_clients(page: Mapping[str, Any], out: TextIO) -> None:
    """As lines with tabs between, for other programs of a terminal."""
    print("client", "user", "address", "since", "subscriptions", "bytes", sep="\t", file=out)
    for one in page["clients"]:
        user = "-" if one["user_id"] is None else shown(one["user_id"])
        since = moment(one["since_ms"])
        print(
            one["client"], user, one["address"], since, one["subscriptions"], one["waiting_bytes"],
            sep="\t", file=out,
        )  # fmt: skip
    for number in page.get("silent_workers", ()):
        print(f"worker {number} does not answer: its connections are not told", file=sys.stderr)


def write_state(state: Mapping[str, Any], out: TextIO) -> None:
    """As lines."""
    for one in state["blocks"]:
        print(f"blocked: {shown(one['user_id'])} since {moment(one['since_ms'])}{_reason(one)}", file=out)
    hidden = state["blocked_users"] - len(state["blocks"])
    if hidden:
        print(f"blocked: {hidden} more", file=out)
    for one in state["halts"]:
        print(f"halted: {one['symbol'] or 'all symbols'} since {moment(one['since_ms'])}{_reason(one)}", file=out)
    told = state["announcement"]
    if told is not None:
        when = "".join(
            f" {word} {moment(told[name])}"
            for word, name in (("from", "from_ms"), ("until", "until_ms"))
            if told[name] is not None
        )
        message = f": {shown(told['message'])}" if told["message"] else ""
        print(f"announced: {told['state']}, {', '.join(told['symbols'] or ['all symbols'])}{when}{message}", file=out)
    if not (state["blocks"] or state["halts"] or told):
        print("nobody is blocked, nothing is halted or announced", file=out)
    if state["problem"] is not None:
        print(f"not all may be told, and nothing can be set: {shown(state['problem'])}", file=sys.stderr)


def _reason(one: Mapping[str, Any]) -> str:
    return f": {shown(one['reason'])}" if one["reason"] else ""


def read_token(options: argparse.Namespace, environ: Mapping[str, str]) -> str:
    """Raises Failure."""
    try:
        token = Path(options.token_file).read_text().strip() if options.token_file else environ.get(TOKEN_VARIABLE, "")
    except (OSError, UnicodeDecodeError) as error:
        raise Failure(USAGE, f"{options.token_file} cannot be read: {error}") from error
    if not (token and token.isascii() and token.isprintable()):
        raise Failure(USAGE, f"no token: set {TOKEN_VARIABLE}, or name a file with --token-file")
    return token


def run(options: argparse.Namespace, environ: Mapping[str, str], out: TextIO) -> int:
    """The exit code. Raises Failure."""
    gateway = Gateway(options.url, read_token(options, environ))
    if options.command in ("clients", "state"):
        is_list = options.command == "clients"
        told = all_clients(gateway, options.user) if is_list else gateway.ask("state")
        if options.json:
            print(json.dumps(told), file=out)
        else:
            (write_clients if is_list else write_state)(told, out)
        return DONE
    question, body = action_of(options)
    if not options.yes:
        print(f"{shown(question)} on every instance? [y/N] ", end="", file=sys.stderr, flush=True)
        if sys.stdin.readline().strip().lower() not in ("y", "yes"):
            raise Failure(NOT_WANTED, "nothing was done")
    told = gateway.ask(options.command, body)
    for symbol in told.get("unknown_symbols", ()):
        print(f"admin: nothing is known there of {shown(symbol)}: is it spelt right?", file=sys.stderr)
    cancelled = f"; {len(told['order_ids'])} open orders are being cancelled" if "order_ids" in told else ""
    print(json.dumps(told) if options.json else f"{told['status']}{cancelled}", file=out)
    return DONE


def main(arguments: list[str], environ: Mapping[str, str] = os.environ) -> int:
    """Return the exit code."""
    options = parser().parse_args(arguments)
    try:
        return run(options, environ, sys.stdout)
    except Failure as failure:
        print(f"admin: {shown(failure)}", file=sys.stderr)
        return failure.code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
