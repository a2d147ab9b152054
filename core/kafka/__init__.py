"""The way in and out: the only users of confluent_kafka.

In: records of both topics, as the brokers give them, and commands for the order topic. Out: `Record`s of partitions that are
read in order, from where the warm-up begins, and futures that tell what became of a command. What needs a round trip runs
on `Calls`, with a timeout, and on a client of its own: nothing in here blocks the loop.

    feed            a topic as it is read                          missed_records   what the history no longer has
    order_log       commands out, acknowledgements in              monitor          whether the bus answers
    topic_lifecycle when which topic is begun, and made anew       clients          settings and calls of all clients
    embedded        the in-process cluster of the demo             earlier_snapshots  of books whose snapshot is further back
    state_keeper    who writes the state topic, and when           state_topic      whether it can be used, and making it
    state_writer    one partition of it, in transactions           state_reader     taking it back
    state_interfaces what the keeper is told, and whom it tells     acknowledgements  the loop is woken for them
    unserved_market partitions that are written here and served elsewhere
    older_state     what is kept and goes further back is learnt
    arrivals        the loop is woken for records, too

Uses channels (what a resume is missing), market, messages and the ground.
"""
