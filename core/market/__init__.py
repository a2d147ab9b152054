"""Everything known of the market, folded from the market topic record by record.

In: events in the order of their partition. Out: `News` of each (what everybody may see), and the state of now: books,
trades, statistics, candles, and a bounded history from which a client who comes back is served. What outlives the process is
described and taken back as keyed records.

    market          every symbol, and the fold of one record       symbol_market    what is known of one
    partitions      the one owner of a partition's life            book, ladder     an order book and its sides
    book_views      what changed between two looks at a book       ladder_changes   what such looks have in common
    history         the last events of a symbol
    statistics      24 hours                                       trade            a fill as it is told
    candles         six intervals                                  candle_series    one of them
    kept_trades     by their names
    instrument_list what can be traded                         state            what is kept of each symbol
    quotes          a ticker, the top of a book, as JSON           rest_answers     what REST tells
    lag             how long a client that is ahead waits

Uses messages and the ground. Nobody in here knows who listens.
"""
