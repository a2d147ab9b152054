from __future__ import annotations

import pytest

from handlers.connected_clients import COST_OF_AN_END, PIECE, ConnectedClients, PageQuery, merged
from tests.handlers.test_admin import FakeClient

FIRST = (-1, 0)


def of_users(*user_ids: str | None, process: str = "c", since_ms: int = 0) -> ConnectedClients:
    clients = ConnectedClients(process=process)
    for number, user_id in enumerate(user_ids, 1):
        clients.add(FakeClient(number, user_id, since_ms))
    return clients


@pytest.mark.gen_test
async def test_only_connections_that_began_before_are_closed() -> None:
    clients = of_users("alice", since_ms=10)
    assert (await clients.close_user("alice", 9), await clients.close_client("c-1", 9)) == (0, 0)
    assert (await clients.close_user("alice", 10), await clients.close_client("c-1", 10)) == (1, 1)


@pytest.mark.parametrize(("of_alice", "turns"), [(0, 3), (10, 4), (3 * PIECE, 3 * COST_OF_AN_END + 3)])
@pytest.mark.gen_test
async def test_others_have_their_turn_while_a_user_is_disconnected(of_alice: int, turns: int) -> None:
    taken = 0

    async def give_way() -> None:
        nonlocal taken
        taken += 1
        clients.discard(FakeClient(3 * PIECE, None))  # it leaves meanwhile

    clients = of_users(*["alice"] * of_alice, *["bob"] * (3 * PIECE - of_alice))
    clients.give_way = give_way
    assert await clients.close_user("alice", 10) == of_alice - (of_alice == 3 * PIECE)
    assert abs(taken - turns) <= of_alice // PIECE + 1


def test_processes_give_their_connections_other_names() -> None:
    client = FakeClient(1, None)
    assert ConnectedClients().name_of(client) != ConnectedClients().name_of(client)


@pytest.mark.gen_test
async def test_others_have_their_turn_while_many_are_looked_at() -> None:
    turns = 0

    async def give_way() -> None:
        nonlocal turns
        turns += 1
        clients.discard(FakeClient(PIECE + 1, None))

    clients = of_users(*[None] * (3 * PIECE))
    clients.give_way = give_way
    page = await clients.page(PageQuery(FIRST, 10_000), 0)
    assert turns == 3
    # One left meanwhile.
    assert len(page["clients"]) == 3 * PIECE - 1 == page["open"]


@pytest.mark.gen_test
@pytest.mark.parametrize("limit", [1, 2, 3, 4, 100])
async def test_pages_of_several_workers_have_everybody_once(limit: int) -> None:
    workers = [of_users("a", "b", "c", process="x"), of_users(process="y"), of_users("d", "e", process="z")]
    after, found = FIRST, []
    while True:
        query = PageQuery.of_line(PageQuery(after, limit).line())
        pages = {number: await clients.page(query, number) for number, clients in enumerate(workers)}
        page = merged(pages, 3, limit)
        clients = page["clients"]
        assert isinstance(clients, list) and len(clients) <= limit
        found += [one["user_id"] for one in clients]
        if page["next"] is None:
            break
        worker, number = str(page["next"]).split(".")
        after = int(worker), int(number)
    assert found == ["a", "b", "c", "d", "e"]
    assert page["open"] == 5


@pytest.mark.gen_test
async def test_worker_that_does_not_answer_is_told() -> None:
    page = await of_users("a").page(PageQuery(FIRST, 10), 1)
    assert merged({1: page}, 3, 10)["silent_workers"] == [0, 2]
