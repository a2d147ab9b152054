"""`gateway-client.js` in Chromium, with time, chance and the network in the test's hands (`harness.js`)."""

from __future__ import annotations

import pytest
from playwright.sync_api import Page

from tests.browser.conftest import run


def test_backoff_is_full_jitter_below_a_doubling_ceiling(modules: Page) -> None:
    waits = run(
        modules,
        """const bounds = { backoffBaseMs: 250, backoffCapMs: 10000 };
        const ceilings = Array.from({ length: 8 }, (_, attempt) => backoffMs(attempt, bounds, () => 1));
        return { ceilings, least: backoffMs(5, bounds, () => 0), half: backoffMs(2, bounds, () => 0.5),
                 late: backoffMs(5000, bounds, () => 1) };""",
    )
    assert waits["ceilings"] == [250, 500, 1000, 2000, 4000, 8000, 10000, 10000]
    assert waits["least"] == 0
    assert waits["half"] == 500
    assert waits["late"] == 10000


def test_client_starts_silent_unless_the_default_stream_is_wanted(modules: Page) -> None:
    urls = run(
        modules,
        """return [{}, { defaultStream: true }].map((options) => {
          const { client, sockets } = setup(options);
          client.connect();
          return sockets[0].url;
        });""",
    )
    assert urls == ["ws://gateway.test/ws?stream=none", "ws://gateway.test/ws"]


def test_client_hands_on_every_event_of_the_default_stream(modules: Page) -> None:
    events = run(
        modules,
        """const { client, sockets } = setup({ defaultStream: true });
        const seen = [];
        client.on("event", (event) => seen.push(event.type));
        client.connect();
        await sockets[0].open();
        await sockets[0].receive({ type: "orderbook_snapshot", symbol: "A/B", bids: [], asks: [] });
        await sockets[0].receive({ type: "fill", symbol: "A/B" });
        return [client.state, seen, sockets[0].sent];""",
    )
    assert events == ["live", ["orderbook_snapshot", "fill"], []]


def test_client_is_live_once_its_subscriptions_are_agreed_to(modules: Page) -> None:
    seen = run(
        modules,
        """const { client, sockets, states } = setup();
        const got = [];
        const answer = outcome(client.subscribe(["events.A/B"], (notification, meta) => got.push([notification, meta])));
        client.connect();
        await sockets[0].open();
        const before = client.state;
        await sockets[0].answer("public/subscribe", ["events.A/B"]);
        await sockets[0].receive({ channel_name: "events.A/B", seq: 7, epoch: "e", notification: { event: { n: 1 } } });
        await sockets[0].receive({ channel_name: "events.C/D", seq: 8, notification: {} });
        return { before, states: states.map(({ state }) => state), got, answer };""",
    )
    assert seen["before"] == "connecting"
    assert seen["states"] == ["connecting", "live"]
    [[notification, meta]] = seen["got"]
    assert notification == {"event": {"n": 1}}
    assert (meta["channel"], meta["seq"], meta["epoch"]) == ("events.A/B", 7, "e")
    assert seen["answer"] == {"done": True, "value": ["events.A/B"]}


def test_client_subscribes_again_after_it_reconnects(modules: Page) -> None:
    seen = run(
        modules,
        """const { client, clock, sockets, states } = setup();
        const got = [];
        client.subscribe(["events"], (notification) => got.push(notification));
        client.connect();
        await sockets[0].welcome();
        await sockets[0].drop(1006);
        await clock.advance(49);
        const early = sockets.length;
        await clock.advance(2);
        await sockets[1].welcome();
        await sockets[1].receive({ channel_name: "events", seq: 1, partition: 0, notification: "again" });
        return { early, states, got, asked: sockets[1].asked("public/subscribe").map(({ params }) => params) };""",
    )
    assert seen["early"] == 1
    assert [change["state"] for change in seen["states"]] == [
        "connecting",
        "live",
        "reconnecting",
        "reconnecting",
        "live",
    ]
    assert seen["states"][2] == {"state": "reconnecting", "reason": "the connection was lost", "retryInMs": 50}
    assert seen["asked"] == [{"channels": ["events"]}]
    assert seen["got"] == ["again"]


