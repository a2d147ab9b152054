/** What a program may write, and what it may not: an error that is expected and does not come is an error. */

import { CancelFailed, decimal, Exchange, Gap, GatewayError, InvalidFields, OutcomeUnknown } from "mexchange";
import type { Ack, LosslessStream, Position, Trade } from "mexchange";

export async function program(url: string): Promise<Position | null> {
  const exchange = await Exchange.open(url, { token: async () => "t", WebSocket, timeoutMs: 5_000, fetch });
  for await (const book of exchange.book("KCN/EUR", { depth: "all", interval: "raw" })) {
    const spread = book.bestAsk && book.bestBid && decimal.subtract(decimal.parse(book.bestAsk.price), decimal.parse("1.5"));
    const first: string | undefined = book.bids[0]?.quantity;
    if (!book.stale && spread && first) break;
  }
  const trades: LosslessStream<Trade> = exchange.trades("KCN/EUR", { since: { epoch: "e", seq: 12 } });
  for await (const trade of trades) {
    if (trade instanceof Gap) console.log(trade.reason);
    else console.log(trade.price.length, trade.trade_id);
    // @ts-expect-error a gap has no price
    console.log(trade.price);
  }
  for await (const fill of exchange.fills()) if (!(fill instanceof Gap)) console.log(fill.order_id, fill.fee);
  const ticker = (await exchange.ticker("KCN/EUR").next()).value;
  console.log(ticker?.stale, ticker?.last_price.padStart(20));
  try {
    const ack: Ack = await exchange.place({ symbol: "KCN/EUR", side: "bid", price: "10.05", quantity: 1n, iceberg: "2" });
    await exchange.amend({ order_id: ack.order_id, price: decimal.parse("10.04") }, { withinMs: 100 });
    const told = await exchange.batch([{ cancel: { order_id: ack.order_id } }, { place: { symbol: "A/B", side: "ask", quantity: 2 } }]);
    for (const one of told) if (one instanceof CancelFailed) console.log(one.orderStatus);
    else if (one instanceof GatewayError) console.log(one.code, one.retryAfterMs);
    else console.log(one.duplicate);
    console.log((await exchange.cancelAll({ symbol: "KCN/EUR" })).length, await exchange.cancelAllAfter(30));
  } catch (error) {
    if (error instanceof OutcomeUnknown) console.log(error.clientOrderId, error.orderId, error.cause);
    if (error instanceof InvalidFields) console.log(error.errors.map(({ field }) => field));
  }
  // @ts-expect-error a side is bid or ask
  await exchange.place({ symbol: "KCN/EUR", side: "buy", quantity: "1" });
  // @ts-expect-error an order has a quantity
  await exchange.place({ symbol: "KCN/EUR", side: "bid" });
  // @ts-expect-error an order is cancelled by one of its names
  await exchange.cancel({ symbol: "KCN/EUR" });
  // @ts-expect-error the state of a book is not the program's to set
  exchange.book("KCN/EUR").stale = false;
  exchange.client.on("state", ({ state }) => console.log(state));
  exchange.close();
  return trades.position;
}
