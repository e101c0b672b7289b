"""The lab's own door: a socket in its directory over which the commands of `lab` ask the supervisor for things.

One JSON object per line in each direction; a request is answered by one line, or by many for a stream, and an error
by `{"error": …}`. This is not part of what the lab imitates: whatever a real cluster could answer is asked of the API
instead. What is asked here is what only the lab can do: inject a fault, look into its namespaces, read its clients.
"""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Iterator, Mapping
from typing import Any

from kdnsctl.lab.spacedir import LabDir, LabError


def connect(where: LabDir, timeout: float | None = 30.0) -> socket.socket:
    """A connection to the lab's supervisor. Raises LabError when none answers.

    The path goes through a handle of the directory: a socket's own path may have at most 107 bytes.
    """
    link = socket.socket(socket.AF_UNIX)
    link.settimeout(timeout)
    try:
        directory = os.open(where.root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            link.connect(f"/proc/self/fd/{directory}/{where.control_socket.name}")
        finally:
            os.close(directory)
    except OSError as error:
        link.close()
        raise LabError(f"the lab {where.name!r} does not answer ({error.strerror}); see {where.log_file}") from None
    return link


def ask(where: LabDir, request: Mapping[str, Any], timeout: float | None = 30.0) -> dict[str, Any]:
    """One request, one answer. Raises LabError with the supervisor's words when it could not do it."""
    for reply in stream(where, request, timeout):
        return reply
    raise LabError(f"the lab {where.name!r} gave no answer to {request.get('op')!r}; see {where.log_file}")


def stream(where: LabDir, request: Mapping[str, Any], timeout: float | None = None) -> Iterator[dict[str, Any]]:
    """One request, answers until the supervisor ends them or the caller stops reading. Raises LabError."""
    try:
        with connect(where, timeout) as link:
            link.sendall(json.dumps(request).encode() + b"\n")
            with link.makefile("rb") as lines:
                for line in lines:
                    if not line.endswith(b"\n"):
                        raise ConnectionResetError("in the middle of a line")
                    reply = json.loads(line)
                    if "error" in reply:
                        raise LabError(reply["error"])
                    yield reply
    except TimeoutError:
        raise LabError(f"no answer to {request.get('op')!r} within {timeout:.0f} s") from None
    except ConnectionError as error:
        raise LabError(f"the lab {where.name!r} ended while it was asked for {request.get('op')!r}: {error}") from None