def test_client_waits_longer_after_each_failure_until_a_connection_was_stable(modules: Page) -> None:
    waits = run(
        modules,
        """const { client, clock, sockets, states } = setup();
        const lastWait = () => states.findLast(({ state, retryInMs }) => state === "reconnecting" && retryInMs).retryInMs;
        const waits = [];
        client.connect();
        for (let failure = 0; failure < 6; failure += 1) {
          await sockets.at(-1).drop(1006);
          waits.push(lastWait());
          await clock.advance(lastWait());
        }
        await sockets.at(-1).welcome();
        await clock.advance(4000);
        await sockets.at(-1).drop(1006);
        const afterShortLife = lastWait();
        await clock.advance(afterShortLife);
        await sockets.at(-1).welcome();
        await clock.advance(5000);
        await sockets.at(-1).drop(1006);
        return { waits, afterShortLife, afterStable: lastWait() };""",
    )
    assert waits["waits"] == [50, 100, 200, 400, 500, 500]
    assert waits["afterShortLife"] == 500
    assert waits["afterStable"] == 50


def test_client_comes_back_quickly_once_when_told_that_the_server_goes_away(modules: Page) -> None:
    waits = run(
        modules,
        """const { client, clock, sockets, states } = setup({ backoffBaseMs: 1000, backoffCapMs: 8000 });
        client.connect();
        await sockets[0].welcome();
        await clock.advance(6000);
        await sockets[0].drop(1001, "reconnect");
        const first = states.at(-1);
        await clock.advance(first.retryInMs);
        await sockets[1].welcome();
        await sockets[1].drop(1001, "reconnect");
        return [first, states.at(-1)];""",
    )
    assert waits[0] == {"state": "reconnecting", "reason": "the server is restarting", "retryInMs": 20}
    assert waits[1]["retryInMs"] == 1000


def test_client_waits_long_after_a_close_for_flooding(modules: Page) -> None:
    wait = run(
        modules,
        """const { client, sockets, states } = setup({ backoffCapMs: 60000 });
        client.connect();
        await sockets[0].welcome();
        await sockets[0].drop(1008, "flood");
        return states.at(-1).retryInMs;""",
    )
    assert wait == 0.5 * 100 * 2**5


def test_client_tries_at_once_when_asked_to(modules: Page) -> None:
    counts = run(
        modules,
        """const { client, clock, sockets } = setup();
        client.connect();
        await sockets[0].drop(1006);
        client.reconnectNow();
        client.reconnectNow();
        const made = sockets.length;
        await sockets[1].welcome();
        await clock.advance(1000);
        return [made, sockets.length, client.state];""",
    )
    assert counts == [2, 2, "live"]


def test_request_settles_with_what_the_server_says(modules: Page) -> None:
    seen = run(
        modules,
        """const { client, sockets } = setup();
        client.connect();
        await sockets[0].open();
        const instruments = outcome(client.request("public/instruments"));
        const order = outcome(client.request("private/place_order", { side: "up" }));
        await sockets[0].refuse("private/place_order", { code: -32602, message: "bad", data: { errors: [] } });
        await sockets[0].answer("public/instruments", { instruments: [] });
        return { instruments, order, sent: sockets[0].sent };""",
    )
    assert seen["instruments"] == {"done": True, "value": {"instruments": []}}
    assert seen["order"] == {"done": True, "code": -32602, "message": "bad", "data": {"errors": []}}
    assert seen["sent"][1] == {"id": 2, "method": "private/place_order", "params": {"side": "up"}}


def test_request_fails_by_time_and_by_loss(modules: Page) -> None:
    seen = run(
        modules,
        """const { client, clock, sockets } = setup();
        const offline = outcome(client.request("public/ping"));
        client.connect();
        await sockets[0].open();
        const slow = outcome(client.request("public/ping"));
        await clock.advance(2999);
        const early = { ...slow };
        await clock.advance(1);
        const lost = outcome(client.request("public/ping"));
        await sockets[0].drop(1006);
        return [offline.code, early.done, slow.code, lost.code];""",
    )
    assert seen == ["disconnected", False, "timeout", "disconnected"]


def test_client_gives_up_a_connection_that_died_silently(modules: Page) -> None:
    seen = run(
        modules,
        """const { client, clock, sockets, states } = setup();
        client.connect();
        await sockets[0].open();
        await clock.advance(7999);
        const before = sockets[0].asked("public/ping").length;
        await clock.advance(1);
        const asked = sockets[0].asked("public/ping").length;
        await clock.advance(3999);
        const still = client.state;
        await clock.advance(1);
        return { before, asked, still, last: states.at(-1), closed: sockets[0].readyState };""",
    )
    assert (seen["before"], seen["asked"], seen["still"]) == (0, 1, "live")
    assert (seen["last"]["state"], seen["last"]["reason"]) == ("reconnecting", "nothing was heard any more")
    assert seen["closed"] == 3


