from __future__ import annotations

import gc
import selectors
import socket
import warnings
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import pytest

from core.config.settings import Admin, Bind, Metrics, Settings
from process.sockets import CannotListen, Listeners, listen

ANY = Bind("127.0.0.1", 0)
SETTINGS = replace(Settings(), bind=ANY)


@contextmanager
def listening(settings: Settings = SETTINGS, workers: int = 1) -> Iterator[Listeners]:
    made = listen(settings, workers)
    try:
        yield made
    finally:
        made.close()


def refusal(settings: Settings, workers: int = 1) -> str:
    """What is said where it cannot listen."""
    said = ""
    with warnings.catch_warnings():
        # Tornado leaves a socket that it could not bind to the garbage collector.
        warnings.simplefilter("ignore", ResourceWarning)
        try:
            listen(settings, workers).close()
        except CannotListen as error:
            said = str(error)
        gc.collect()
    return said


def test_one_worker_has_one_socket_of_its_own() -> None:
    with listening() as listeners:
        [[one]] = listeners.slots
        assert one.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT) == 0
        assert listeners.metrics == ()
        assert listeners.bound == listeners.reachable == Bind("127.0.0.1", one.getsockname()[1])


def test_every_worker_has_sockets_of_the_same_address() -> None:
    with listening(workers=3) as listeners:
        assert len({sockets[0].getsockname() for sockets in listeners.slots}) == 1
        assert len({sockets[0].fileno() for sockets in listeners.slots}) == 3


def test_connections_are_spread_over_the_slots() -> None:
    with listening(workers=2) as listeners, selectors.DefaultSelector() as selector:
        for number, [one] in enumerate(listeners.slots):
            selector.register(one, selectors.EVENT_READ, number)
        found: Counter[int] = Counter()
        for _ in range(1000):
            with socket.create_connection(("127.0.0.1", listeners.bound.port)):
                [(key, _)] = selector.select(10)
                assert isinstance(key.fileobj, socket.socket)
                key.fileobj.accept()[0].close()
                found[key.data] += 1
        assert max(found.values()) <= 600, found


@pytest.mark.parametrize(("theirs", "ours"), [(1, 1), (1, 2), (2, 1), (2, 2)])
def test_address_of_another_gateway_cannot_be_bound(theirs: int, ours: int) -> None:
    with listening(workers=theirs) as other:
        said = refusal(replace(SETTINGS, bind=other.bound), ours)
        assert said.startswith(f"cannot listen on {other.bound}: ")
        assert said.endswith("; choose another address with BIND_ADDR")


def test_address_can_be_bound_again_after_its_close() -> None:
    with listening(workers=2) as first:
        bound = first.bound
    with listening(replace(SETTINGS, bind=bound), 2):
        pass


def test_metrics_have_one_address_for_all_workers() -> None:
    with listening(replace(SETTINGS, metrics=Metrics(ANY)), 3) as listeners:
        [one] = listeners.metrics
        assert one.getsockname() != listeners.slots[0][0].getsockname()


def test_metrics_address_that_is_taken_gives_the_first_one_back() -> None:
    with listening() as other:
        with listening() as first:
            free = first.bound
        assert "GATEWAY_METRICS_BIND" in refusal(replace(SETTINGS, bind=free, metrics=Metrics(other.bound)))
        with listening(replace(SETTINGS, bind=free)):
            pass


def test_operators_have_one_address_for_all_workers() -> None:
    with listening(replace(SETTINGS, admin=Admin(ANY)), 3) as listeners:
        [one] = listeners.admin
        assert one.getsockname() != listeners.slots[0][0].getsockname()


def test_operators_address_that_is_taken_gives_the_others_back() -> None:
    with listening() as other:
        with listening(replace(SETTINGS, metrics=Metrics(ANY))) as first:
            free, metrics = first.bound, Bind(*first.metrics[0].getsockname())
        ours = replace(SETTINGS, bind=free, metrics=Metrics(metrics))
        assert "GATEWAY_ADMIN_BIND" in refusal(replace(ours, admin=Admin(other.bound)))
        with listening(ours):
            pass


def test_host_that_is_not_there_is_refused_in_one_sentence() -> None:
    assert "nowhere.invalid:1234" in refusal(replace(SETTINGS, bind=Bind("nowhere.invalid", 1234)))


def test_address_for_everybody_is_reached_by_the_loopback() -> None:
    with listening(replace(SETTINGS, bind=Bind("0.0.0.0", 0)), 2) as listeners:
        assert listeners.bound.host == "0.0.0.0"
        with socket.create_connection((listeners.reachable.host, listeners.reachable.port)):
            pass
