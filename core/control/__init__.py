"""What the control topic says, which is the gateway's own and known to every instance: timers of users.

In: the records of that topic, as `core.kafka.compacted_topic` reads them, and requests. Out: records to write to it, and users
whose orders are to be cancelled now. Who cancels is passed in.

    control_table     each record to whom it is about
    cancel_timers     cancel_all_after: armed, extended, disarmed, fired once its time has come

Uses messages and the ground.
"""
