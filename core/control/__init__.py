"""What the control topic says, which is the gateway's own and known to every instance: timers of users, connections
whose orders are cancelled with them, and what the operators have set.

In: the records of that topic, as `core.kafka.compacted_topic` reads them, and requests. Out: records to write to it, users
whose orders are to be cancelled now, and who may not order what. Who cancels is passed in.

    control_table     each record to whom it is about
    reading           whether what is read has just been written, and whether clocks agree
    broker_clock      what time it is where the records are appended
    cancel_timers     cancel_all_after: armed, extended, disarmed, fired once its time has come
    writing           how what is said gets there
    instances         which instances live
    cancel_on_disconnect
                      a connection's orders are cancelled some time after its end, unless its user has come back
    known_connections what the topic says of connections that are held
    due_cancels       the orders of those that have ended, cancelled once their time has come
    control_writer    what operators set, on its way to the topic
    restrictions      blocks of users, halts of symbols
    announcements     what the operators tell of the exchange
    exchange_status   what holds now, of both: who may order, and what everybody is told
    status_channel    who is told that
    disconnects       connections that are closed, wherever they are
    cancel_open       the open orders of a user who was blocked, cancelled

Uses messages, delivery and the ground.
"""
