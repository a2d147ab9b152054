"""Apache Kafka's jars: fetched once from Maven Central, then found without network.

They live in `.kafka/libs` of the repository; `.kafka/stamp` has the hash of the pom that they came from.
"""

from __future__ import annotations

import contextlib
import fcntl
import functools
import hashlib
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

POM = Path(__file__).with_name("pom.xml")
HOME = Path(__file__).resolve().parents[2] / ".kafka"
MADE_FROM_JARS = ("bootstrap.checkpoint", "classes.jsa")  # by cluster.prepare(); other jars need other ones
JAVA_NEEDED = 17
FETCH_TIMEOUT_SECONDS = 900

_NO_NETWORK = re.compile(
    r"unknown host|unknownhost|name resolution|name or service not known|connection refused|connect timed out"
    r"|connection timed out|network is unreachable|no route to host|offline mode|could not transfer|read timed out"
    r"|connect to \S+ failed",
    re.IGNORECASE,
)


class KafkaUnavailable(Exception):
    """A real Kafka cannot be had here. `reason` is one line that says what to do."""

    def __init__(self, reason: str) -> None:
        self.reason = reason
        super().__init__(reason)


def version() -> str:
    """The Kafka version that the pom pins."""
    return _pinned(r"<kafka\.version>([^<]+)<")


@functools.cache
def java() -> str:
    """The path of a Java new enough for the broker, `JAVA_HOME` before `PATH`.

    Raises:
        KafkaUnavailable: there is none, or it is too old.
    """
    home = os.environ.get("JAVA_HOME")
    path = shutil.which("java", path=os.path.join(home, "bin")) if home else None
    path = path or shutil.which("java")
    if path is None:
        raise KafkaUnavailable(
            f"no java found: install Java {JAVA_NEEDED} or newer (Debian: apt-get install openjdk-17-jre-headless)"
        )
    try:
        told = subprocess.run(
            [path, "-version"], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise KafkaUnavailable(f"{path} does not run ({error}): install Java {JAVA_NEEDED} or newer") from error
    found = re.search(r'version "(?:1\.)?(\d+)', told.stderr + told.stdout)
    if found is None:
        raise KafkaUnavailable(f"{path} does not tell its version: install Java {JAVA_NEEDED} or newer")
    if int(found.group(1)) < JAVA_NEEDED:
        raise KafkaUnavailable(
            f"{path} is Java {found.group(1)}, Kafka {version()} needs {JAVA_NEEDED} or newer:"
            " install one and set JAVA_HOME"
        )
    return path


def classpath(libs: Path) -> str:
    """All jars by name: the JVM's class archive does not work with a wildcard."""
    return os.pathsep.join(sorted(str(jar) for jar in libs.glob("*.jar")))


def ensure(fetch: bool = True, home: Path | None = None, say: Callable[[str], None] | None = None) -> Path:
    """The folder with Kafka's jars; fetches them where they are missing or the pom has changed.

    Args:
        fetch: False never touches the network.
        home: the folder to keep them in (default: `.kafka` in the repository).
        say: is told in one line before anything that takes seconds (default: a line on stderr).

    Raises:
        KafkaUnavailable: no usable java, or the jars are missing and cannot be fetched.
    """
    home = home or HOME
    say = say or (lambda line: print(line, file=sys.stderr, flush=True))
    java()
    if _is_current(home):
        return home / "libs"
    if not fetch:
        raise KafkaUnavailable("Kafka's jars are not here: `make kafka` fetches them")
    mvn = shutil.which("mvn")
    if mvn is None:
        raise KafkaUnavailable("no mvn found to fetch Kafka's jars: install Maven (Debian: apt-get install maven)")
    home.mkdir(exist_ok=True)
    with locked(home):
        if not _is_current(home):
            say(f"fetching Apache Kafka {version()} from Maven Central into {home.name}/ (45 MB, once) ...")
            _fetch(mvn, home)
            (home / "stamp").write_text(_pom_hash(), encoding="utf-8")
    return home / "libs"


def _pinned(pattern: str) -> str:
    found = re.search(pattern, POM.read_text(encoding="utf-8"))
    assert found is not None, f"{POM} has no {pattern}"
    return found.group(1)


def _pom_hash() -> str:
    return hashlib.sha256(POM.read_bytes()).hexdigest()


def _is_current(home: Path) -> bool:
    try:
        return (home / "stamp").read_text(encoding="utf-8") == _pom_hash() and (home / "libs").is_dir()
    except FileNotFoundError:
        return False


@contextlib.contextmanager
def locked(home: Path) -> Iterator[None]:
    """One process at a time makes something in `home`; the others wait."""
    with (home / "lock").open("w", encoding="utf-8") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _fetch(mvn: str, home: Path) -> None:
    fresh = home / "libs.new"
    for leftover in (fresh, home / "libs"):
        shutil.rmtree(leftover, ignore_errors=True)
    for name in ("stamp", *MADE_FROM_JARS):
        (home / name).unlink(missing_ok=True)
    # By its full name: looked up by prefix, the plugin is "not found" where there is no network.
    plugin = _pinned(r"<artifactId>maven-dependency-plugin</artifactId>\s*<version>([^<]+)<")
    goal = f"org.apache.maven.plugins:maven-dependency-plugin:{plugin}:copy-dependencies"
    command = [mvn, "-B", "-q", "-ntp", "-Dstyle.color=never", "-f", str(POM), goal]
    command += [f"-DoutputDirectory={fresh}", "-DincludeScope=runtime", "-Daether.connector.connectTimeout=10000"]
    try:
        told = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=FETCH_TIMEOUT_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise KafkaUnavailable(
            f"Maven Central did not deliver Kafka's jars within {FETCH_TIMEOUT_SECONDS} s: call again on a better network"
        ) from error
    except OSError as error:
        raise KafkaUnavailable(f"{mvn} does not run: {error}") from error
    if told.returncode != 0:
        output = told.stdout + told.stderr
        if _NO_NETWORK.search(output):
            raise KafkaUnavailable("Maven Central cannot be reached: connect to the network (or set Maven's proxy)")
        errors = [line for line in output.splitlines() if "[ERROR]" in line] or output.splitlines() or ["no output"]
        raise KafkaUnavailable(f"mvn could not fetch Kafka's jars: {errors[0].rpartition('[ERROR] ')[2][:300]}")
    fresh.rename(home / "libs")
