"""A Kafka that is there already, whoever started it: topics are made and deleted on it."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic


class RunningKafka:
    """A Kafka at `bootstrap`, whose topics get `replication` replicas."""

    def __init__(self, bootstrap: str, replication: int) -> None:
        self._bootstrap = bootstrap
        self.replication = replication
        self._admin: AdminClient | None = None

    @property
    def bootstrap(self) -> str:
        """The value for `bootstrap.servers`."""
        return self._bootstrap

    def create_topic(
        self,
        name: str,
        partitions: int = 4,
        config: Mapping[str, str] | None = None,
        *,
        exist_ok: bool = False,
        timeout_seconds: float = 30.0,
    ) -> None:
        """Creates a topic and waits until every partition has a leader and all its replicas are in sync.

        Raises:
            KafkaException: the cluster refused it, or could not be reached in time.
        """
        topic = NewTopic(
            name, num_partitions=partitions, replication_factor=self.replication, config=dict(config or {})
        )
        admin = self._the_admin()
        try:
            admin.create_topics([topic], request_timeout=timeout_seconds)[name].result(timeout_seconds)
        except KafkaException as error:
            if not (exist_ok and error.args[0].name() == "TOPIC_ALREADY_EXISTS"):
                raise
            partitions = 0
        deadline = time.monotonic() + timeout_seconds
        while time.monotonic() < deadline:
            known = admin.list_topics(name, timeout=timeout_seconds).topics[name].partitions
            if len(known) >= max(1, partitions) and all(
                one.leader > 0 and len(one.isrs) == self.replication for one in known.values()
            ):
                return
            time.sleep(0.02)
        raise TimeoutError(f"topic {name} has no leaders after {timeout_seconds} s")

    def delete_topic(self, name: str, timeout_seconds: float = 30.0) -> None:
        """Deletes a topic, and waits until the broker that is asked knows no more of it.

        The controller answers before: what is produced until then may still go to the old topic, and so be lost, also
        when another one of that name has been made.

        Raises:
            KafkaException: the cluster refused it, or could not be reached in time.
        """
        admin = self._the_admin()
        admin.delete_topics([name], request_timeout=timeout_seconds)[name].result(timeout_seconds)
        deadline = time.monotonic() + timeout_seconds
        while time.monotonic() < deadline:
            if name not in admin.list_topics(timeout=timeout_seconds).topics:
                return
            time.sleep(0.02)
        raise TimeoutError(f"topic {name} is still there after {timeout_seconds} s")

    def drop_topics(self, names: Sequence[str], timeout_seconds: float = 30.0) -> None:
        """Deletes topics that nobody asks for any more, in one request; brokers may know of them for a while.

        Raises:
            KafkaException: the cluster refused it, or could not be reached in time.
        """
        if names:
            for deleted in self._the_admin().delete_topics([*names], request_timeout=timeout_seconds).values():
                deleted.result(timeout_seconds)

    def _the_admin(self) -> AdminClient:
        if self._admin is None:
            self._admin = AdminClient(quiet_client(self.bootstrap))
        return self._admin


def quiet_client(bootstrap: str) -> dict[str, Any]:
    """Properties for a librdkafka client that writes nothing to stderr about brokers that are down on purpose."""
    return {
        "bootstrap.servers": bootstrap,
        "log_level": 0,
        "error_cb": lambda _error: None,
        "reconnect.backoff.ms": 20,
        "reconnect.backoff.max.ms": 500,
    }
