"""nginx and HAProxy as deploy/ has them, on ports of the loopback: Debian's programs, children of the tests.

Where one is not installed its tests are skipped with the reason; with REQUIRE_PROXIES=1 they fail.
"""

from __future__ import annotations

import os
import shutil
import socket
import ssl
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.integration.waiting import wait_until
from tests.support.certificates import one_pair
from tests.support.gateway import REPOSITORY
from tests.support.ports import free_port
from tools.tied import tied

PROXIES = ("nginx", "haproxy")
# Shorter than those of deploy/, which nobody waits for.
IDLE_SECONDS = 6
# Debian has them where only root looks.
WHERE = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin"])

# All that nginx has besides the file, and what it would write where only root may.
NGINX_MAIN = """
daemon off;
master_process off;
pid {folder}/nginx.pid;
error_log stderr;
events {{ }}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    include {folder}/gateway.conf;
}}
"""


@dataclass(frozen=True)
class Proxy:
    """One that runs, and what its clients believe."""

    name: str
    url: str
    trusting: ssl.SSLContext


@contextmanager
def proxy_or_skip(name: str, gateways: Sequence[str], folder: Path) -> Iterator[Proxy]:
    """Before these two gateways (host:port)."""
    program = shutil.which(name, path=WHERE)
    if program is None:
        if os.environ.get("REQUIRE_PROXIES") == "1":
            pytest.fail(f"{name} is not installed", pytrace=False)
        pytest.skip(f"{name} is not installed")
    pair, port = one_pair(), free_port()
    cert, key = pair.write(folder)
    both = folder / "both.pem"
    both.write_bytes(pair.cert + pair.key)
    changes = dict(zip(("10.0.0.11:3000", "10.0.0.12:3000"), gateways, strict=True))
    if name == "nginx":
        changes |= {
            "listen 443 ssl": f"listen 127.0.0.1:{port} ssl",
            "/etc/ssl/gateway/cert.pem": cert,
            "/etc/ssl/gateway/key.pem": key,
            "proxy_read_timeout    75s": f"proxy_read_timeout {IDLE_SECONDS}s",
        }
        text = changed("nginx.conf", changes)
        (folder / "gateway.conf").write_text(text)
        main = folder / "nginx.conf"
        main.write_text(NGINX_MAIN.format(folder=folder))
        command = [program, "-p", str(folder), "-e", "stderr", "-c", str(main)]
    else:
        changes |= {
            "maxconn 40000": "maxconn 1000",
            "bind :443": f"bind 127.0.0.1:{port}",
            "/etc/ssl/gateway/both.pem": str(both),
            "timeout tunnel 75s": f"timeout tunnel {IDLE_SECONDS}s",
            "check inter 1s": "check inter 100ms",
        }
        main = folder / "haproxy.cfg"
        main.write_text(changed("haproxy.cfg", changes))
        command = [program, "-db", "-f", str(main)]
    log = folder / "log"
    with log.open("wb") as output, subprocess.Popen(tied(command), stdout=output, stderr=output) as process:
        try:
            wait_until(lambda: _answers(port, process, log), f"{name} listens")
            yield Proxy(name, f"https://127.0.0.1:{port}", pair.trusting())
        finally:
            process.kill()


def changed(name: str, changes: dict[str, str]) -> str:
    """A file of deploy/ with each of these changed, once."""
    text = (REPOSITORY / "deploy" / name).read_text(encoding="utf-8")
    for old, new in changes.items():
        assert text.count(old) == 1, (name, old)
        text = text.replace(old, new)
    return text


def _answers(port: int, process: subprocess.Popen[bytes], log: Path) -> bool:
    assert process.poll() is None, log.read_text(errors="replace")
    try:
        socket.create_connection(("127.0.0.1", port)).close()
    except OSError:
        return False
    return True
