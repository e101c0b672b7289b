"""The DNS server that runs as the lab's CoreDNS pods: it answers names below cluster.local from the API's Services.

Real DNS messages (dnspython) over UDP and TCP on port 53, `/health` on 8080 and `/ready` on 8181 as CoreDNS serves
them. Names outside the cluster are refused: a lab has no way out. Like CoreDNS' kubernetes plugin it is ready once it
has seen the Services; unlike it, it knows no pod names and no endpoints of headless Services.
"""

# ruff: noqa: T201, S104 - standard output is the container's log; "all interfaces" are those of a pod
from __future__ import annotations

import os
import signal
import socket
import struct
import threading
from collections.abc import Callable, Mapping, Sequence

import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rdataclass
import dns.rdatatype
import dns.rrset

from kdnsctl.lab.kubeclient import JSON, Informer, KubeClient
from kdnsctl.lab.podaccess import in_cluster_access
from kdnsctl.lab.webserver import Answer, serve_http

ZONE = "cluster.local."
TTL = 30
Lookup = Callable[[str], str | None]


class Names:
    """Service names → ClusterIP, filled by an informer."""

    def __init__(self) -> None:
        self._addresses: dict[str, str] = {}

    def on_service(self, key: str, service: JSON | None) -> None:
        namespace, _, name = key.partition("/")
        full = f"{name}.{namespace}.svc.{ZONE}"
        address = (service or {}).get("spec", {}).get("clusterIP")
        if address and address != "None":
            self._addresses[full] = address
        else:
            self._addresses.pop(full, None)

    def find(self, name: str) -> str | None:
        return self._addresses.get(name.lower())


def answer(wire: bytes, lookup: Lookup) -> bytes | None:
    """The reply to one query in wire format; None for what is not a query and deserves no reply."""
    try:
        query = dns.message.from_wire(wire)
    except dns.exception.DNSException:
        return None
    if query.flags & dns.flags.QR or not query.question:
        return None
    reply = dns.message.make_response(query, recursion_available=True)
    question = query.question[0]
    name = question.name.to_text().lower()
    if not name.endswith("." + ZONE):
        reply.set_rcode(dns.rcode.REFUSED)
        return reply.to_wire()
    reply.flags |= dns.flags.AA
    address = lookup(name)
    if address is None:
        reply.set_rcode(dns.rcode.NXDOMAIN)
    elif question.rdtype == dns.rdatatype.A:
        reply.answer.append(dns.rrset.from_text(question.name, TTL, dns.rdataclass.IN, dns.rdatatype.A, address))
    return reply.to_wire()


def _serve_udp(link: socket.socket, lookup: Lookup) -> None:
    while True:
        wire, peer = link.recvfrom(4096)
        reply = answer(wire, lookup)
        if reply is not None:
            try:
                link.sendto(reply, peer)
            except OSError:
                continue  # the asker went away; a DNS server goes on


def _serve_tcp(listener: socket.socket, lookup: Lookup) -> None:
    while True:
        link, _ = listener.accept()
        threading.Thread(target=_serve_stream, args=(link, lookup), daemon=True).start()


def _serve_stream(link: socket.socket, lookup: Lookup) -> None:
    with link, link.makefile("rb") as reader:
        link.settimeout(10)
        try:
            while len(size := reader.read(2)) == 2:
                reply = answer(reader.read(struct.unpack("!H", size)[0]), lookup)
                if reply is None:
                    return
                link.sendall(struct.pack("!H", len(reply)) + reply)
        except OSError:
            return


def main(argv: Sequence[str], env: Mapping[str, str]) -> int:  # noqa: ARG001 - every stand-in is called like this
    """Run as the container's process until SIGTERM."""
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    names = Names()
    client = KubeClient(in_cluster_access(env), "coredns (lab)")
    informer = Informer(client, "/api/v1/services", names.on_service)
    informer.start()
    datagrams = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    datagrams.bind(("0.0.0.0", 53))
    listener = socket.create_server(("0.0.0.0", 53))
    threading.Thread(target=_serve_tcp, args=(listener, names.find), daemon=True).start()
    threading.Thread(target=_serve_udp, args=(datagrams, names.find), daemon=True).start()
    serve_http("0.0.0.0", 8080, lambda _: Answer(200, b"OK"))
    ready = Answer(200, b"OK")
    waiting = Answer(503, b"kubernetes")
    serve_http("0.0.0.0", 8181, lambda _: ready if informer.synced.is_set() else waiting)
    print(".:53", flush=True)
    print("CoreDNS (stand-in of the lab)", flush=True)
    while True:
        signal.pause()


def warm_up() -> None:
    """Import what dnspython loads by name at first use; after the fork into an image there are no files to load."""
    query = dns.message.make_query(f"warm.up.svc.{ZONE}", "A", use_edns=True)
    for kind in ("A", "AAAA", "TXT", "SOA", "SRV", "PTR"):
        answer(dns.message.make_query(f"warm.up.svc.{ZONE}", kind).to_wire(), lambda _: "192.0.2.1")
    reply = answer(query.to_wire(), lambda _: "192.0.2.1")
    if reply is not None:
        dns.message.from_wire(reply)
