"""What the control topic says, which is the gateway's own and known to every instance: timers of users, and
connections whose orders are cancelled with them.

In: the records of that topic, as `core.kafka.compacted_topic` reads them, and requests. Out: records to write to it, and users
whose orders are to be cancelled now. Who cancels is passed in.

    control_table     each record to whom it is about
    cancel_timers     cancel_all_after: armed, extended, disarmed, fired once its time has come
    writing           how what is said gets there
    instances         which instances live
    cancel_on_disconnect
                      a connection's orders are cancelled some time after its end, unless its user has come back

Uses messages and the ground.
"""
