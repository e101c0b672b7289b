"""Which Service a log line is about, and whether that is one of those asked for. Pure.

Offline nobody can be asked which Service is the DNS Service, so one is taken for it by its name; a line that names no
Service at all is never taken to be about another one.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from kdnsctl.model import UsageError


def checked(services: Sequence[str]) -> tuple[str, ...]:
    """The Services asked for as "namespace/name"; raises UsageError for anything else."""
    for service in services:
        namespace, slash, name = service.partition("/")
        if not (namespace and slash and name) or "/" in name or ":" in name:
            raise UsageError(f"--service {service!r} is not NAMESPACE/NAME", hint="for example kube-system/kube-dns")
    return tuple(services)


def concerns(service: str, services: Sequence[str]) -> bool:
    """Whether a line about "namespace/name:port" is about one of `services`, or about DNS when none are given.

    DNS Services have many names (kube-dns, coredns, rke2-coredns-rke2-coredns, dns-default), and ports called dns:
    "dns" in the name or the port is enough.
    """
    if not service:
        return True
    name = service.partition(":")[0]
    return name in services if services else "dns" in service.partition("/")[2].lower()


def resolved(service: str, vip: str, addresses: Mapping[str, Collection[str]], services: Sequence[str]) -> str:
    """The Service port of a line: as it says itself, else by its address where other lines tie that to Service ports.

    Of several ports at one address it is the one that concerns `services`: what may be about DNS is about DNS.
    """
    if service:
        return service
    known = addresses.get(vip, ())
    return min([name for name in known if concerns(name, services)] or known, default="")
