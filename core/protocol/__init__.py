"""One client's dialogue over WebSocket, without I/O: a message in, effects out.

In: the text of one frame. Out: effects, in the order in which they are to be performed: replies, subscriptions, orders. The
handler performs them; nothing in here touches a socket.

    session         the present dialect, and the choice of one     dialects         the two older ones
    client_state    one client's state, which all dialects share   effects          what is to be done, and answers' forms
    thalex          the methods of Thalex's clients
    connection_identity   who a connection is, until its token ends
    connection_orders     what was ordered on it, and is cancelled with it

Uses channels (names, since), orders, access, telemetry (the audit), delivery, messages and the ground.
"""
