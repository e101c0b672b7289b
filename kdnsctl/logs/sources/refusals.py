"""Files that hold an error message where a log was asked for: `kubectl logs … > FILE 2>&1`, and nobody answered.

Such a file shows that somebody looked for this log and did not get it; it is no evidence of anything else. Texts:
kubectl's, the API server's Status objects (recorded on 1.36.2), the kubelet's (pkg/kubelet/kuberuntime and server).
"""

from __future__ import annotations

import re
import unicodedata

from kdnsctl.logs.klog import decode_object

LARGEST = 4_096
"""Bytes of the longest file that is taken for an error message."""
_LONGEST_SHOWN = 200

_REFUSALS = re.compile(
    rb"(?i)(?:Error from server|error: |Unable to connect to the server|The connection to the server|"
    rb"unable to retrieve container logs for |failed to try resolving symlinks in path|"
    rb"failed to create fsnotify watcher|rpc error: |container \S+ in pod \S+ is |Get \"?https?://|dial tcp |"
    rb"context deadline exceeded|(?:[^\s:]+: ){0,2}(?:line \d+: )?kubectl: (?:command )?not found)"
)
_FIRST_LINES = 20
"""Lines among which the message is looked for: kubectl talks before it fails ("Defaulted container …", warnings)."""
_NO_PREVIOUS = re.compile(rb"previous terminated container \S+ in pod \S+ not found")


def refusal(body: bytes) -> str:
    """The error message, in one printable line, that `body` consists of; "" when it is none.

    That there is no previous container is not an error but an answer, and gives "" too.
    """
    if len(body) > LARGEST or _NO_PREVIOUS.search(body.replace(b'\\"', b'"')):
        return ""
    text = body.strip()
    status = decode_object(text) if text.startswith(b"{") else None
    if status is not None:
        message = status.get("message")
        return _shown(str(message)) if status.get("kind") == "Status" and message else ""
    lines = text.split(b"\n")
    for number, line in enumerate(lines[:_FIRST_LINES]):
        if _REFUSALS.match(line.strip()):
            return _shown(b"\n".join(lines[number:]).decode("utf-8", "replace"))
    return ""


def _shown(text: str) -> str:
    line = " ".join(text.split())
    line = "".join("?" if unicodedata.category(character).startswith("C") else character for character in line)
    return line if len(line) <= _LONGEST_SHOWN else line[:_LONGEST_SHOWN] + "…"
