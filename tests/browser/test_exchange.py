"""What the client for JavaScript does with time and tokens, where no scene can tell: its clock and network are the tests'."""

from __future__ import annotations

from typing import Any

import pytest
from playwright.sync_api import Page

from tests.browser.conftest import run as run_in

BOOK = "book.A/B.none.10.100ms"
START = """
  const { FakeClock, FakeSocket } = await import("/harness.js");
  const { Exchange, OutcomeUnknown, decimal } = await import("/console/client/index.js");
  const clock = new FakeClock();
  const sockets = [];
  class Socket extends FakeSocket {
    constructor(url) { super(url); sockets.push(this); }
  }
  const make = (options = {}) => new Exchange("http://gateway.test", { clock, WebSocket: Socket, random: () => 0, now: () => 1000, ...options });
  const signed = async (socket) => {
    await socket.open();
    await socket.answer("public/auth", { user_id: "alice" });
  };
  // A token that ends at so many seconds since the epoch.
  const jwt = (exp) => `h.${btoa(JSON.stringify({ exp }))}.s`;
"""


def run(page: Page, body: str) -> Any:
    return run_in(page, START + body)


def test_token_is_asked_for_again_a_minute_before_it_ends_and_handed_over_on_the_open_connection(modules: Page) -> None:
    seen = run(
        modules,
        """let asked = 0;
        const exchange = make({ token: async () => jwt(601 + 600 * asked++), quietMs: 1e6 });
        const opened = outcome(exchange.connect());
        await settle();
        await signed(sockets[0]);
        await clock.advance(539_999);
        const before = asked;
        await clock.advance(1);
        const handed = sockets[0].asked("public/auth").at(-1).params.token === jwt(1201);
        exchange.close();
        return { opened: opened.done, before, after: asked, handed, connections: sockets.length };""",
    )
    assert seen == {"opened": True, "before": 1, "after": 2, "handed": True, "connections": 1}


def test_who_gives_tokens_is_asked_again_when_that_failed(modules: Page) -> None:
    seen = run(
        modules,
        """let asked = 0;
        const exchange = make({ token: () => { asked += 1; if (asked < 3) throw new Error("no"); return "t"; } });
        const opened = outcome(exchange.connect());
        await settle();
        await sockets[0].open();
        await clock.advance(1000);
        await sockets[0].answer("public/auth", { user_id: "alice" });
        exchange.close();
        return [asked, opened.code ?? null, opened.done];""",
    )
    assert seen == [3, None, True]


def test_private_stream_ends_with_the_refusal_of_a_token(modules: Page) -> None:
    seen = run(
        modules,
        """const exchange = make({ token: "bad" });
        const opened = outcome(exchange.connect());
        const next = outcome(exchange.orders().next());
        await settle();
        await sockets[0].open();
        await sockets[0].refuse("public/auth", { code: 10000, message: "the token has ended" });
        const later = outcome(exchange.fills().next());
        await settle();
        exchange.close();
        return [opened, next, later].map(({ code }) => code);""",
    )
    assert seen == [10000] * 3


def test_private_stream_without_a_token_is_refused(modules: Page) -> None:
    seen = run(
        modules,
        """const exchange = make();
        const next = outcome(exchange.orders().next());
        await settle();
        exchange.close();
        return next.code;""",
    )
    assert seen == 10000


def test_order_without_a_connection_in_time_was_certainly_not_sent(modules: Page) -> None:
    seen = run(
        modules,
        """const exchange = make({ token: "t", timeoutMs: 500 });
        outcome(exchange.connect());
        const placed = outcome(exchange.place({ symbol: "A/B", side: "bid", quantity: "1", price: "2" }));
        await clock.advance(499);
        const early = placed.done;
        await clock.advance(1);
        exchange.close();
        return [early, placed.code];""",
    )
    assert seen == [False, "disconnected"]


