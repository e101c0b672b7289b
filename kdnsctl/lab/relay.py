"""ProxyCommand of the generated ssh_config: standard input and output become a connection to a node's port.

    python -m kdnsctl.lab.relay LAB-DIRECTORY ADDRESS PORT

The lab's supervisor makes the connection inside its namespaces; this end only copies bytes.
"""

# ruff: noqa: T201 - standard error is the asker's terminal
from __future__ import annotations

import contextlib
import json
import os
import selectors
import socket
import sys
from pathlib import Path

from kdnsctl.lab import control
from kdnsctl.lab.spacedir import LabDir, LabError


def open_connection(where: LabDir, address: str, port: int) -> socket.socket:
    """A byte stream to address:port as seen from the lab's hub. Raises LabError."""
    link = control.connect(where, 15.0)
    try:
        reply = _dial(link, address, port)
    except OSError as error:
        link.close()
        raise LabError(f"the lab {where.name!r} ended while it was asked for {address}:{port}: {error}") from None
    if "error" in reply:
        link.close()
        raise LabError(reply["error"])
    link.settimeout(None)
    return link


def _dial(link: socket.socket, address: str, port: int) -> dict[str, str]:
    link.sendall(json.dumps({"op": "dial", "address": address, "port": port}).encode() + b"\n")
    line = b""
    while not line.endswith(b"\n"):
        piece = link.recv(1)  # what follows the line belongs to the node
        if not piece:
            raise ConnectionResetError("no whole answer")
        line += piece
    reply: dict[str, str] = json.loads(line)
    return reply


def copy_both_ways(link: socket.socket, source: int, target: int) -> None:
    """Copy until the far side ends; the end of `source` is passed on."""
    with selectors.DefaultSelector() as selector:
        selector.register(link, selectors.EVENT_READ)
        selector.register(source, selectors.EVENT_READ)
        while True:
            for key, _ in selector.select():
                if key.fileobj is link:
                    data = link.recv(65536)
                    if not data:
                        return
                    os.write(target, data)
                    continue
                data = os.read(source, 65536)
                if data:
                    link.sendall(data)
                else:
                    selector.unregister(source)
                    link.shutdown(socket.SHUT_WR)


def main(argv: list[str]) -> int:
    """Connect and copy; 1 with a message when there is no connection."""
    try:
        link = open_connection(LabDir(Path(argv[0])), argv[1], int(argv[2]))
    except LabError as error:
        print(error, file=sys.stderr)
        return 1
    with link, contextlib.suppress(ConnectionError):
        copy_both_ways(link, 0, 1)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