@pytest.mark.parametrize("sign_of_life", ["pong", "notification"])
def test_client_keeps_a_connection_that_answers_or_talks(modules: Page, sign_of_life: str) -> None:
    seen = run(
        modules,
        """const { client, clock, sockets } = setup();
        client.connect();
        await sockets[0].open();
        for (let round = 1; round <= 3; round += 1) {
          while (sockets[0].asked("public/ping").length < round) await clock.advance(500);
          if (argument === "pong") await sockets[0].answer("public/ping", "pong");
          else await sockets[0].receive({ channel_name: "events", seq: round, notification: {} });
        }
        await clock.advance(4000);
        return [client.state, sockets.length];""",
        sign_of_life,
    )
    assert seen == ["live", 1]


def test_client_asks_no_ping_while_news_comes(modules: Page) -> None:
    asked = run(
        modules,
        """const { client, clock, sockets } = setup();
        client.connect();
        await sockets[0].open();
        for (let second = 0; second < 60; second += 1) {
          await clock.advance(1000);
          await sockets[0].receive({ channel_name: "events", seq: second, notification: {} });
        }
        return sockets[0].sent.length;""",
    )
    assert asked == 0


def test_client_gives_up_a_server_that_does_not_answer_the_upgrade(modules: Page) -> None:
    seen = run(
        modules,
        """const { client, clock, sockets, states } = setup();
        client.connect();
        await clock.advance(2000);
        return [states.at(-1).state, states.at(-1).reason, sockets[0].readyState];""",
    )
    assert seen == ["reconnecting", "the server did not answer", 3]


def test_client_hears_nothing_from_a_socket_it_gave_up(modules: Page) -> None:
    seen = run(
        modules,
        """const { client, clock, sockets } = setup();
        const got = [];
        client.subscribe(["events"], (notification) => got.push(notification));
        client.connect();
        const handlers = { ...sockets[0] };
        await clock.advance(2000);
        await clock.advance(100);
        await sockets[1].welcome();
        handlers.onmessage({ data: '{"channel_name": "events", "seq": 1, "notification": "late"}' });
        handlers.onclose({ code: 1006 });
        await settle();
        return [got, client.state, sockets.length];""",
    )
    assert seen == [[], "live", 2]


def test_subscribe_rejects_what_the_server_refuses_and_forgets_it(modules: Page) -> None:
    seen = run(
        modules,
        """const { client, clock, sockets } = setup();
        client.subscribe(["events.A/B"], () => {});
        client.connect();
        await sockets[0].welcome();
        const refused = outcome(client.subscribe(["events.NO/NO"], () => {}));
        await sockets[0].refuse("public/subscribe", { code: -32602, message: "no such symbol" });
        await sockets[0].drop(1006);
        await clock.advance(100);
        await sockets[1].open();
        return [refused, sockets[1].sent[0].params.channels];""",
    )
    assert (seen[0]["code"], seen[0]["message"]) == (-32602, "no such symbol")
    assert seen[1] == ["events.A/B"]


def test_client_keeps_its_other_channels_when_one_is_refused_after_reconnecting(modules: Page) -> None:
    seen = run(
        modules,
        """const { client, sockets } = setup();
        const refused = [];
        client.on("refused", ({ channel }) => refused.push(channel));
        const good = outcome(client.subscribe(["events.A/B"], () => {}));
        const bad = outcome(client.subscribe(["events.NO/NO"], () => {}));
        client.connect();
        await sockets[0].open();
        const no = { code: -32602, message: "no" };
        await sockets[0].refuse("public/subscribe", no);
        await sockets[0].answer("public/subscribe", ["events.A/B"]);
        await sockets[0].refuse("public/subscribe", no);
        await sockets[0].answer("unsubscribe", []);
        return { asked: sockets[0].sent.map(({ params }) => params.channels), refused, good, bad: bad.code,
                 state: client.state };""",
    )
    assert seen["asked"] == [["events.A/B", "events.NO/NO"], ["events.A/B"], ["events.NO/NO"], ["events.NO/NO"]]
    assert seen["refused"] == ["events.NO/NO"]
    assert seen["good"] == {"done": True, "value": ["events.A/B"]}
    assert seen["bad"] == -32602
    assert seen["state"] == "live"


def test_subscribe_that_lost_its_answer_is_answered_by_the_next_connection(modules: Page) -> None:
    seen = run(
        modules,
        """const { client, clock, sockets } = setup();
        client.connect();
        await sockets[0].welcome();
        const answer = outcome(client.subscribe(["events"], () => {}));
        await sockets[0].drop(1006);
        const between = answer.done;
        await clock.advance(100);
        await sockets[1].welcome();
        return [between, answer];""",
    )
    assert seen == [False, {"done": True, "value": ["events"]}]


