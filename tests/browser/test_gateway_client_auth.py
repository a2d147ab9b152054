"""Signing in with `gateway-client.js`: what is handed over, when, and what becomes of private channels."""

from __future__ import annotations

import pytest
from playwright.sync_api import Page

from tests.browser.conftest import run

ALICE = """const ALICE = { access_token: "t", token_type: "bearer", user_id: "alice" };
const signedIn = async (options) => {
  const made = setup(options);
  made.told = [];
  made.client.on("auth", ({ status, userId, error }) => made.told.push([status, userId, error?.code ?? null]));
  made.signing = outcome(made.client.signIn("t"));
  made.client.connect();
  await made.sockets[0].open();
  await made.sockets[0].answer("public/auth", ALICE);
  return made;
};
"""
REFUSED = {"code": 10000, "message": "the token has expired"}


def test_client_hands_over_its_token_before_it_asks_for_anything(modules: Page) -> None:
    seen = run(
        modules,
        ALICE
        + """const { client, sockets } = setup();
        const got = [];
        client.subscribe(["trades.A/B"], () => {});
        const orders = outcome(client.subscribe(["account.orders"], (notification) => got.push(notification)));
        const signing = outcome(client.signIn("t"));
        client.connect();
        const [socket] = sockets;
        await socket.open();
        const first = socket.sent.map(({ method, params }) => [method, params]);
        await socket.answer("public/auth", ALICE);
        await socket.answer("public/subscribe", ["trades.A/B"]);
        const before = client.state;
        await socket.answer("private/subscribe", ["account.orders"]);
        await socket.receive({ channel_name: "account.orders", notification: { orders: [], snapshot: true } });
        return { first, sent: socket.sent.map(({ method }) => method), before, after: client.state, signing, orders, got,
                 userId: client.userId };""",
    )
    assert seen["first"] == [["public/auth", {"token": "t"}]]
    assert seen["sent"] == ["public/auth", "public/subscribe", "private/subscribe"]
    assert (seen["before"], seen["after"]) == ("connecting", "live")
    assert seen["signing"] == {"done": True, "value": "alice"}
    assert seen["orders"] == {"done": True, "value": ["account.orders"]}
    assert seen["got"] == [{"orders": [], "snapshot": True}]
    assert seen["userId"] == "alice"


def test_client_asks_for_private_channels_once_somebody_signs_in(modules: Page) -> None:
    seen = run(
        modules,
        ALICE
        + """const { client, sockets } = setup();
        const orders = outcome(client.subscribe(["account.orders"], () => {}));
        client.subscribe(["trades.A/B"], () => {});
        client.connect();
        const [socket] = sockets;
        await socket.welcome();
        const anonymous = [client.state, orders.done, socket.sent.map(({ method }) => method)];
        client.signIn("t");
        await socket.answer("public/auth", ALICE);
        await socket.answer("private/subscribe", ["account.orders"]);
        return { anonymous, orders, sent: socket.sent.map(({ method }) => method), sockets: sockets.length };""",
    )
    assert seen["anonymous"] == ["live", False, ["public/subscribe"]]
    assert seen["orders"]["value"] == ["account.orders"]
    assert seen["sent"] == ["public/subscribe", "public/auth", "private/subscribe"]
    assert seen["sockets"] == 1


def test_client_signs_in_again_on_every_connection(modules: Page) -> None:
    seen = run(
        modules,
        ALICE
        + """const { client, clock, sockets, told } = await signedIn();
        client.subscribe(["account.orders"], () => {});
        await sockets[0].answer("private/subscribe", ["account.orders"]);
        await sockets[0].drop(1006);
        const away = client.userId;
        await clock.advance(100);
        await sockets[1].open();
        await sockets[1].answer("public/auth", ALICE);
        await sockets[1].answer("private/subscribe", ["account.orders"]);
        return { away, told, state: client.state, sent: sockets[1].sent.map(({ method, params }) => [method, params]) };""",
    )
    assert seen["away"] == "alice"
    assert seen["told"] == [["signed_in", "alice", None]] * 2
    assert seen["state"] == "live"
    assert seen["sent"] == [["public/auth", {"token": "t"}], ["private/subscribe", {"channels": ["account.orders"]}]]


def test_client_goes_on_as_nobody_when_its_token_is_refused(modules: Page) -> None:
    seen = run(
        modules,
        ALICE
        + """const { client, sockets } = setup();
        const told = [];
        client.on("auth", ({ status }) => told.push(status));
        client.subscribe(["trades.A/B"], () => {});
        const orders = outcome(client.subscribe(["account.orders"], () => {}));
        const signing = outcome(client.signIn("bad"));
        client.connect();
        const [socket] = sockets;
        await socket.open();
        await socket.refuse("public/auth", argument);
        await socket.answer("public/subscribe", ["trades.A/B"]);
        return { signing, orders, told, state: client.state, userId: client.userId,
                 sent: socket.sent.map(({ method }) => method) };""",
        REFUSED,
    )
    assert (seen["signing"]["code"], seen["signing"]["message"]) == (10000, "the token has expired")
    assert seen["orders"] == {"done": False}
    assert seen["told"] == []
    assert (seen["state"], seen["userId"]) == ("live", None)
    assert seen["sent"] == ["public/auth", "public/subscribe"]


