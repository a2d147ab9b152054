"""Bytes and the sockets' turns: everything between a finished message and the kernel, with no market in sight.

In: bundles of messages, and to whom they go. Out: one frame for all of them, built once however many read it, and one
`send` for each connection; for those who do not keep up, a typed result that says whether the message waits, is to be
conflated, or was too much. Work comes in slices, so that nothing else on the loop waits for thousands of sends.

    frames       WebSocket frames, joined and compressed once      outbox      what waits for one connection
    subscriber   one connection, and crowds of them                fanout      who gets what, slice by slice
    observer     what is told to whoever counts                    liveness    whether a peer lives, by what has moved

Uses the ground alone. Nobody in here knows what a channel is; its observer is told of channels by those who do.
"""
