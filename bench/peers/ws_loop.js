// Peer: node ws, `send` to each in a loop. Called and told as bench/peers/ticks.py says.
"use strict";

const fs = require("node:fs");
const readline = require("node:readline");
const { WebSocketServer } = require(process.env.BENCH_NODE_MODULES + "/ws");

const TICKS_AHEAD = 2;
const [counterPath, template] = process.argv.slice(2);
const counter = fs.openSync(counterPath, "r");
const eight = Buffer.alloc(8);
const nextTurn = () => new Promise((resolve) => setImmediate(resolve));
const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

setTimeout(() => process.exit(1), 3600_000).unref();

function delivered() {
  fs.readSync(counter, eight, 0, 8, 0);
  return Number(eight.readBigUInt64LE());
}

const server = new WebSocketServer({ host: "127.0.0.1", port: 0, backlog: 1024, perMessageDeflate: false });
server.on("connection", (client) => client.on("error", () => {}));
server.on("listening", () => process.stdout.write(JSON.stringify({ port: server.address().port }) + "\n"));

async function run(events, seconds, rate) {
  const clients = server.clients.size;
  const began = performance.now();
  const end = began + seconds * 1000;
  const base = delivered();
  let ticks = 0;
  for (let now = began; now < end; now = performance.now()) {
    if (rate) {
      const due = began + (ticks / rate) * 1000;
      if (due > now) await sleep(due - now);
    } else {
      while (ticks >= TICKS_AHEAD && (ticks - TICKS_AHEAD) * events * clients >= delivered() - base) {
        await sleep(1);
        if (performance.now() > end) break;
      }
    }
    for (let number = 0; number < events; number++) {
      const event = Buffer.from(`${template}${process.hrtime.bigint()}}`);
      for (const client of server.clients) client.send(event, { binary: false });
    }
    ticks++;
    await nextTurn();
  }
  const told = { ticks, events: ticks * events, clients, seconds: (performance.now() - began) / 1000 };
  process.stdout.write(JSON.stringify(told) + "\n");
}

const lines = readline.createInterface({ input: process.stdin });
lines.on("line", (line) => run(...line.split(" ").slice(1).map(Number)));
lines.on("close", () => process.exit(0));
