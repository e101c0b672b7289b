"""The wire's texts: query strings out, JSON and warnings in. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeVar
from urllib.parse import urlencode

import msgspec

from kdnsctl.cluster.errors import AnswerError, printable

T = TypeVar("T")

Query = Mapping[str, str | int | bool | Sequence[str] | None]

MAX_WARNING = 500  # characters that are kept of a warning


def encoded(query: Query | None) -> str:
    """A query string with its question mark; parameters that are None are left out, sequences given once for each."""
    given = [(name, text) for name, value in (query or {}).items() for text in _texts(value)]
    return f"?{urlencode(given)}" if given else ""


def _texts(value: str | int | bool | Sequence[str] | None) -> Sequence[str]:  # noqa: FBT001 - one of many types
    match value:
        case None:
            return ()
        case str():
            return (value,)
        case bool():
            return (str(value).lower(),)
        case int():
            return (str(value),)
        case _:
            return value


def decode(body: bytes, type: type[T], what: str) -> T:  # noqa: A002
    """JSON as a record. Raises AnswerError, quoting how the body begins, when it is not what it should be."""
    try:
        return msgspec.json.decode(body, type=type)
    except msgspec.DecodeError as error:
        begins = printable(" ".join(body[:80].decode("utf-8", "replace").split()))
        raise AnswerError(
            f"the answer to {what} is not what Kubernetes sends: {error}; it begins: {begins!r}",
            hint="is the server really an API server, and not a proxy's sign-in page?",
        ) from error


def warning_text(header: str) -> str:
    """The text of a Warning header (`299 - "text"`, RFC 7234 section 5.5), for one line."""
    _, quote, rest = header.partition('"')
    text = rest.rpartition('"')[0].replace('\\"', '"') if quote else header
    return printable(text)[:MAX_WARNING]
