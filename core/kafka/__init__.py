"""The way in and out: the only users of confluent_kafka.

In: records of both topics, as the brokers give them, and commands for the order topic. Out: `Record`s of partitions that are
read in order, from where the warm-up begins, and futures that tell what became of a command. What needs a round trip runs
on `Calls`, with a timeout, and on a client of its own: nothing in here blocks the loop.

    feed            a topic as it is read                          warmup_start     where the reading of a partition begins
    group_membership  which partitions are this instance's
    topic_offsets   where one begins and ends, asked               unread_partitions  of which nothing comes
    arrivals, acknowledgements   the loop is woken for them        waiting_thread   what both have in common
    order_log       commands out, acknowledgements in              missed_records   what the history no longer has
    topic_lifecycle when which topic is begun, and made anew       monitor          whether the bus answers
    embedded        the in-process cluster of the demo             clients          settings and calls of all clients
    earlier_snapshots  of books whose snapshot is further back     unserved_market  written here and served elsewhere
    state_keeper    who writes the state topic, and when           state_topic      whether it can be used, and making it
    state_writer    one partition of it, in transactions           state_reader     its records, as they are read
    state_restore   which of it is taken back                      state_interfaces what the keeper is told, whom it tells
    older_state     what is kept and goes further back is learnt   compacted_topic  one whose last record of a key counts
    control_topic       the control topic: had there, and looked after

Uses channels (what a resume is missing), market, messages and the ground.
"""
