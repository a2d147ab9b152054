from __future__ import annotations

import pytest

from core.frames import text_frame

# RFC 6455 section 5.2, written out: the length in 7 bits, in 16 after 126, in 64 after 127, big-endian.
HEADERS = {
    0: b"\x81\x00",
    1: b"\x81\x01",
    125: b"\x81\x7d",
    126: b"\x81\x7e\x00\x7e",
    127: b"\x81\x7e\x00\x7f",
    256: b"\x81\x7e\x01\x00",
    65_535: b"\x81\x7e\xff\xff",
    65_536: b"\x81\x7f\x00\x00\x00\x00\x00\x01\x00\x00",
    16_909_060: b"\x81\x7f\x00\x00\x00\x00\x01\x02\x03\x04",
}


@pytest.mark.parametrize("size", HEADERS)
def test_text_frame_has_the_shortest_header_that_holds_its_size(size: int) -> None:
    payload = b"x" * size
    assert text_frame(payload) == HEADERS[size] + payload


def test_text_frame_keeps_the_bytes_of_its_payload() -> None:
    payload = '{"symbol":"KCN/EUR","note":"größer ☃"}'.encode()
    assert text_frame(payload) == b"\x81" + bytes([len(payload)]) + payload
