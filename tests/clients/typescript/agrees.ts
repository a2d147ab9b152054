/** The types that are written by hand hold for the code, whose types are inferred (and checked on the way). */

import type * as written from "mexchange";

import * as decimal from "../../../clients/js/lib/decimal.js";
import * as errors from "../../../clients/js/lib/errors.js";
import { Exchange } from "../../../clients/js/lib/exchange.js";
import { GatewayClient } from "../../../clients/js/lib/gateway-client.js";
import { OrderBook } from "../../../clients/js/lib/order-book.js";
import { Gap } from "../../../clients/js/lib/values.js";

// `typeof import("mexchange")` has each name that can be imported: one that is missing here, or there, is refused.
const { GatewayError, ConnectionLost, BadRequest, NoSuchMethod, InvalidFields, NotAuthorised, Forbidden, NotFound } = errors;
const { OrderRefused, CancelFailed, TooManyRequests, Unavailable, OutcomeUnknown, GatewayFault } = errors;

export const all: typeof written = {
  BadRequest,
  CancelFailed,
  ConnectionLost,
  Exchange,
  Forbidden,
  Gap,
  GatewayClient,
  GatewayError,
  GatewayFault,
  InvalidFields,
  NoSuchMethod,
  NotAuthorised,
  NotFound,
  OrderBook,
  OrderRefused,
  OutcomeUnknown,
  TooManyRequests,
  Unavailable,
  decimal,
};
