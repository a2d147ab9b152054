from __future__ import annotations

import random

from core.control.known_connections import Known, KnownConnections
from core.messages.control_records import Held


def test_known_connections_are_found_by_user_and_by_process_whatever_was_said_of_them_before() -> None:
    chance = random.Random(5)
    known, naive = KnownConnections(), dict[str, Known]()
    users, processes = ("alice", "bob", None), ("p", "q")
    for offset in range(2000):
        name = f"c{chance.randrange(6)}"
        if chance.random() < 0.4:
            known.drop(name)
            naive.pop(name, None)
        elif chance.random() < 0.01:
            known.clear()
            naive.clear()
        else:
            ended = offset if chance.random() < 0.3 else None
            said = Known(Held(chance.choice(users), chance.choice(processes), ended=ended), offset, 0.0)
            known.put(name, said)
            naive[name] = said
        assert len(known) == len(naive)
        for one in ("c0", "c1", "c2", "c3", "c4", "c5"):
            assert (known.get(one), one in known) == (naive.get(one), one in naive)
        for user_id in ("alice", "bob"):
            assert known.of_user(user_id) == {name for name, said in naive.items() if said.held.user_id == user_id}
        assert known.of_user(None) == set()
        there = {(said.held.by, name) for name, said in naive.items() if said.held.ended is None}
        assert {(process, name) for process in known.processes() for name in known.at(process)} == there
        assert sorted(known.processes()) == sorted({process for process, _ in there})
