"""What every user has: balances by currency, from the account topic alone.

In: the records of that topic, as `core.kafka.compacted_topic` reads them, and connections that subscribe. Out: a user's
balances, or that they cannot be told now; and `account.balances`. Nothing here changes a balance: whoever keeps the accounts does.

    balances            what is known of whom, and of which partition
    account_balances    the channel

Uses messages, delivery and the ground.
"""
