"""A local HTTPS server that is fast enough to read logs from: answers are made before the first request.

    python -m tests.bench.serve DIRECTORY --nodes 1000 --size 200000 [--syncs] [--chunk 32768]

writes DIRECTORY/kubeconfig, and then says "ready" on standard output; it ends when its standard input does. It knows a
kube-proxy pod on every node, the logs of the containers, and the DNS Service, and checks the token and nothing else.
Logs come in chunks, as from an API server: one for each line (a kubelet flushes every line), or of `--chunk` bytes.
"""

from __future__ import annotations

import argparse
import json
import re
import secrets
import socket
import ssl
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final
from urllib.parse import parse_qs, unquote, urlsplit

import trustme

from kdnsctl.logs.signatures import PHRASES
from tests.bench import fleet

LOG: Final = re.compile(r"/api/v1/namespaces/kube-system/pods/kube-proxy-(\d+)/log")
POD: Final = re.compile(r"/api/v1/namespaces/kube-system/pods/kube-proxy-(\d+)")
REQUEST: Final = re.compile(rb"(?:GET|POST) (\S+) HTTP/1\.1\r\n")
LENGTH: Final = re.compile(rb"(?i)\r\nContent-Length: *([0-9]{1,6})\r\n")
REVIEW: Final = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"
OTHERS: Final = {  # what is asked for besides nodes, pods and logs, by kdnsctl and by kubectl's discovery
    "/api": {"kind": "APIVersions", "versions": ["v1"]},
    "/apis": {"kind": "APIGroupList", "apiVersion": "v1", "groups": []},
    REVIEW: {"kind": "SelfSubjectAccessReview", "spec": {}, "status": {"allowed": True}},
}


class Answers:
    """Whole answers, head included, by what is asked for."""

    def __init__(self, count: int, logs: tuple[list[fleet.Log], list[fleet.Log]], chunk: int) -> None:
        self._nodes = fleet.nodes(count)
        self._pods = fleet.pods(count)
        self._logs = [[_chunked(log, chunk) for log in kind] for kind in logs]
        self._others = {path: _whole(json.dumps(body).encode()) for path, body in OTHERS.items()}
        self._others["/api/v1"] = _whole((fleet.API / "discovery-api-v1.json").read_bytes())
        service = json.loads((fleet.API / "service-kube-dns.json").read_text(encoding="utf-8"))
        self._others["/api/v1/services"] = _whole(json.dumps({"metadata": {}, "items": [service]}).encode())
        self._missing = _status(404, "NotFound")
        no_previous = 'previous terminated container "kube-proxy" in pod "kube-proxy" not found'
        self._no_previous = _status(400, "BadRequest", no_previous)
        self._empty = _whole(b'{"metadata":{},"items":[]}')

    def find(self, target: str) -> bytes:
        """The answer to a GET, or to the question whether we may: always yes."""
        parts = urlsplit(target)
        if log := LOG.fullmatch(parts.path):
            number = int(log[1])
            if "previous=true" in parts.query:
                return self._no_previous
            return self._logs[fleet.is_bad(number)][number % fleet.DIFFERENT]
        if pod := POD.fullmatch(parts.path):
            return _whole(b'{"kind":"Pod","apiVersion":"v1",' + self._pods[int(pod[1])][1:])
        if parts.path == "/api/v1/nodes":
            return _page(self._nodes, parts.query)
        if parts.path == "/api/v1/namespaces/kube-system/pods":
            ours = "labelSelector" not in parts.query or "k8s-app=kube-proxy" in unquote(parts.query)
            return _page(self._pods, parts.query) if ours else self._empty
        if parts.path in self._others:
            return self._others[parts.path]
        return self._empty if parts.path.endswith(("endpointslices", "daemonsets", "pods")) else self._missing


def _whole(body: bytes, status: str = "200 OK") -> bytes:
    head = f"HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


def _status(code: int, reason: str, message: str = "") -> bytes:
    body = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": reason, "code": code}
    return _whole(json.dumps({**body, "message": message, "metadata": {}}).encode(), f"{code} {reason}")


def _chunked(log: fleet.Log, chunk: int) -> bytes:
    body = b"".join(log.lines)
    pieces = log.lines if chunk == 0 else [body[begin : begin + chunk] for begin in range(0, len(body), chunk)]
    head = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nTransfer-Encoding: chunked\r\n\r\n"
    return head + b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n"


def _page(objects: Sequence[bytes], query: str) -> bytes:
    asked = parse_qs(query)
    begin = int(asked.get("continue", ["0"])[0])
    end = min(len(objects), begin + int(asked.get("limit", [str(len(objects))])[0]))
    more = f',"continue":"{end}"' if end < len(objects) else ""
    head = f'{{"kind":"List","metadata":{{"resourceVersion":"1"{more}}},"items":['.encode()
    return _whole(head + b",".join(objects[begin:end]) + b"]}")


def _serve(connection: socket.socket, context: ssl.SSLContext, find: Callable[[str], bytes], token: bytes) -> None:
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    try:
        with context.wrap_socket(connection, server_side=True) as link:
            held = b""
            while data := link.recv(65536):
                held += data
                while b"\r\n\r\n" in held:
                    head, _, held = held.partition(b"\r\n\r\n")
                    request = REQUEST.match(head + b"\r\n")
                    if length := LENGTH.search(head + b"\r\n"):
                        while len(held) < int(length[1]):
                            held += link.recv(65536) or bytes(int(length[1]))  # it hung up: zeros will do
                        held = held[int(length[1]) :]
                    allowed = request is not None and token in head
                    link.sendall(find(request[1].decode()) if request and allowed else _status(401, "Unauthorized"))
    except (OSError, ssl.SSLError):
        return  # the client went away


def _accept(listener: socket.socket, context: ssl.SSLContext, answers: Answers, token: bytes) -> None:
    while True:
        connection, _ = listener.accept()
        threading.Thread(target=_serve, args=(connection, context, answers.find, token), daemon=True).start()


def main(arguments: Sequence[str] | None = None) -> None:
    """Serve until standard input ends."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.serve")
    parser.add_argument("directory", type=Path)
    parser.add_argument("--nodes", type=int, default=1000)
    parser.add_argument("--size", type=int, default=200_000)
    parser.add_argument("--syncs", action="store_true")
    parser.add_argument("--chunk", type=int, default=0)
    options = parser.parse_args(arguments)
    answers = Answers(options.nodes, fleet.make_logs(options.size, syncs=options.syncs, phrases=PHRASES), options.chunk)
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost", "127.0.0.1").configure_cert(context)
    listener = socket.create_server(("127.0.0.1", 0), backlog=1024)
    token = secrets.token_hex()
    server = f"https://127.0.0.1:{listener.getsockname()[1]}"
    (options.directory / "ca.crt").write_bytes(authority.cert_pem.bytes())
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "bench",
        "contexts": [{"name": "bench", "context": {"cluster": "bench", "user": "bench"}}],
        "clusters": [
            {
                "name": "bench",
                "cluster": {"server": server, "certificate-authority": str(options.directory / "ca.crt")},
            }
        ],
        "users": [{"name": "bench", "user": {"token": token}}],
    }
    (options.directory / "kubeconfig").write_text(json.dumps(config), encoding="utf-8")
    threading.Thread(target=_accept, args=(listener, context, answers, token.encode()), daemon=True).start()
    print("ready", flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    main()
