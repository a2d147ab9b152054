"""Headers are read as Tornado reads them, whichever way they are looked at."""

from __future__ import annotations

from email.utils import parsedate_to_datetime

from hypothesis import example, given
from hypothesis import strategies as st
from tornado.httputil import HTTPHeaders, HTTPInputError

from handlers.http_headers import Headers, date

NAMES = st.sampled_from(["Host", "host", "HOST", "Content-Length", "content-type", "X-Other", "a b", "", "Cookie"])
VALUES = st.text(st.sampled_from("ab1 ,;:\t\r\0\x7f\x85\xa0\xad\xe9"), max_size=6)
LINES = st.builds(
    lambda name, colon, value, end: name + colon + value + end,
    NAMES,
    st.sampled_from([":", ": ", ":\t", " :", ""]),
    VALUES,
    st.sampled_from(["\r\n", "\r\n", "\r\n", "\n", "\r\r\n"]),
)


def read(kind: type[HTTPHeaders], text: str) -> list[tuple[str, str]] | None:
    """None: refused."""
    try:
        headers = kind.parse(text)
    except HTTPInputError:
        return None
    assert all(headers[name] == ",".join(headers.get_list(name)) for name in headers)
    return list(headers.get_all())


@given(st.lists(LINES, max_size=5).map("".join))
@example("Host\r\n")
@example("Host: a\r\nhost: b\r\n")
@example("Content-Length:\t1 \r\n")
@example("Cookie: a\xa0b\r\n")
def test_headers_are_those_that_tornado_reads(text: str) -> None:
    assert read(Headers, text) == read(HTTPHeaders, text)


def test_headers_of_ours_are_fields_that_can_be_set_and_dropped() -> None:
    headers = Headers({"Content-Type": "text/plain"})
    headers["date"] = "now"
    assert list(headers.get_all()) == [("Content-Type", "text/plain"), ("Date", "now")]
    del headers["content-type"]
    assert dict(headers.copy()) == {"Date": "now"}


def test_date_is_of_this_second() -> None:
    first, told, last = date(), date(), date()
    times = [parsedate_to_datetime(text) for text in (first, told, last)]
    assert times[0] <= times[1] <= times[2]
    assert times[0].tzinfo is not None
