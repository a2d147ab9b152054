"""Keys that rotate: fetched on a timer, and sooner for a token that names a key which is not known yet.

What can go wrong with the fetching ends in `problem`; the keys that are there stay as they are.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from typing import Final, Protocol

from core.access.identity import Identity, Principal
from core.access.keys import MAX_DOCUMENT_BYTES, BadKeySet, KeySet
from core.errors import UnknownKey
from services.http_client import Headers, HttpClient, HttpResponse, NoAnswer

log = logging.getLogger("gateway.jwks")

REQUEST_TIMEOUT_SECONDS: Final = 5.0
FIRST_RETRY_SECONDS: Final = 1.0
LAST_RETRY_SECONDS: Final = 30.0
# Between fetches for unknown keys: anybody can make up a kid, and the issuer is not to be asked about each.
COOL_DOWN_SECONDS: Final = 10.0

_HEADERS: Final = (("Accept", "application/jwk-set+json, application/json"), ("User-Agent", "mexchange-gateway"))


class Client(Protocol):
    """Whoever publishes the keys, as `services.http_client` reaches them."""

    async def fetch(self, method: str, target: str, headers: Headers, *, is_repeatable: bool) -> HttpResponse:
        """The answer, whatever its status; raises NoAnswer."""

    def close(self) -> None:
        """Give up what is kept."""


def jwks_client(url: str, timeout_seconds: float = REQUEST_TIMEOUT_SECONDS) -> HttpClient:
    """The client of a `KeyFetcher`, for the document at `url`."""
    return HttpClient(url, max_connections=1, timeout_seconds=timeout_seconds, max_body_bytes=MAX_DOCUMENT_BYTES)


class KeyFetcher:
    """Keeps `keys` as the JWK Set of `client` has them. `clock` is monotonic, in seconds; `wait` waits for so many."""

    def __init__(
        self,
        client: Client,
        keys: KeySet,
        *,
        refresh_seconds: float,
        clock: Callable[[], float] = time.monotonic,
        wait: Callable[[float], Awaitable[object]] = asyncio.sleep,
    ) -> None:
        self._client = client
        self._keys = keys
        self._refresh_seconds = refresh_seconds
        self._clock = clock
        self._wait = wait
        self._fetching: asyncio.Task[bool] | None = None
        self._cool_at = -float("inf")
        self._skipped: list[str] = []
        self.problem: str | None = None
        """For `/health`: why the last fetch brought no keys; None: it did, or there was none yet."""

    async def run(self) -> None:
        """Fetch now and then every `refresh_seconds`; after a failure sooner, as long as there is no key at all.

        Ends by being cancelled, which ends a fetch under way too, and closes the client.
        """
        retry_seconds = FIRST_RETRY_SECONDS
        try:
            while True:
                await self._fetch_shared()
                if self._keys.is_empty:
                    await self._wait(min(retry_seconds, self._refresh_seconds))
                    retry_seconds = min(2 * retry_seconds, LAST_RETRY_SECONDS)
                else:
                    retry_seconds = FIRST_RETRY_SECONDS
                    await self._wait(self._refresh_seconds)
        finally:
            if self._fetching is not None:
                self._fetching.cancel()
            self._client.close()

    async def refresh(self) -> bool:
        """Fetch now, because of a key that is not known. Whether it may be known by now; False at once when cooling down.

        All who ask during a fetch get the outcome of that one.
        """
        if self._fetching is None:
            now = self._clock()
            if now < self._cool_at:
                return False
            self._cool_at = now + COOL_DOWN_SECONDS
        return await self._fetch_shared()

    async def _fetch_shared(self) -> bool:
        task = self._fetching
        if task is None:
            task = self._fetching = asyncio.get_running_loop().create_task(self._fetch_once())
            task.add_done_callback(self._on_fetched)
        # Not awaited itself: a caller that is cancelled would take the fetch of all the others with it.
        await asyncio.wait((task,))
        return not task.cancelled() and task.result()

    def _on_fetched(self, _task: asyncio.Task[bool]) -> None:
        self._fetching = None

    async def _fetch_once(self) -> bool:
        generation = self._keys.generation
        try:
            response = await self._client.fetch("GET", "", _HEADERS, is_repeatable=True)
            if response.status != 200:
                return self._failed(f"the keys could not be fetched: answered {response.status}")
            skipped = self._keys.update(response.body)
        except BadKeySet as error:
            return self._failed(f"the keys could not be read: {error.reason}")
        except NoAnswer as error:
            if error.timed_out:
                return self._failed("the keys could not be fetched: no answer in time")
            if error.was_sent:
                return self._failed("the keys could not be fetched: the answer was cut off, or is too long")
            return self._failed(f"the keys could not be fetched: {error.reason}")
        except Exception:  # the root of a task, and the timer has to go on
            log.exception("fetching the keys failed in a way that is not known")
            return self._failed("the keys could not be fetched: see the log")
        if skipped != self._skipped:
            self._skipped = skipped
            for line in skipped:
                log.warning("a key of the JWKS is not used: %s", line)
        if not self._keys.has_current:
            return self._failed("the keys could not be used: there is none for RS256 or ES256 among them")
        if self.problem is not None:
            log.info("the keys are fetched again")
        elif self._keys.generation != generation:
            log.info("the keys have changed")
        self.problem = None
        return True

    def _failed(self, problem: str) -> bool:
        if self.problem is None:
            log.warning("%s%s", problem, "" if self._keys.is_empty else "; those that are known stay")
        self.problem = problem
        return False


class Authenticator:
    """Tokens to principals, with the keys fetched once more where that can help."""

    def __init__(self, identity: Identity, fetcher: KeyFetcher | None) -> None:
        self._identity = identity
        self._fetcher = fetcher

    def authenticate(self, token: str) -> Principal:
        """As `Identity.authenticate`: raises Unauthorised, and UnknownKey where `authenticate_fresh` may do better."""
        return self._identity.authenticate(token)

    async def authenticate_fresh(self, token: str) -> Principal:
        """The same, but for an unknown key the keys are fetched, unless they just were, and the token is tried again.

        Raises Unauthorised.
        """
        try:
            return self._identity.authenticate(token)
        except UnknownKey:
            if self._fetcher is None or not await self._fetcher.refresh():
                raise
        return self._identity.authenticate(token)
