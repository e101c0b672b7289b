"""Conntrack entries over netlink: list the UDP ones, delete one. What kube-proxy does itself from 1.32 on.

Speaks nfnetlink's conntrack subsystem (linux/netfilter/nfnetlink_conntrack.h) for IPv4 and only the attributes the
stand-in needs. Needs CAP_NET_ADMIN in the network namespace's user namespace.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from collections.abc import Iterator
from dataclasses import dataclass

_NETLINK_NETFILTER = 12
_CT_GET, _CT_DELETE = (1 << 8) | 1, (1 << 8) | 2
_REQUEST, _ACK, _DUMP = 0x1, 0x4, 0x300
_ERROR, _DONE = 2, 3
_TUPLE_ORIG, _TUPLE_REPLY = 1, 2
_NESTED = 0x8000


@dataclass(frozen=True, slots=True)
class Tuple:
    """One direction of a connection."""

    source: str
    destination: str
    source_port: int
    destination_port: int
    protocol: int


@dataclass(frozen=True, slots=True)
class Entry:
    """A conntrack entry: the original direction and the one replies come in."""

    original: Tuple
    reply: Tuple


def _attributes(data: bytes) -> Iterator[tuple[int, bytes]]:
    offset = 0
    while offset + 4 <= len(data):
        length, kind = struct.unpack_from("=HH", data, offset)
        if length < 4:
            return
        yield kind & 0x3FFF, data[offset + 4 : offset + length]
        offset += (length + 3) & ~3


def _parse_tuple(data: bytes) -> Tuple | None:
    source = destination = None
    protocol = source_port = destination_port = 0
    for kind, value in _attributes(data):
        if kind == 1:  # CTA_TUPLE_IP
            for ip_kind, address in _attributes(value):
                if ip_kind == 1:
                    source = socket.inet_ntoa(address)
                elif ip_kind == 2:
                    destination = socket.inet_ntoa(address)
        elif kind == 2:  # CTA_TUPLE_PROTO
            for proto_kind, number in _attributes(value):
                if proto_kind == 1:
                    protocol = number[0]
                elif proto_kind == 2:
                    source_port = struct.unpack("!H", number)[0]
                elif proto_kind == 3:
                    destination_port = struct.unpack("!H", number)[0]
    if source is None or destination is None:
        return None
    return Tuple(source, destination, source_port, destination_port, protocol)


def _attribute(kind: int, payload: bytes) -> bytes:
    length = 4 + len(payload)
    return struct.pack("=HH", length, kind) + payload + b"\0" * (-length % 4)


def _pack_tuple(value: Tuple) -> bytes:
    ip = _attribute(1, socket.inet_aton(value.source)) + _attribute(2, socket.inet_aton(value.destination))
    protocol = (
        _attribute(1, bytes([value.protocol]))
        + _attribute(2, struct.pack("!H", value.source_port))
        + _attribute(3, struct.pack("!H", value.destination_port))
    )
    return _attribute(1 | _NESTED, ip) + _attribute(2 | _NESTED, protocol)


def _open() -> socket.socket:
    link = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, _NETLINK_NETFILTER)
    link.bind((0, 0))
    return link


def _send(link: socket.socket, kind: int, flags: int, body: bytes) -> None:
    payload = struct.pack("=BBH", socket.AF_INET, 0, 0) + body
    link.send(struct.pack("=IHHII", 16 + len(payload), kind, flags, 1, 0) + payload)


def _replies(link: socket.socket) -> Iterator[bytes]:
    """Message bodies until the dump is done or acknowledged. Raises OSError with the kernel's error."""
    while True:
        data = link.recv(1 << 18)
        offset = 0
        while offset + 16 <= len(data):
            length, kind = struct.unpack_from("=IH", data, offset)
            body = data[offset + 16 : offset + length]
            if kind == _DONE:
                return
            if kind == _ERROR:
                code = -struct.unpack_from("=i", body)[0]
                if code:
                    raise OSError(code, os.strerror(code).lower())
                return
            yield body
            offset += (length + 3) & ~3


def list_udp() -> list[Entry]:
    """All IPv4 UDP entries of this network namespace. Raises OSError (EPERM without the privilege)."""
    found: list[Entry] = []
    with _open() as link:
        _send(link, _CT_GET, _REQUEST | _DUMP, b"")
        for body in _replies(link):
            parts = dict(_attributes(body[4:]))
            original = _parse_tuple(parts.get(_TUPLE_ORIG, b""))
            reply = _parse_tuple(parts.get(_TUPLE_REPLY, b""))
            if original is not None and reply is not None and original.protocol == socket.IPPROTO_UDP:
                found.append(Entry(original, reply))
    return found


def delete(entry: Entry) -> bool:
    """Delete one entry; False when it was gone already. Raises OSError."""
    with _open() as link:
        _send(link, _CT_DELETE, _REQUEST | _ACK, _attribute(_TUPLE_ORIG | _NESTED, _pack_tuple(entry.original)))
        try:
            list(_replies(link))
        except OSError as error:
            if error.errno == errno.ENOENT:
                return False
            raise
    return True
