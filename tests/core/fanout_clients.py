"""A fan-out in the hands of a test: its time, its clients, the turns it asked for."""

from __future__ import annotations

from collections.abc import Callable

from core.delivery.fanout import Fanout
from core.delivery.frames import Bundle
from core.delivery.observer import Observer
from core.delivery.outbox import Offer
from core.delivery.subscriber import Subscriber
from tests.core.fakes import Client


class Clock:
    """Time that passes by being looked at."""

    def __init__(self, step: float) -> None:
        self.now = 0.0
        self.step = step

    def __call__(self) -> float:
        self.now += self.step
        return self.now


class Counts(Observer):
    """Messages that were handed out, and how long each fan-out took."""

    def __init__(self) -> None:
        self.messages = 0
        self.took: list[float] = []
        self.is_all: bool | None = None

    def delivered(self, writes: int, size: int, messages: int) -> None:
        self.messages += messages

    def fanned_out(self, seconds: float, is_all: bool) -> None:
        self.took.append(seconds)
        self.is_all = is_all


class FanoutClients:
    """A fan-out, its clients, the turns it asked for, and its trouble."""

    def __init__(self, clients: int, *, step: float = 1.0, slice_seconds: float = 0.5) -> None:
        self.clients = [Client() for _ in range(clients)]
        self.trouble: list[tuple[Subscriber, Offer, object]] = []
        self.counts = Counts()
        self.fanout = Fanout(
            Clock(step), self.counts, lambda subscriber, offer, tag: self.trouble.append((subscriber, offer, tag))
        )
        self.fanout.slice_seconds = slice_seconds
        self.turns: list[Callable[[], None]] = []
        self.fanout.again = self.turns.append

    def turn(self) -> None:
        if self.turns:
            self.turns.pop(0)()

    def settle(self) -> None:
        self.fanout.flush()
        while self.turns:
            self.turn()
        for client in self.clients:
            client.transport.settle()

    def audience(self, *numbers: int) -> set[Subscriber]:
        return {self.clients[number].subscriber for number in numbers}


def text(number: int) -> Bundle:
    return Bundle([f"{number}".encode()])