def test_order_without_an_answer_in_time_is_unknown_under_its_name(modules: Page) -> None:
    seen = run(
        modules,
        """const exchange = make({ token: "t" });
        outcome(exchange.connect());
        await settle();
        await signed(sockets[0]);
        const failed = exchange.place({ symbol: "A/B", side: "bid", quantity: "1", client_order_id: "mine" }, { withinMs: 300 })
          .catch((error) => error);
        await settle();
        await clock.advance(300);
        const error = await failed;
        exchange.close();
        return [error instanceof OutcomeUnknown, error.name, error.clientOrderId, sockets[0].asked("private/place_order").length];""",
    )
    assert seen == [True, "OutcomeUnknown", "mine", 1]


def test_certain_failure_is_sent_again_after_the_time_that_the_gateway_names(modules: Page) -> None:
    seen = run(
        modules,
        """const exchange = make({ token: "t" });
        outcome(exchange.connect());
        await settle();
        await signed(sockets[0]);
        const placed = outcome(exchange.place({ symbol: "A/B", side: "bid", quantity: "1" }));
        await settle();
        await sockets[0].refuse("private/place_order", { code: 10003, message: "too many", data: { retry_after: 2 } });
        await clock.advance(1999);
        const early = sockets[0].asked("private/place_order").length;
        await clock.advance(1000);
        const [first, second] = sockets[0].asked("private/place_order").map(({ params }) => params);
        await sockets[0].answer("private/place_order", { order_id: "o-1" });
        exchange.close();
        return [early, first.client_order_id === second.client_order_id, placed.value.order_id];""",
    )
    assert seen == [1, True, "o-1"]


@pytest.mark.parametrize(
    ("given", "sent"),
    [
        ("'0.10'", "0.10"),
        ("2", "2"),
        ("12345678901234567890n", "12345678901234567890"),
        ("decimal.parse('1.500')", "1.500"),
        ("0.1", "TypeError"),
        ("1e300", "TypeError"),
        ("NaN", "TypeError"),
    ],
)
@pytest.mark.parametrize("member", ["price", "quantity", "iceberg"])
def test_decimal_is_sent_as_it_was_meant_or_not_at_all(modules: Page, member: str, given: str, sent: str) -> None:
    seen = run(
        modules,
        f"""const exchange = make({{ token: "t" }});
        outcome(exchange.connect());
        await settle();
        await signed(sockets[0]);
        const refused = exchange.place({{ symbol: "A/B", side: "bid", quantity: "1", {member}: {given} }}).catch((error) => error.name);
        await settle();
        const [order] = sockets[0].asked("private/place_order");
        exchange.close();
        return order ? String(order.params.{member}) : await refused;""",
    )
    assert seen == sent


SNAPSHOT = f"""{{ channel_name: "{BOOK}", seq: 1, epoch: "e", notification:
  {{ snapshot: true, trades: [], bid_changes: [["1.5", 0, 2]], ask_changes: [], time: 1, total_bid_amount: 2, total_ask_amount: 0 }} }}"""


def test_book_that_was_not_heard_of_for_ten_seconds_is_stale_and_asked_for_anew(modules: Page) -> None:
    seen = run(
        modules,
        f"""const exchange = make();
        outcome(exchange.connect());
        const book = exchange.book("A/B");
        await sockets[0].welcome();
        await sockets[0].receive({SNAPSHOT});
        await book.changed();
        const fresh = [book.stale, book.bestBid];
        for (let at = 0; at < 10; at += 1) {{
          await clock.advance(1000);
          await sockets[0].receive({{}});
        }}
        const still = book.stale;
        const changed = outcome(book.changed());
        await clock.advance(1);
        exchange.close();
        return {{ fresh, still, stale: book.stale, told: changed.done, mended: book.mended, left: sockets[0].asked("unsubscribe").length }};""",
    )
    level = {"price": "1.5", "quantity": "2"}
    assert seen == {"fresh": [False, level], "still": False, "stale": True, "told": True, "mended": 1, "left": 1}


