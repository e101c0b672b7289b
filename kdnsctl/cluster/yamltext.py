"""YAML into records, where every fault of the text is one kind of error. Pure."""

from __future__ import annotations

from typing import TypeVar

import msgspec

T = TypeVar("T")


def decode_yaml(text: bytes | str, type: type[T]) -> T:  # noqa: A002
    """The record that `text` holds. Raises msgspec.ValidationError for a wrong type, msgspec.DecodeError for no YAML.

    PyYAML lets through what its constructors stumble over: a date of the year 0 is a ValueError, `!!timestamp x` an
    AttributeError, a thousand brackets a RecursionError.
    """
    try:
        return msgspec.yaml.decode(text, type=type)
    except (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError) as error:
        if isinstance(error, msgspec.DecodeError):
            raise
        raise msgspec.DecodeError(f"{error.__class__.__name__}: {error}") from error
