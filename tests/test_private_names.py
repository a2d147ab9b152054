"""What is used of Tornado and asyncio that is not public, in one table: what an upgrade of either has to be looked at for.

An override can stand only in the class that overrides, so the uses cannot all be in one file; this table is.
"""

from __future__ import annotations

import ast
import asyncio
import asyncio.base_events
import asyncio.selector_events
import inspect
import selectors
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
import tornado.http1connection
import tornado.httpserver
import tornado.httputil
import tornado.ioloop
import tornado.iostream
import tornado.util
import tornado.web
import tornado.websocket

ROOT = Path(__file__).resolve().parent.parent
# By file: the library's module that has them, and the names.
USED: dict[str, list[tuple[ModuleType, str]]] = {
    "handlers/acceptor.py": [(tornado.httpserver, "_connections")],
    "handlers/bodies.py": [(tornado.web, "_headers _finished _stream_request_body")],
    "handlers/http_headers.py": [(tornado.httputil, "_as_list _combined_cache _chars_are_bytes")],
    "handlers/http_connection.py": [
        # Tornado makes its connections by name: what reads a body can be replaced only below.
        (tornado.http1connection, "_server_request_loop _read_body _read_chunked_body _deliver_body _write_finished"),
        (tornado.http1connection, "_read_finished _request_start_line"),
        (tornado.http1connection, "_max_body_size _parse_headers _disconnect_on_finish _response_start_line"),
        (
            tornado.http1connection,
            "_expected_content_remaining _write_future _pending_write _format_chunk _on_write_complete",
        ),
        (tornado.httpserver, "_HTTPRequestContext _connections"),
        (
            tornado.iostream,
            "_read_regex _read_buffer _read_buffer_size _handle_events _handle_read _handle_write _state _add_io_state _start_read",
        ),
    ],
    "handlers/tls.py": [
        (
            tornado.iostream,
            "_do_ssl_handshake _ssl_accepting _handshake_reading _handshake_writing _finish_ssl_connect _handle_events",
        ),
    ],
    "handlers/orders.py": [(tornado.web, "_headers")],
    "handlers/problems.py": [(tornado.web, "_headers _write_buffer _status_code _reason")],
    "handlers/websocket.py": [(tornado.websocket, "_WebSocketParams"), (tornado.web, "_headers _check_cross_origin")],
    "handlers/websocket_frames.py": [(tornado.util, "_websocket_mask")],
    "handlers/websocket_protocol.py": [
        (
            tornado.websocket,
            "_WebSocketParams _accept_connection _parse_extensions_header _write_frame _abort _run_callback"
            " _send_pong _wire_bytes_in _receive_frame_loop _ping_coroutine",
        ),
    ],
    "handlers/websocket_transport.py": [(tornado.iostream, "_write_buffer _total_write_done_index")],
    "services/http_client.py": [(tornado.iostream, "_read_buffer_size")],
    "process/beats.py": [(tornado.ioloop, "_run _running _schedule_next")],
    "process/event_loop.py": [(selectors, "_selector_cls")],
    "process/loop_turns.py": [(asyncio.base_events, "_ready"), (asyncio.selector_events, "_selector")],
}
# What looks private, and is documented as public.
PUBLIC = {"_asdict", "_exit", "_replace"}
FOLDERS = ("handlers", "services", "process", "wiring")


def text_of(file: str) -> str:
    return (ROOT / file).read_text("utf-8")


def made_by(source: str) -> set[str]:
    """Names that a file defines or assigns."""
    tree = ast.parse(source)
    names = {
        node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
    }
    names |= {node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}
    names |= {
        node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store)
    }
    return names


def private_names(source: str) -> Iterator[str]:
    """Names with one underscore that a file uses and does not make itself."""
    tree = ast.parse(source)
    own = made_by(source)
    for node in ast.walk(tree):
        names: list[str] = []
        if isinstance(node, ast.ImportFrom) and node.module is not None:
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.Attribute):
            names = [node.attr]
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in ("getattr", "hasattr"):
            names = [part.value for part in node.args if isinstance(part, ast.Constant) and isinstance(part.value, str)]
        yield from (name for name in names if name.startswith("_") and not name.startswith("__") and name not in own)


FILES = sorted(path.relative_to(ROOT).as_posix() for folder in FOLDERS for path in (ROOT / folder).rglob("*.py"))


def test_private_names_of_libraries_are_in_the_table() -> None:
    own = {name for file in FILES for name in made_by(text_of(file))}  # of a class that another file derives from
    listed = {file: {name for _, names in uses for name in names.split()} for file, uses in USED.items()}
    found = {file: {*private_names(text_of(file))} - own - PUBLIC - listed.get(file, set()) for file in FILES}
    assert {file: names for file, names in found.items() if names} == {}


@pytest.mark.parametrize(
    ("file", "module", "name"), [(f, m, n) for f, uses in USED.items() for m, ns in uses for n in ns.split()]
)
def test_private_name_in_the_table_is_used_and_still_there(file: str, module: ModuleType, name: str) -> None:
    assert name in text_of(file)
    assert name in inspect.getsource(module)


def test_private_names_are_found() -> None:
    source = "from x import _A\nself._own = 1\nself._own\nother._b\ngetattr(x, '_c', None)\nself.__d"
    assert set(private_names(source)) == {"_A", "_b", "_c"}