def test_stream_is_joined_again_when_the_refusal_has_passed(modules: Page) -> None:
    seen = run(
        modules,
        """const exchange = make();
        outcome(exchange.connect());
        await sockets[0].welcome();
        const next = outcome(exchange.trades("A/B").next());
        await sockets[0].refuse("public/subscribe", { code: 10004, message: "the bus cannot be reached", data: { retry_after: 3 } });
        await clock.advance(2999);
        const early = sockets[0].asked("public/subscribe").length;
        await clock.advance(1);
        await sockets[0].answer("public/subscribe", ["trades.A/B"]);
        const notification = { trades: [[0.5, 2, "buy", 3.25, false, "0-7"]], snapshot: true };
        await sockets[0].receive({ channel_name: "trades.A/B", seq: 7, epoch: "e", notification });
        exchange.close();
        return [early, next.value.value];""",
    )
    trade = {"symbol": "A/B", "price": "0.5", "quantity": "2", "side": "buy", "time": "3.25", "trade_id": "0-7"}
    assert seen == [1, trade]


def test_position_is_that_of_what_was_handed_out(modules: Page) -> None:
    seen = run(
        modules,
        """const exchange = make();
        outcome(exchange.connect());
        const trades = exchange.trades("A/B", { since: { epoch: "e", seq: 5 } });
        await sockets[0].welcome();
        const asked = sockets[0].asked("public/subscribe")[0].params.since;
        const list = ["0-6", "0-8"].map((id) => [1, 1, "buy", 3, false, id]);
        await sockets[0].receive({ channel_name: "trades.A/B", seq: 9, epoch: "e", recovered: true, notification: { trades: list } });
        const positions = [trades.position];
        for (let at = 0; at < 2; at += 1) {
          await trades.next();
          positions.push(trades.position);
        }
        exchange.close();
        return [asked, positions.map(({ seq }) => seq), (await trades.next()).done];""",
    )
    assert seen == [{"trades.A/B": {"epoch": "e", "seq": 5}}, [5, 6, 9], True]


def test_channel_that_is_wanted_while_a_connection_begins_is_asked_for_once(modules: Page) -> None:
    seen = run(
        modules,
        """const exchange = make({ token: "t" });
        outcome(exchange.connect());
        const before = outcome(exchange.ticker("A/B").next());
        await settle();
        await sockets[0].open();
        const meanwhile = outcome(exchange.trades("C/D").next());
        await settle();
        await sockets[0].answer("public/auth", { user_id: "alice" });
        const asked = sockets[0].asked("public/subscribe").map(({ params }) => params.channels);
        await sockets[0].receive({ id: 2, error: { code: -32602, message: "not listed" } });
        exchange.close();
        return [asked, before.done, meanwhile.code];""",
    )
    assert seen == [[["trades.C/D"], ["ticker.A/B.1000ms"]], False, -32602]


def test_channel_is_listened_to_by_one_stream_at_a_time(modules: Page) -> None:
    seen = run(
        modules,
        """const exchange = make();
        exchange.trades("A/B").close();
        exchange.trades("A/B");
        let refused = "";
        try { exchange.trades("A/B"); } catch (error) { refused = error.name; }
        exchange.close();
        return refused;""",
    )
    assert seen == "TypeError"


def test_what_was_under_way_when_a_channel_was_left_is_not_told_to_who_joins_it_next(modules: Page) -> None:
    seen = run(
        modules,
        """const exchange = make();
        outcome(exchange.connect());
        await sockets[0].welcome();
        const first = exchange.trades("A/B");
        await sockets[0].answer("public/subscribe", ["trades.A/B"]);
        first.close();
        const next = outcome(exchange.trades("A/B").next());
        const told = (id) => ({ trades: [[1, 1, "buy", 3, false, id]] });
        await sockets[0].receive({ channel_name: "trades.A/B", seq: 8, prev_seq: 7, notification: told("0-8") });
        await sockets[0].answer("unsubscribe", ["trades.A/B"]);
        await sockets[0].answer("public/subscribe", ["trades.A/B"]);
        await sockets[0].receive({ channel_name: "trades.A/B", seq: 9, epoch: "e", notification: { ...told("0-9"), snapshot: true } });
        exchange.close();
        return next.value.value.trade_id;""",
    )
    assert seen == "0-9"


