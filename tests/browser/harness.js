/** Time, chance and the network in the hands of a test: nothing here waits, so nothing here is ever late. */

import { GatewayClient } from "/console/client/gateway-client.js";

/** Lets every promise that can go on do so. */
export async function settle() {
  for (let turn = 0; turn < 20; turn += 1) await null;
}

export class FakeClock {
  #now = 1;
  #next = 1;
  #timers = new Map();

  now = () => this.#now;

  setTimeout = (callback, ms) => {
    this.#timers.set(this.#next, { at: this.#now + ms, callback });
    return this.#next++;
  };

  clearTimeout = (id) => this.#timers.delete(id);

  async advance(ms) {
    const end = this.#now + ms;
    for (;;) {
      const due = [...this.#timers].filter(([, timer]) => timer.at <= end).sort((a, b) => a[1].at - b[1].at)[0];
      if (!due) break;
      this.#timers.delete(due[0]);
      this.#now = due[1].at;
      due[1].callback();
      await settle();
    }
    this.#now = end;
    await settle();
  }
}

export class FakeSocket {
  readyState = 0;
  sent = [];

  constructor(url) {
    this.url = url;
  }

  send(text) {
    this.sent.push(JSON.parse(text));
  }

  close() {
    this.readyState = 3;
  }

  async open() {
    this.readyState = 1;
    this.onopen?.({});
    await settle();
  }

  async receive(message) {
    this.onmessage?.({ data: typeof message === "string" ? message : JSON.stringify(message) });
    await settle();
  }

  async drop(code = 1006, reason = "") {
    this.readyState = 3;
    this.onclose?.({ code, reason });
    await settle();
  }

  asked(method) {
    return this.sent.filter((request) => request.method === method);
  }

  async answer(method, result) {
    await this.receive({ id: this.asked(method).at(-1).id, result });
  }

  async refuse(method, error) {
    await this.receive({ id: this.asked(method).at(-1).id, error });
  }

  /** Opens, and agrees to whatever is asked for first. */
  async welcome() {
    await this.open();
    for (const request of this.asked("public/subscribe")) {
      await this.receive({ id: request.id, result: request.params.channels });
    }
  }
}

export function setup(options = {}) {
  const clock = new FakeClock();
  const sockets = [];
  const states = [];
  class Socket extends FakeSocket {
    constructor(url) {
      super(url);
      sockets.push(this);
    }
  }
  const client = new GatewayClient("ws://gateway.test/ws", {
    clock,
    WebSocket: Socket,
    random: () => 0.5,
    backoffBaseMs: 100,
    backoffCapMs: 1000,
    stableAfterMs: 5000,
    goingAwayMs: 40,
    quietMs: 8000,
    pingTimeoutMs: 4000,
    requestTimeoutMs: 3000,
    connectTimeoutMs: 2000,
    ...options,
  });
  client.on("state", ({ state, reason, retryInMs }) => states.push({ state, reason, retryInMs }));
  return { client, clock, sockets, states };
}

/** What a promise came to, as a plain object. */
export function outcome(promise) {
  const seen = { done: false };
  promise.then(
    (value) => Object.assign(seen, { done: true, value }),
    (error) => Object.assign(seen, { done: true, code: error.code, message: error.message, data: error.data }),
  );
  return seen;
}
