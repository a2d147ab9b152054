"""Which request targets may be passed on: what any server behind could read in another way is refused.

The invariant: no spelling of a path that passes reaches `/internal` of the account service, whatever it decodes or
normalises. Dot segments, empty segments and encoded separators are refused rather than resolved, because the two ends
would have to resolve them alike.
"""

from __future__ import annotations

import re
import unicodedata
from urllib.parse import unquote_to_bytes

from handlers.problems import Refusal

# A path that changes when it is decoded so often is nobody's name for anything.
_MAX_DECODINGS = 3

_is_bad_percent = re.compile(r"%(?![0-9A-Fa-f]{2})").search
_is_encoded_separator = re.compile(r"%(?:2f|5c|00)", re.IGNORECASE).search
_parameters = re.compile(r";[^/]*")
_ends = re.compile(r"[?#\0]")


def check_target(target: str) -> None:
    """Look at a raw request target (path and query). Raises `Refusal`: 404 for `/internal`, 400 for doubtful spelling."""
    path = target.partition("?")[0]
    spellings = _spellings(path)
    if any(_is_internal(spelling) for spelling in spellings):
        raise Refusal("not-found", "there is nothing here")
    if not target.isascii() or "#" in target or not target.isprintable() or " " in target:
        raise Refusal("bad-request", "the request target: expected visible ASCII without a fragment")
    if _is_bad_percent(path):
        raise Refusal("bad-request", "the path: expected two hexadecimal digits after each %")
    if len(spellings) > _MAX_DECODINGS and _decoded(spellings[-1]) != spellings[-1]:
        raise Refusal("bad-request", "the path is encoded more than once or twice")
    for spelling in spellings:
        if _is_doubtful(spelling):
            raise Refusal("bad-request", "the path: no dot segments, empty segments, backslashes or encoded separators")


def _spellings(path: str) -> list[str]:
    """The path as it came, and decoded again and again; bytes that are not UTF-8 become lone surrogates."""
    spellings = [path]
    while len(spellings) <= _MAX_DECODINGS and (decoded := _decoded(spellings[-1])) != spellings[-1]:
        spellings.append(decoded)
    return spellings


def _decoded(spelling: str) -> str:
    return unquote_to_bytes(spelling.encode("utf-8", "surrogateescape")).decode("utf-8", "surrogateescape")


def _is_doubtful(spelling: str) -> bool:
    # What looks like a separator to a server that folds full-width letters is none that we have checked.
    folded = unicodedata.normalize("NFKC", spelling)
    if any(folded.count(char) != spelling.count(char) for char in "/\\.%;?#"):
        return True
    # "Cc": control characters; "Cs": lone surrogates, so bytes that are not UTF-8, overlong forms of "/" among them.
    if "\\" in spelling or any(unicodedata.category(char) in ("Cc", "Cs") for char in spelling):
        return True
    bare = _parameters.sub("", spelling)
    segments = [segment.strip(" ") for segment in bare.split("/")]
    return (
        "" in segments[1:-1]
        or any(segment and not segment.strip(". ") for segment in segments)
        or bool(_is_encoded_separator(spelling))
    )


def _is_internal(spelling: str) -> bool:
    """Whether the most generous of servers would look under /internal."""
    folded = unicodedata.normalize("NFKC", spelling).casefold().replace("\\", "/")
    resolved: list[str] = []
    for segment in _parameters.sub("", _ends.split(folded, maxsplit=1)[0]).split("/"):
        name = segment.strip(" .\t\r\n")
        if name:
            resolved.append(name)
        elif ".." in segment and resolved:
            resolved.pop()
    return resolved[:1] == ["internal"]