def test_client_tells_when_a_token_that_was_good_is_refused_later(modules: Page) -> None:
    seen = run(
        modules,
        ALICE
        + """const { client, clock, sockets, told } = await signedIn();
        await sockets[0].drop(1006);
        await clock.advance(100);
        await sockets[1].open();
        await sockets[1].refuse("public/auth", argument);
        const state = client.state;
        await sockets[1].drop(1006);
        await clock.advance(1000);
        await sockets[2].open();
        return { told, state, sentLater: sockets[2].sent, userId: client.userId };""",
        REFUSED,
    )
    assert seen["told"] == [["signed_in", "alice", None], ["refused", None, 10000]]
    assert (seen["state"], seen["userId"], seen["sentLater"]) == ("live", None, [])


def test_client_keeps_who_was_signed_in_when_a_renewal_is_refused(modules: Page) -> None:
    seen = run(
        modules,
        ALICE
        + """const { client, clock, sockets, told } = await signedIn();
        const renewal = outcome(client.signIn("bad"));
        await sockets[0].refuse("public/auth", argument);
        const after = client.userId;
        const good = outcome(client.signIn("t2"));
        await sockets[0].answer("public/auth", ALICE);
        await sockets[0].drop(1006);
        await clock.advance(100);
        await sockets[1].open();
        return { renewal, after, good, told, again: sockets[1].sent[0].params };""",
        REFUSED,
    )
    assert seen["renewal"]["code"] == 10000
    assert seen["after"] == "alice"
    assert seen["good"]["value"] == "alice"
    assert seen["again"] == {"token": "t2"}


def test_client_signs_out_by_another_connection_that_knows_no_token(modules: Page) -> None:
    seen = run(
        modules,
        ALICE
        + """const { client, clock, sockets, told } = await signedIn();
        client.subscribe(["account.orders"], () => {});
        client.subscribe(["trades.A/B"], () => {});
        await sockets[0].answer("private/subscribe", ["account.orders"]);
        await sockets[0].answer("public/subscribe", ["trades.A/B"]);
        await sockets[0].receive({ channel_name: "trades.A/B", seq: 3, epoch: "e", notification: {} });
        client.signOut();
        const closed = sockets[0].readyState;
        await clock.advance(0);
        await sockets[1].welcome();
        return { closed, told, userId: client.userId, state: client.state,
                 sent: sockets[1].sent.map(({ method, params }) => [method, params]) };""",
    )
    assert seen["closed"] == 3
    assert seen["told"][-1] == ["signed_out", None, None]
    assert (seen["userId"], seen["state"]) == (None, "live")
    # Nothing public is lost by it.
    assert seen["sent"] == [
        ["public/subscribe", {"channels": ["trades.A/B"], "since": {"trades.A/B": {"epoch": "e", "seq": 3}}}]
    ]


def test_client_that_signs_out_while_it_is_signing_in_stays_nobody(modules: Page) -> None:
    seen = run(
        modules,
        ALICE
        + """const { client, clock, sockets } = setup();
        const told = [];
        client.on("auth", ({ status }) => told.push(status));
        client.connect();
        await sockets[0].open();
        const signing = outcome(client.signIn("t"));
        client.signOut();
        await sockets[0].answer("public/auth", ALICE);
        await clock.advance(0);
        await sockets[1].open();
        return { code: signing.code, told, userId: client.userId, sent: sockets[1].sent };""",
    )
    assert seen == {"code": "replaced", "told": ["signed_out"], "userId": None, "sent": []}


def test_client_tells_of_a_token_that_ran_out_and_takes_another_users(modules: Page) -> None:
    seen = run(
        modules,
        ALICE
        + """const { client, clock, sockets, told } = await signedIn();
        const statuses = [];
        client.on("status", (message) => statuses.push(message));
        client.subscribe(["account.orders"], () => {});
        await sockets[0].answer("private/subscribe", ["account.orders"]);
        await sockets[0].receive({ type: "auth_status", status: "expired" });
        const expired = [client.userId, client.state];
        const signing = outcome(client.signIn("t2"));
        await clock.advance(0);
        await sockets[1].open();
        await sockets[1].answer("public/auth", { user_id: "bob" });
        await sockets[1].answer("private/subscribe", ["account.orders"]);
        return { expired, told, statuses, signing, sent: sockets[1].sent.map(({ method, params }) => [method, params]) };""",
    )
    assert seen["expired"] == [None, "live"]
    assert seen["told"] == [["signed_in", "alice", None], ["expired", None, None], ["signed_in", "bob", None]]
    assert seen["statuses"] == [{"type": "auth_status", "status": "expired"}]
    assert seen["signing"]["value"] == "bob"
    assert seen["sent"] == [["public/auth", {"token": "t2"}], ["private/subscribe", {"channels": ["account.orders"]}]]


