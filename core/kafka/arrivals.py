"""A thread that waits for what a consumer has next while the loop has found nothing, and wakes the loop for it.

The beat would find it too, half a period later. confluent-kafka (2.16) lets only one thread at a time use a client, and
whoever else calls it, whatever for, waits as long as that: so a client is either the thread's or the loop's.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

from confluent_kafka import KafkaException, Message

from core.kafka.waiting_thread import WAIT_SECONDS, WaitingThread

Consume = Callable[[int, float], list[Message]]


class Arrivals(WaitingThread):
    """Whose the client is: the thread's from `await_next` until something has come or `give_back` was called, else the loop's.

    Made on the loop; all methods but `join` and `call_on_loop` are called there.
    """

    def __init__(self, consume: Consume, wake: Callable[[], None]) -> None:
        """`consume` takes at most so many messages, and waits for the first at most so many seconds."""
        super().__init__(self._run, "arrivals")
        self._consume = consume
        self._wake = wake
        self._lock = threading.Lock()
        self._is_lent = False
        self._found: list[Message] = []
        self._then: Callable[[], None] | None = None
        self._thread.start()

    @property
    def is_waiting(self) -> bool:
        """Whether the client is the thread's."""
        return self._is_lent

    def call_on_loop(self, call: Callable[[], object]) -> None:
        """For what the client calls: on the loop, now if this is the loop's turn, else soon.

        Not waited for: while it calls, a client lets nobody else use it, not even to ask what it knows already.
        """
        if threading.current_thread() is not self._thread:
            call()
        else:
            self._tell_loop(call)

    def await_next(self) -> None:
        """There is nothing more: the client is the thread's."""
        if not self._closed:
            self._is_lent = True
            self._may_wait.set()

    def take(self) -> list[Message]:
        """What has come; only when the client is the loop's."""
        found, self._found = self._found, []
        return found

    def give_back(self, then: Callable[[], None]) -> None:
        """Call `then` once the client is the loop's, at once if it is. What has come and was not taken is thrown away."""
        with self._lock:
            if self._is_lent:
                self._then = then
                return
            # The thread may have ended its wait for one that was asked for before, and the loop not have come to it.
            self._then = None
        self._found = []
        then()

    def _run(self) -> None:
        while True:
            self._may_wait.wait()
            self._may_wait.clear()
            found = self._wait()
            with self._lock:
                if self._closed:
                    return
                self._found, self._is_lent = found, False
            if not self._tell_loop(self._end_wait):
                return

    def _wait(self) -> list[Message]:
        found: list[Message] = []
        while not (found or self._then or self._closed):
            try:
                found = self._consume(1, WAIT_SECONDS)
            except (KafkaException, RuntimeError):
                break  # the loop will meet it, and tell it
        return found

    def _end_wait(self) -> None:
        then = None
        with self._lock:
            if not self._is_lent:  # else it has been lent once more, and the end of that is still to come
                then, self._then = self._then, None
        if then is not None:
            self._found = []
            then()
        if not self._closed:
            self._wake()
