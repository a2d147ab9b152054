"""What is known of orders, and how they go out.

In: requests to place and to cancel, with whose they are; the records of the order topic and the order events of the market
topic. Out: commands for the log, the truth about what became of each (accepted, refused, certainly not written, unknown), and
to an order's owner its state and the engine's own events of it.

    order           an order's state, and how events change it     index            orders by id, name and owner
    directory       every order, folded from both topics           early_events     events that wait for their order
    reader          drains the order topic before each look at the market
    catch_up        waits until it is read far enough              lookup           questions, answered no earlier than that
    attempt, entry  one order's way in, and all of them            cancel_all       a request that is about many
    amends          new terms for an open order                    pending_amends   those that the engine has not answered
    batch           several requests in one                        deadlines        what is too late
    pre_trade       what an order may be at most                   connection_cancels   what is cancelled with a connection
    private_feed    what only the owner is told                    state            what outlives the process, and comes back
    fills           what traded of whose orders, and the fees      account_trades   the owner's channel of those
    ahead           who comes back ahead of this instance          change_waiters   who waits for an order to change
    already_folded  what of both topics is in what came back
    pieces          long work on many orders, a piece at a time    origin           the request that commands come from
    recent_closings what closed lately, for who comes back         read_positions   how far both topics are folded
    journal         which orders and fills changed lately          older_orders     kept, and older than what was read here
    new_order       an order as who speaks of it first tells it    order_observer   who is told of what is counted
    releases        what ended orders left reserved, until the account service has released it

Uses market (how far a partition is), messages, delivery (for what the owner is sent) and the ground.
"""
