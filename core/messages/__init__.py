"""What is on the topics and in the bodies: the words that everything else is about.

In: the bytes of a record or of a body, from anybody and perhaps broken. Out: immutable events, commands and records whose
every field has been checked, or one of the ground's errors that names the field or the reason; and the other way, the
bytes of a command. No digit of a price or a quantity passes through binary floating point on either way.

    model           symbols, sides, decimals, instruments          strict_json     RFC 8259 and nothing else
    feed_record     a record as a feed gives it                    events          of the market topic
    commands        of the order topic                             order_records   of the order topic, read back
    order_rules     what the body of an order has to be            body_json       clients' JSON, every digit kept
    query           what was asked in a target, checked            batch_rules     what a body of several requests has to be
    kept_state      what of a room outlives the process, and up to where it goes
    times           what is taken for the time of a record, and of what it tells
    account_records of the account topic                           control_records of the control topic
    order_ids       what an order id is, and its one spelling
    attributes      what else an order may carry, as it is declared
    admin_rules     what an operator's body has to be

Uses the ground alone.
"""