def test_unsubscribe_drops_a_channel_with_its_last_listener(modules: Page) -> None:
    seen = run(
        modules,
        """const { client, clock, sockets } = setup();
        const got = [];
        const first = (notification) => got.push(["first", notification]);
        const second = (notification) => got.push(["second", notification]);
        client.subscribe(["events"], first);
        client.subscribe(["events"], second);
        client.connect();
        await sockets[0].welcome();
        await client.unsubscribe(["events"], first);
        const kept = sockets[0].asked("unsubscribe").length;
        await sockets[0].receive({ channel_name: "events", seq: 1, notification: 1 });
        const dropping = outcome(client.unsubscribe(["events"], second));
        await sockets[0].answer("unsubscribe", ["events"]);
        await sockets[0].receive({ channel_name: "events", seq: 2, notification: 2 });
        await sockets[0].drop(1006);
        await clock.advance(100);
        await sockets[1].open();
        return { kept, got, dropping, again: sockets[1].sent };""",
    )
    assert seen["kept"] == 0
    assert seen["got"] == [["second", 1]]
    assert seen["dropping"] == {"done": True, "value": ["events"]}
    assert seen["again"] == []


def test_close_ends_it_for_good(modules: Page) -> None:
    seen = run(
        modules,
        """const { client, clock, sockets, states } = setup();
        client.connect();
        await sockets[0].open();
        const waiting = outcome(client.request("public/ping"));
        client.close();
        await clock.advance(60000);
        return [states.map(({ state }) => state), waiting.code, sockets.length];""",
    )
    assert seen == [["connecting", "live", "closed"], "closed", 1]


def test_notification_keeps_the_digits_of_its_numbers(modules: Page) -> None:
    changes = run(
        modules,
        """const { client, sockets } = setup();
        const got = [];
        client.subscribe(["book"], (notification) => got.push(...notification.bid_changes.flat()));
        client.connect();
        await sockets[0].welcome();
        await sockets[0].receive(
          '{"channel_name": "book", "seq": 1, "notification": {"bid_changes": [[25.10, 0, 0.123456789012345678901]]}}');
        return got.map(String);""",
    )
    assert changes == ["25.10", "0", "0.123456789012345678901"]


def test_client_resumes_lossless_channels_where_they_were(modules: Page) -> None:
    seen = run(
        modules,
        """const { client, clock, sockets } = setup();
        const told = [];
        const channels = ["events", "events.A/B", "trades.A/B", "book.A/B.none.10.100ms", "trades.C/D"];
        client.subscribe(channels, (_, meta) => told.push([meta.channel, meta.recovered]));
        client.connect();
        await sockets[0].welcome();
        await sockets[0].receive({ channel_name: "events", seq: 4, partition: 0, epoch: "e1", notification: {} });
        await sockets[0].receive({ channel_name: "events", seq: 9, partition: 2, notification: {} });
        await sockets[0].receive({ channel_name: "events", seq: 5, partition: 0, notification: {} });
        await sockets[0].receive({ channel_name: "events.A/B", seq: 12, epoch: "e1", notification: {} });
        await sockets[0].receive({ channel_name: "trades.A/B", seq: 3, epoch: "e1", notification: {} });
        await sockets[0].receive({ channel_name: "trades.A/B", seq: 11, notification: {} });
        await sockets[0].receive({ channel_name: channels[3], seq: 12, epoch: "e1", notification: {} });
        await sockets[0].drop(1006);
        await clock.advance(100);
        await sockets[1].welcome();
        told.length = 0;
        await sockets[1].receive({ channel_name: "trades.A/B", seq: 13, epoch: "e1", recovered: true, notification: {} });
        await sockets[1].receive({ channel_name: "trades.A/B", seq: 14, notification: {} });
        await sockets[1].receive({ channel_name: "events.A/B", seq: 14, epoch: "e1", recovered: false, notification: {} });
        await sockets[1].receive({ channel_name: channels[3], seq: 14, epoch: "e1", notification: {} });
        return { params: sockets[1].asked("public/subscribe")[0].params, told };""",
    )
    book = "book.A/B.none.10.100ms"
    assert seen["params"] == {
        "channels": ["events", "events.A/B", "trades.A/B", book, "trades.C/D"],
        "since": {
            "events": {"epoch": "e1", "seq": {"0": 5, "2": 9}},
            "events.A/B": {"epoch": "e1", "seq": 12},
            "trades.A/B": {"epoch": "e1", "seq": 11},
        },
    }
    assert seen["told"] == [["trades.A/B", True], ["trades.A/B", None], ["events.A/B", False], [book, None]]


