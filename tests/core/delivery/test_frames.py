from __future__ import annotations

import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

import core.delivery.frames
from core.delivery.frames import DEFLATE_FROM_BYTES, Bundle, deflated_frame, text_frame

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


# Deflated ones, which any client that negotiated it can read by itself.


def inflated(frame: bytes) -> bytes:
    """The payload of a deflated frame of fewer than 65,536 bytes, with no context from before."""
    assert frame[0] == 0xC1
    payload = frame[4:] if frame[1] == 126 else frame[2:]
    return zlib.decompressobj(wbits=-15).decompress(payload + b"\x00\x00\xff\xff")


@given(st.binary(min_size=DEFLATE_FROM_BYTES, max_size=3000))
def test_deflated_frame_reads_back_without_any_other(payload: bytes) -> None:
    frame = deflated_frame(payload)
    assert inflated(frame) == payload
    assert not frame.endswith(b"\x00\x00\xff\xff")
    assert deflated_frame(payload) == frame


def test_deflated_frame_of_a_small_message_is_plain() -> None:
    small = b"x" * (DEFLATE_FROM_BYTES - 1)
    assert deflated_frame(small) == text_frame(small)
    assert deflated_frame(small + b"x")[0] == 0xC1


def test_bundle_makes_each_kind_once_and_only_if_somebody_wants_it(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[str] = []
    text, deflated = core.delivery.frames.text_frame, core.delivery.frames.deflated_frame
    monkeypatch.setattr(core.delivery.frames, "text_frame", lambda *a: made.append("plain") or text(*a))
    monkeypatch.setattr(core.delivery.frames, "deflated_frame", lambda *a: made.append("deflated") or deflated(*a))
    long, small = b"y" * 1000, b"z"
    bundle = Bundle([long, small])
    assert made == []
    assert bundle.plain == text(long) + text(small)
    assert bundle.plain is bundle.plain
    assert made == ["plain"] * 2
    made.clear()
    whole = bundle.deflated
    assert whole.endswith(text(small))
    assert inflated(whole[: -len(text(small))]) == long
    assert bundle.deflated is whole
    assert made.count("deflated") == 2


def test_bundle_of_one_client_is_never_deflated() -> None:
    bundle = Bundle([b"y" * 1000], private=True)
    assert bundle.deflated is bundle.plain


def test_bundle_of_nothing_is_false() -> None:
    assert not Bundle([])
    assert Bundle([b""])
