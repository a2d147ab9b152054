"""Who hears of the market: channels by name, subscriptions to them, and what is said to whom, when.

In: news of one drain, in the order of the records; subscribe, unsubscribe, resume; the clock's beat. Out: for each channel
one text for all of its subscribers, handed to delivery with the crowd that it is for.

    hub             the parts below, put together: what others call
    names           the grammar of channels' names                 client_position  where one stopped, in `since`
    subscription    one subscriber on one channel: one state
    schedule        when each channel is due                       stream_status    quiet or dead, for lossless listeners
    channel         what every channel has; `kinds` says which class is which
    conflated_channels, lossless_channels   states that may be conflated; what leaves nothing out
    candles_channel, tickers_channel        of the first kind too: what changed of many
    membership      who is there                                   first_notification   a snapshot with its head
    publishing      news on its way out                            resume, replay   coming back with `since`
    slow_consumers  whose sockets are full                         partition_changes   partitions come and go
    backlog         who is next when there is no time for all      requests         what is asked for, a piece at a time
    slices          work that gives way to others

The invariant: a subscription is in exactly one state, and every change of state is a method of `Subscription`. Uses market,
delivery, messages and the ground.
"""
