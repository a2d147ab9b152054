"""The page's files, given to the browser as the gateway would give them, with no gateway behind."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from handlers.console import PAGE_HEADERS

REPOSITORY = Path(__file__).resolve().parent.parent.parent
# Names that Chromium is told to find at the server of files. Under `.localhost`, because elsewhere plain http is no
# secure context.
ORIGIN = "http://console.localhost"
OPERATORS_ORIGIN = "http://operators.localhost"
# Of either origin, and nothing in it does anything: where a page waits for its next test.
RESTING_PLACE = "/console/favicon.svg"
CONTENT_TYPES = {".html": "text/html", ".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml"}


@contextlib.contextmanager
def served_files() -> Iterator[str]:
    """The working tree's files at both origins, for a Chromium that is started with the switch given here.

    A file that Playwright gives to the browser instead takes three processes more, and a fifth of a page's time.
    """
    with _FileServer(("127.0.0.1", 0), _Files) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            rules = [f"MAP {origin.rpartition('/')[2]}:80 127.0.0.1:{server.server_port}" for origin in _FOLDERS]
            yield f"--host-resolver-rules={','.join(rules)}"
        finally:
            server.shutdown()
            thread.join()


# By origin: what stands at which address, the first that fits.
_FOLDERS = {
    ORIGIN: {
        "/harness.js": "tests/browser/harness.js",
        "/console/client/": "clients/js/lib/",
        "/console/": "console/",
        "/": "console/index.html",
    },
    OPERATORS_ORIGIN: {"/console/": "console/", "/admin/page/": "operators/", "/admin/": "operators/index.html"},
}


class _FileServer(ThreadingHTTPServer):
    # Connections that wait to be taken: a browser opens a dozen at once, and one that finds no room comes back in seconds.
    request_queue_size = 128
    # Closing waits for the threads, and with them for their sockets' end: the browser has ended before.
    daemon_threads = False


class _Files(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"  # which keeps connections
    wbufsize = -1  # head and body in one packet: the second of two would wait until the first is acknowledged

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        folders = _FOLDERS[f"http://{self.headers['Host']}"]
        begin = next((begin for begin in folders if path.startswith(begin)), "")
        file = REPOSITORY / (folders.get(begin, "") + path.removeprefix(begin))
        if not file.is_file():
            self.send_response(404)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        body = file.read_bytes()
        self.send_response(200)
        headers = {**PAGE_HEADERS, "Content-Type": CONTENT_TYPES[file.suffix], "Content-Length": str(len(body))}
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Nothing: the browser's complaints are looked at."""
