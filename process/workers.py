"""Several processes behind one address: a parent that binds, forks, watches and waits, and does nothing else.

The invariant: in the parent there is never a thread, a loop or a Kafka client, because every worker, also one that is
started again years later, is a fork of it, and a client made before a fork never sends and never says so.

Parent and worker talk over a socket pair, in words, one a line. To the worker: `accept N` and `release N` (accept, and no more, on the
sockets of slot N), `reload` (the certificate), `stop`, `hurry`. To the parent: `started` (it serves), `ready` (it is warmed up), `draining`, `left` (it
accepts no more). Its end is the parent's death, however that came, and the worker then drains: on every system, and without
the race that PR_SET_PDEATHSIG has with a parent that dies before it is set. Stopping is a word and no signal, because the terminal's Ctrl-C and systemd's SIGTERM
reach the workers as well, and would count as a second one, which means hurry.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import selectors
import shutil
import signal
import socket
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NoReturn, Protocol

from process.certificate import reload_beside_loop, reloads_on_hangup
from process.sockets import Listeners

log = logging.getLogger("gateway.workers")

FIRST_PAUSE_SECONDS = 0.5
LONGEST_PAUSE_SECONDS = 30.0
# A worker that lived so long was well; its death is not the last one's.
WELL_AFTER_SECONDS = 60.0

_STOPPING = (signal.SIGTERM, signal.SIGINT)
# Those that the parent alone acts on.
_ITS_OWN = (*_STOPPING, signal.SIGHUP)


def worker_count(workers: int) -> int:
    """The setting as a number of processes: 0 is one for each core that this process may use."""
    if workers:
        return workers
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        # A container's share of the machine (cgroup v2): "max 100000", or microseconds in each 100000.
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        return min(cores, max(1, round(int(quota) / int(period))))
    except (OSError, ValueError):
        return cores


@dataclass(frozen=True, slots=True)
class Worker:
    """What a serving process has to know of itself. Alone, it has no parent and no siblings: all the defaults."""

    listeners: Listeners
    number: int = 0
    count: int = 1
    starts: int = 0
    channel: socket.socket | None = None
    folder: Path | None = None
    boot_id: str = field(default_factory=lambda: os.urandom(8).hex())
    started_at: float = field(default_factory=time.monotonic)

    @property
    def share(self) -> float:
        """Its part of what is limited for all."""
        return 1 / self.count

    def tell_parent(self, word: str) -> None:
        """Tell the parent, if there is one."""
        if self.channel is not None:
            with contextlib.suppress(OSError):  # it has died; that is read, too
                self.channel.sendall(f"{word}\n".encode())


class ParentLink:
    """What a worker hears from its parent."""

    def __init__(self, channel: socket.socket, on_word: Callable[[str, int], None], on_orphaned: Callable[[], None]):
        """`on_word` is told of each word, and the slot it is about (-1: none)."""
        self._channel = channel
        self._on_word = on_word
        self._on_orphaned = on_orphaned
        self._lines = LineReader(channel)
        asyncio.get_running_loop().add_reader(channel, self._read)

    def _read(self) -> None:
        lines = self._lines.read()
        for line in lines or ():
            word, _, number = line.partition(" ")
            self._on_word(word, int(number) if number else -1)
        if lines is None:
            asyncio.get_running_loop().remove_reader(self._channel)
            self._on_orphaned()


class ControlledServer(Protocol):
    """What a worker does that its parent decides."""

    def accept_on(self, slot: int) -> None:
        """Accept on the sockets of this slot."""

    def stop_accepting_on(self, slot: int) -> None:
        """Leave the sockets of this slot to somebody else."""

    def stop_listening(self) -> None:
        """Accept no more at all."""

    async def ready(self) -> None:
        """Until traffic may come."""


async def follow_parent(worker: Worker, served: ControlledServer, stop: asyncio.Event, hurry: asyncio.Event) -> None:
    """Do as the parent says, if there is one, and tell it how far this worker is; drain when it is gone."""
    words: dict[str, Callable[[int], None]] = {
        "accept": served.accept_on,
        "release": served.stop_accepting_on,
        "reload": lambda _slot: reload_beside_loop(worker.listeners.certificate),
        "stop": lambda _slot: stop.set(),
        "hurry": lambda _slot: hurry.set(),
    }

    def on_orphaned() -> None:
        log.error("the parent process is gone: draining")
        served.stop_listening()  # whoever starts the next gateway needs the address
        stop.set()

    if worker.channel is not None:
        ParentLink(worker.channel, lambda word, slot: words[word](slot), on_orphaned)
    worker.tell_parent("started")
    await served.ready()
    worker.tell_parent("ready")


class LineReader:
    """Whole lines of a socket that does not wait."""

    def __init__(self, channel: socket.socket) -> None:
        channel.setblocking(False)
        self._channel = channel
        self._rest = b""

    def read(self) -> list[str] | None:
        """What has come; None once the other end is gone."""
        try:
            data = self._channel.recv(4096)
        except BlockingIOError:
            return []
        except OSError:
            return None
        if not data:
            return None
        *lines, self._rest = (self._rest + data).split(b"\n")
        return [line.decode() for line in lines]


class Backoff:
    """How long to wait before a worker is started again."""

    def __init__(self, first_seconds: float = FIRST_PAUSE_SECONDS) -> None:
        self._first_seconds = self._next = first_seconds

    def pause_after(self, life_seconds: float) -> float:
        """The pause after a worker that lived so long."""
        if life_seconds >= WELL_AFTER_SECONDS:
            self._next = self._first_seconds
        pause = self._next
        self._next = min(2 * pause, LONGEST_PAUSE_SECONDS)
        return pause


def assign_slots(running: Mapping[int, bool], slots: int) -> dict[int, int]:
    """Which worker accepts on which slot's sockets; `running` tells for each that runs whether it is ready.

    Its own, unless that one does not run or is not ready and another is: what the kernel put into the queue of a dead worker
    is not to wait for its successor, nor for the minutes in which that may be reading back an hour of market.
    """
    ready = sorted(number for number, is_ready in running.items() if is_ready)
    others = ready or sorted(running)
    assigned = {}
    for slot in range(slots):
        if slot in running and (running[slot] or not ready):
            assigned[slot] = slot
        elif others:
            assigned[slot] = others[slot % len(others)]
    return assigned


@dataclass
class _Slot:
    """One place for a worker, and who is in it."""

    number: int
    backoff: Backoff
    starts: int = 0
    pid: int = 0
    channel: socket.socket | None = None
    lines: LineReader | None = None
    has_started: bool = False
    is_ready: bool = False
    has_left: bool = False
    began_at: float = 0.0
    due_at: float | None = None

    @property
    def runs(self) -> bool:
        return self.pid != 0


class Parent:
    """Keeps the workers running until it is told to stop."""

    def __init__(
        self,
        serve: Callable[[Worker], int],
        listeners: Listeners,
        *,
        grace_seconds: float,
        first_pause_seconds: float = FIRST_PAUSE_SECONDS,
    ) -> None:
        """`serve` runs in each worker and gives its exit code; after `grace_seconds` of draining a worker is killed."""
        self._serve = serve
        self._listeners = listeners
        self._grace_seconds = grace_seconds
        self._slots = [_Slot(number, Backoff(first_pause_seconds)) for number in range(len(listeners.slots))]
        self._assigned: dict[int, int] = {}
        self._signals = 0
        self._signals_passed_on = 0
        self._has_hung_up = False
        self._kill_at: float | None = None
        self._has_killed = False
        self._code: int | None = None
        self._boot_id = os.urandom(8).hex()
        self._started_at = time.monotonic()

    def run(self) -> int:
        """Give the exit code: 0 when all have drained, a worker's own when the first cannot even start."""
        try:
            self._folder = Path(tempfile.mkdtemp(prefix="gateway-"))
        except OSError as error:
            log.error("no folder for the workers' sockets can be made: %s; name one with TMPDIR", error.strerror)
            return 1
        self._selector = selectors.DefaultSelector()
        self._wakeup, self._wakeup_writer = socket.socketpair()
        self._wakeup.setblocking(False)
        self._wakeup_writer.setblocking(False)
        self._selector.register(self._wakeup, selectors.EVENT_READ)
        signal.set_wakeup_fd(self._wakeup_writer.fileno(), warn_on_full_buffer=False)
        for number in (*_STOPPING, signal.SIGCHLD):
            signal.signal(number, self._on_signal)
        if reloads_on_hangup(self._listeners.certificate):
            signal.signal(signal.SIGHUP, self._on_signal)
        log.info("%d workers, parent is process %d", len(self._slots), os.getpid())
        self._slots[0].due_at = time.monotonic()
        try:
            while True:
                self._reap()
                self._pass_signals_on()
                self._start_due()
                self._assign()
                if self._kill_at is not None and not any(slot.runs for slot in self._slots):
                    return self._code or 0
                self._wait()
        finally:
            shutil.rmtree(self._folder, ignore_errors=True)

    # What happens.

    def _on_signal(self, number: int, _frame: object) -> None:
        if number in _STOPPING:
            self._signals += 1
        elif number == signal.SIGHUP:
            self._has_hung_up = True

    def _wait(self) -> None:
        dues = [slot.due_at for slot in self._slots if slot.due_at is not None]
        if self._kill_at is not None and not self._has_killed:
            dues.append(self._kill_at)
        timeout = max(0.0, min(dues) - time.monotonic()) if dues else None
        for key, _ in self._selector.select(timeout):
            if key.fileobj is self._wakeup:
                with contextlib.suppress(BlockingIOError):
                    self._wakeup.recv(4096)
            else:
                self._read_words(key.data)

    def _read_words(self, slot: _Slot) -> None:
        lines = slot.lines.read() if slot.lines is not None else None
        if lines is None and slot.channel is not None:
            self._selector.unregister(slot.channel)  # its end; waitpid tells the rest
            slot.channel.close()
            slot.channel = None
        for line in lines or ():
            if line == "started":
                slot.has_started = True
                if slot.number == 0 and slot.starts == 1:
                    self._start_others()
            elif line in ("ready", "draining"):
                slot.is_ready = line == "ready"
            elif line == "left":
                slot.has_left = True

    def _start_others(self) -> None:
        # Only now: what keeps the first from starting would keep all of them, and is said once.
        if self._kill_at is None:
            for other in self._slots[1:]:
                other.due_at = time.monotonic()

    def _pass_signals_on(self) -> None:
        """Pass signals on: the first means stop, each later one hurry. A hang-up is about the certificate."""
        if self._has_hung_up:
            self._has_hung_up = False
            if self._listeners.certificate is not None:
                self._listeners.certificate.reload()  # for those that are started from now on
            self._tell_all("reload")
        while self._signals_passed_on < self._signals:
            self._signals_passed_on += 1
            if self._kill_at is None:
                self._stop(0)
            else:
                self._tell_all("hurry")
        if self._kill_at is not None and time.monotonic() >= self._kill_at and not self._has_killed:
            self._has_killed = True
            for slot in self._slots:
                if slot.runs:
                    log.error("%s has not drained in time: killing it", _name(slot))
                    os.kill(slot.pid, signal.SIGKILL)

    def _stop(self, code: int) -> None:
        self._kill_at = time.monotonic() + self._grace_seconds
        self._code = code
        for slot in self._slots:
            slot.due_at = None
        self._listeners.close()  # the workers have them; with their ends they are closed
        self._tell_all("stop")

    def _tell_all(self, word: str) -> None:
        for slot in self._slots:
            self._tell(slot, word)

    def _tell(self, slot: _Slot, word: str) -> None:
        if slot.channel is not None:
            with contextlib.suppress(OSError):  # it has died, or has not read for a very long time
                slot.channel.sendall(f"{word}\n".encode())

    # Life and death.

    def _reap(self) -> None:
        while True:
            try:
                # Anybody's: as process 1 of a container this one inherits orphans.
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if not pid:
                return
            for slot in self._slots:
                if slot.pid == pid:
                    self._on_end(slot, os.waitstatus_to_exitcode(status))

    def _on_end(self, slot: _Slot, code: int) -> None:
        name, life = _name(slot), time.monotonic() - slot.began_at
        if slot.channel is not None:
            self._read_words(slot)  # its last words
        if slot.channel is not None:
            self._selector.unregister(slot.channel)
            slot.channel.close()
            slot.channel = None
        has_started, slot.pid = slot.has_started, 0
        slot.has_started = slot.is_ready = slot.has_left = False
        self._assigned = {number: by for number, by in self._assigned.items() if by != slot.number}
        how = f"ended with code {code}" if code >= 0 else f"was ended by {signal.Signals(-code).name}"
        if self._kill_at is not None:
            log.log(logging.ERROR if code else logging.INFO, "%s %s", name, how)
            self._code = self._code or (1 if code else 0)
        elif slot.number == 0 and slot.starts == 1 and not has_started:
            self._stop(code if code > 0 else 1)
        else:
            pause = slot.backoff.pause_after(life)
            log.log(logging.ERROR if code else logging.WARNING, "%s %s; starting it again in %g s", name, how, pause)
            slot.due_at = time.monotonic() + pause

    def _start_due(self) -> None:
        for slot in self._slots:
            if slot.due_at is not None and slot.due_at <= time.monotonic():
                slot.due_at = None
                try:
                    self._start(slot)
                except OSError as error:
                    pause = slot.backoff.pause_after(0)
                    log.error("worker %d cannot be started: %s; again in %g s", slot.number, error.strerror, pause)
                    slot.due_at = time.monotonic() + pause

    def _start(self, slot: _Slot) -> None:
        ours, theirs = socket.socketpair()
        with theirs:
            signal.pthread_sigmask(signal.SIG_BLOCK, _ITS_OWN)
            try:
                slot.pid = os.fork()
                if not slot.pid:
                    self._run_worker(slot, ours, theirs)
            except OSError:
                ours.close()
                raise
            finally:
                signal.pthread_sigmask(signal.SIG_UNBLOCK, _ITS_OWN)
        slot.channel = ours
        slot.lines = LineReader(ours)
        slot.began_at = time.monotonic()
        slot.starts += 1
        self._selector.register(ours, selectors.EVENT_READ, slot)
        log.info("%s started", _name(slot))

    def _assign(self) -> None:
        """Tell workers whose sockets are theirs now: first who gets them, then who had them."""
        running = {slot.number: slot.is_ready for slot in self._slots if slot.runs and not slot.has_left}
        assigned = assign_slots(running, len(self._slots))
        for number, worker in assigned.items():
            before = self._assigned.get(number)
            if before == worker:
                continue
            self._tell(self._slots[worker], f"accept {number}")
            if before is not None:
                self._tell(self._slots[before], f"release {number}")
        self._assigned = assigned

    # In the fork.

    def _run_worker(self, slot: _Slot, ours: socket.socket, theirs: socket.socket) -> NoReturn:
        code = 1
        try:
            # Nothing of the parent's may be written to from here: not its wake-up, and not its ends of the channels, which would
            # keep the siblings from noticing its death.
            signal.set_wakeup_fd(-1)
            for number in _ITS_OWN:
                signal.signal(number, signal.SIG_IGN)  # until there is a loop; the parent's word waits in the channel
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            for one in (self._wakeup, self._wakeup_writer, ours, *(other.channel for other in self._slots)):
                if one is not None:
                    one.close()
            self._selector.close()
            signal.pthread_sigmask(signal.SIG_UNBLOCK, _ITS_OWN)
            code = self._serve(
                Worker(
                    self._listeners,
                    slot.number,
                    len(self._slots),
                    slot.starts,
                    theirs,
                    self._folder,
                    self._boot_id,
                    self._started_at,
                )
            )
        except BaseException:
            traceback.print_exc()
        finally:
            logging.shutdown()
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)


def _name(slot: _Slot) -> str:
    return f"worker {slot.number} (process {slot.pid})"
