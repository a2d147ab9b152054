"""What a process is made of: workers, sockets, signals' consequences, memory, the loop and the log.

In: settings, and what the system allows. Out: listening sockets, forked workers that a parent keeps running, a loop that gives
everybody a turn, and clients that are let go one by one when it ends.

    workers         a parent and its forks                         worker_reports   how all of them are
    sockets, certificate   the addresses, and TLS                  file_limit       how many connections fit
    event_loop, loop_turns   the loop, and whose turn it is        allocator, gc_tuning   memory
    drain           clients let go                                 logs             one line each
    beats           the periodic callback                          signals          when to end, what to read again
    exchange_process, start_report   the demo's exchange, and what a start prints

Uses core but its kafka, pump, health and protocol, and nothing of handlers, services or wiring.
"""