def test_client_forgets_what_it_counted_in_another_life_of_the_topic(modules: Page) -> None:
    since = run(
        modules,
        """const { client, clock, sockets } = setup();
        client.subscribe(["events", "trades.A/B"], () => {});
        client.connect();
        await sockets[0].welcome();
        await sockets[0].receive({ channel_name: "events", seq: 900, partition: 0, epoch: "e1", notification: {} });
        await sockets[0].receive({ channel_name: "events", seq: 800, partition: 1, notification: {} });
        await sockets[0].receive({ channel_name: "trades.A/B", seq: 900, epoch: "e1", notification: {} });
        const told = { epoch: "e2", recovered: false, notification: {} };
        await sockets[0].receive({ channel_name: "events", seq: 7, partition: 1, ...told });
        await sockets[0].receive({ channel_name: "trades.A/B", seq: 7, ...told });
        await sockets[0].drop(1006);
        await clock.advance(100);
        await sockets[1].open();
        return sockets[1].sent[0].params.since;""",
    )
    assert since == {"events": {"epoch": "e2", "seq": {"1": 7}}, "trades.A/B": {"epoch": "e2", "seq": 7}}


def test_client_says_that_nothing_was_recovered_where_it_had_nothing_to_resume_from(modules: Page) -> None:
    seen = run(
        modules,
        """const { client, clock, sockets } = setup();
        const recovered = [];
        client.subscribe(["trades.A/B"], (_, meta) => recovered.push(meta.recovered));
        client.connect();
        await sockets[0].welcome();
        await sockets[0].drop(1006);
        await clock.advance(100);
        await sockets[1].welcome();
        await sockets[1].receive({ channel_name: "trades.A/B", seq: 1, epoch: "e", notification: { snapshot: true } });
        await sockets[1].receive({ channel_name: "trades.A/B", seq: 2, notification: {} });
        return [sockets[1].sent[0].params, recovered];""",
    )
    assert seen == [{"channels": ["trades.A/B"]}, [False, None]]


def test_client_asks_for_fresh_snapshots_of_what_it_wants_only(modules: Page) -> None:
    seen = run(
        modules,
        """const { client, sockets } = setup();
        client.subscribe(["trades.A/B"], () => {});
        client.connect();
        await sockets[0].welcome();
        await sockets[0].receive({ channel_name: "trades.A/B", seq: 1, epoch: "e", notification: {} });
        client.refresh(["book.A/B.none.1.raw"]);
        const refreshed = outcome(client.refresh(["trades.A/B"]));
        const asked = sockets[0].asked("public/subscribe").map(({ params }) => params);
        await sockets[0].refuse("public/subscribe", { code: 10003, message: "too many" });
        await sockets[0].drop(1006);
        await outcome(client.refresh(["trades.A/B"]));
        return { asked, refreshed: refreshed.done, state: client.state };""",
    )
    assert seen["asked"] == [{"channels": ["trades.A/B"]}] * 2
    assert (seen["refreshed"], seen["state"]) == (True, "reconnecting")


def test_listener_that_throws_keeps_nothing_from_the_others(modules: Page) -> None:
    uncaught: list[str] = []
    modules.once("pageerror", lambda error: uncaught.append(error.message))
    seen = run(
        modules,
        """const { client, sockets } = setup();
        const got = [];
        client.subscribe(["events"], () => { throw new Error("a listener's fault"); });
        client.subscribe(["events"], (notification) => got.push(notification));
        client.connect();
        await sockets[0].welcome();
        await sockets[0].receive({ channel_name: "events", seq: 1, notification: 1 });
        return [got, client.state];""",
    )
    assert seen == [[1], "live"]
    assert uncaught == ["a listener's fault"]


@pytest.mark.parametrize("text", ["not json", "null", "[1", '"text"'])
def test_client_survives_a_message_it_cannot_read(modules: Page, text: str) -> None:
    seen = run(
        modules,
        """const { client, sockets } = setup();
        const faults = [];
        client.on("fault", () => faults.push(1));
        client.connect();
        await sockets[0].open();
        await sockets[0].receive(argument);
        return [faults.length, client.state];""",
        text,
    )
    assert seen == [1, "live"]


def test_client_tells_of_the_streams_status(modules: Page) -> None:
    told = run(
        modules,
        """const { client, sockets } = setup();
        const seen = [];
        client.on("status", (message) => seen.push(message));
        client.connect();
        await sockets[0].open();
        await sockets[0].receive({ type: "stream_status", status: "stale", symbols: ["A/B"] });
        return seen;""",
    )
    assert told == [{"type": "stream_status", "status": "stale", "symbols": ["A/B"]}]