def test_client_asks_for_a_private_channel_again_when_the_token_ran_out_just_then(modules: Page) -> None:
    seen = run(
        modules,
        ALICE
        + """const { client, clock, sockets } = await signedIn();
        const refused = [];
        client.on("refused", ({ channel }) => refused.push(channel));
        const orders = outcome(client.subscribe(["account.orders"], () => {}));
        await sockets[0].refuse("private/subscribe", argument);
        await sockets[0].receive({ type: "auth_status", status: "expired" });
        client.signIn("t2");
        await clock.advance(0);
        await sockets[1].open();
        await sockets[1].answer("public/auth", ALICE);
        await sockets[1].answer("private/subscribe", ["account.orders"]);
        return { refused, orders };""",
        REFUSED,
    )
    assert seen == {"refused": [], "orders": {"done": True, "value": ["account.orders"]}}


def test_client_keeps_its_token_where_the_server_is_only_busy(modules: Page) -> None:
    seen = run(
        modules,
        ALICE
        + """const { client, clock, sockets, states } = setup();
        const signing = outcome(client.signIn("t"));
        client.connect();
        await sockets[0].open();
        await sockets[0].refuse("public/auth", { code: 10003, message: "too many requests" });
        const { state, reason } = states.at(-1);
        await clock.advance(1000);
        await sockets[1].open();
        await sockets[1].answer("public/auth", ALICE);
        return { state, reason, signing };""",
    )
    assert seen["state"] == "reconnecting"
    assert seen["reason"] == "the server is busy: too many requests"
    assert seen["signing"]["value"] == "alice"


@pytest.mark.parametrize("channels", [["account.orders", "trades.A/B"], ["events", "account.orders"]])
def test_client_takes_private_and_public_channels_only_apart(modules: Page, channels: list[str]) -> None:
    script = "try { setup().client.subscribe(argument, () => {}); } catch (error) { return error.name; }"
    assert run(modules, script, channels) == "TypeError"


def test_client_comes_back_for_a_private_channel_where_the_server_was_busy(modules: Page) -> None:
    seen = run(
        modules,
        ALICE
        + """const { client, clock, sockets } = setup();
        const orders = outcome(client.subscribe(["account.orders"], () => {}));
        client.connect();
        await sockets[0].open();
        client.signIn("t");
        await sockets[0].answer("public/auth", ALICE);
        await sockets[0].refuse("private/subscribe", { code: 10003, message: "too many requests" });
        const between = [client.state, client.userId];
        await clock.advance(1000);
        await sockets[1].open();
        await sockets[1].answer("public/auth", ALICE);
        await sockets[1].answer("private/subscribe", ["account.orders"]);
        return { between, orders, state: client.state };""",
    )
    assert seen["between"] == ["reconnecting", "alice"]
    assert seen["orders"]["value"] == ["account.orders"]
    assert seen["state"] == "live"


@pytest.mark.parametrize(
    ("meanwhile", "since"),
    [
        ("", {"account.trades": {"epoch": "e", "seq": {"0": 5}}}),
        ("client.signIn('of another');", None),
        ("client.signOut(); client.signIn('t');", None),
    ],
)
def test_client_resumes_a_users_own_trades_and_nobody_elses(
    modules: Page, meanwhile: str, since: dict[str, object] | None
) -> None:
    asked = run(
        modules,
        ALICE
        + """const { client, clock, sockets } = await signedIn();
        client.subscribe(["account.trades"], () => {});
        await sockets[0].answer("private/subscribe", ["account.trades"]);
        const told = { channel_name: "account.trades", notification: { trades: [] } };
        await sockets[0].receive({ ...told, seq: { 0: 4 }, epoch: "e" });
        await sockets[0].receive({ ...told, seq: { 0: 5 } });
        await sockets[0].drop(1006);
        MEANWHILE
        await clock.advance(100);
        const socket = sockets.at(-1);
        await socket.open();
        const { token } = socket.asked("public/auth")[0].params;
        await socket.answer("public/auth", { ...ALICE, user_id: token === "t" ? "alice" : "bob" });
        return socket.asked("private/subscribe")[0].params;""".replace("MEANWHILE", meanwhile),
    )
    assert asked == {"channels": ["account.trades"]} | ({} if since is None else {"since": since})