def test_order_of_a_closed_exchange_is_certainly_not_there_and_told_at_once(modules: Page) -> None:
    seen = run(
        modules,
        """const exchange = make({ token: "t" });
        outcome(exchange.connect());
        await settle();
        await signed(sockets[0]);
        const under = outcome(exchange.place({ symbol: "A/B", side: "bid", quantity: "1" }));
        await settle();
        exchange.close();
        const behind = outcome(exchange.place({ symbol: "A/B", side: "bid", quantity: "1" }));
        await settle();
        const failed = await exchange.place({ symbol: "A/B", side: "bid", quantity: "1" }).catch((error) => error.constructor.name);
        return [under.done, under.code, behind.done, behind.code, failed, sockets.length];""",
    )
    assert seen == [True, "closed", True, "disconnected", "ConnectionLost", 1]


def test_book_of_a_connection_that_ended_before_all_was_asked_for_is_stale(modules: Page) -> None:
    seen = run(
        modules,
        f"""const exchange = make({{ token: "t" }});
        const book = exchange.book("A/B");
        const orders = exchange.orders();
        outcome(exchange.connect());
        await settle();
        await signed(sockets[0]);
        await sockets[0].answer("public/subscribe", ["{BOOK}"]);
        await sockets[0].receive({SNAPSHOT});
        const fresh = [exchange.client.state, book.stale];
        await sockets[0].drop();
        const after = book.stale;
        exchange.close();
        return [fresh, after];""",
    )
    assert seen == [["connecting", False], True]


@pytest.mark.parametrize(
    "asked", ["exchange.trades('A/B')", "exchange.client.signIn('t', { renews: true }).catch(() => {})"]
)
def test_connection_that_does_not_answer_what_it_is_of_no_use_without_is_given_up(modules: Page, asked: str) -> None:
    seen = run(
        modules,
        f"""const exchange = make({{ quietMs: 1e6, timeoutMs: 3000 }});
        outcome(exchange.connect());
        await settle();
        await sockets[0].open();
        {asked};
        await clock.advance(2999);
        const early = sockets.length;
        await clock.advance(1);
        exchange.close();
        return [early, sockets.length];""",
    )
    assert seen == [1, 2]


def test_exchange_that_is_opened_again_asks_for_a_token_again(modules: Page) -> None:
    seen = run(
        modules,
        """let asked = 0;
        const exchange = make({ token: () => { asked += 1; return jwt(601); }, quietMs: 1e6 });
        outcome(exchange.connect());
        await settle();
        await signed(sockets[0]);
        exchange.close();
        const opened = outcome(exchange.connect());
        await settle();
        await signed(sockets[1]);
        const before = asked;
        await clock.advance(540_000);
        exchange.close();
        return [opened.done, before, asked];""",
    )
    assert seen == [True, 2, 3]


def test_token_that_is_over_by_a_wrong_clock_is_not_asked_for_again_and_again(modules: Page) -> None:
    seen = run(
        modules,
        """let asked = 0;
        const exchange = make({ token: () => { asked += 1; return jwt(1); }, quietMs: 1e9, now: () => 9e6 });
        outcome(exchange.connect());
        await settle();
        await signed(sockets[0]);
        await clock.advance(60_000);
        exchange.close();
        return asked;""",
    )
    assert seen == 1


def test_question_refused_for_its_token_is_asked_once_more_with_another(modules: Page) -> None:
    seen = run(
        modules,
        """let given = 0;
        const bearers = [];
        const exchange = make({
          token: () => `t${given += 1}`,
          fetch: async (_, { headers }) => {
            bearers.push(headers.authorization);
            const status = bearers.length === 1 ? 401 : 200;
            return new Response(status === 200 ? '{"orders": []}' : "{}", { status });
          },
        });
        return [await exchange.openOrders(), await exchange.openOrders(), bearers];""",
    )
    assert seen == [[], [], ["Bearer t1", "Bearer t2", "Bearer t2"]]


def test_only_the_largest_of_the_messages_that_were_not_answered_is_too_big(modules: Page) -> None:
    seen = run(
        modules,
        """const exchange = make();
        outcome(exchange.connect());
        await sockets[0].welcome();
        const sent = [1, 1000, 2].map((size) => outcome(exchange.client.request("m", { n: "x".repeat(size) })));
        await settle();
        await sockets[0].drop(1009);
        exchange.close();
        return sent.map(({ code }) => code);""",
    )
    assert seen == ["disconnected", 1009, "disconnected"]
