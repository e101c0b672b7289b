"""Which proxy is between us and the API server, if any: the kubeconfig's `proxy-url`, else the environment.

Rules of Go's net/http (golang.org/x/net/http/httpproxy), which kubectl follows: HTTPS_PROXY for https servers,
HTTP_PROXY for http ones, in either case of letters; NO_PROXY is a list of names (with their subdomains), addresses,
networks and host:port, or `*`; a server on this very machine is never asked through a proxy. A `proxy-url` is used
whatever NO_PROXY says.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import unquote, urlsplit

from kdnsctl.cluster.errors import KubeconfigError

SCHEMES = {"http": 80, "https": 443, "socks5": 1080, "socks5h": 1080}


@dataclass(frozen=True, slots=True)
class Proxy:
    """A proxy; `origin` says who wants it. `user` and `password` are for HTTP proxies."""

    scheme: str
    host: str
    port: int
    origin: str
    user: str = ""
    password: str = ""

    @property
    def url(self) -> str:
        """Without the password, for messages and for urllib3, which gets that apart."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{host}:{self.port}"

    def __str__(self) -> str:
        return f"{self.url} ({self.origin})"

    def __repr__(self) -> str:
        return f"Proxy({self.url}, {self.origin})"


def proxy_for(scheme: str, host: str, port: int, proxy_url: str | None, environment: Mapping[str, str]) -> Proxy | None:
    """The proxy for a server, or None. Raises KubeconfigError for one that cannot be used."""
    if proxy_url:
        return parse(proxy_url, "proxy-url in the kubeconfig")
    for name in (f"{scheme.upper()}_PROXY", f"{scheme}_proxy"):
        value = environment.get(name)
        if value:
            if bypassed(host, port, environment.get("NO_PROXY") or environment.get("no_proxy") or ""):
                return None
            return parse(value if "://" in value else f"http://{value}", name)
    return None


def parse(url: str, origin: str) -> Proxy:
    """A proxy from its URL."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise KubeconfigError(f"{origin} is no URL: {error}") from error
    if parts.scheme not in SCHEMES or not parts.hostname:
        shown = f"{parts.scheme}://{parts.hostname or ''}"
        raise KubeconfigError(
            f"{origin} cannot be used: {shown}", hint=f"known are {', '.join(sorted(SCHEMES))} proxies"
        )
    user, password = unquote(parts.username or ""), unquote(parts.password or "")
    return Proxy(parts.scheme, parts.hostname, port or SCHEMES[parts.scheme], origin, user, password)


def bypassed(host: str, port: int, no_proxy: str) -> bool:
    """Whether NO_PROXY excepts this server, or it is this machine."""
    name = host.lower().rstrip(".")
    try:
        address = ipaddress.ip_address(name)
    except ValueError:
        address = None
    if name == "localhost" or (address and address.is_loopback):
        return True
    return any(_matches(part.strip().lower(), name, port, address) for part in no_proxy.split(",") if part.strip())


def _matches(part: str, name: str, port: int, address: ipaddress.IPv4Address | ipaddress.IPv6Address | None) -> bool:
    if part == "*":
        return True
    try:
        network = ipaddress.ip_network(part, strict=False)
    except ValueError:
        pass
    else:
        return address is not None and address in network
    wanted, colon, wanted_port = part.rpartition(":")
    if colon and wanted_port.isdecimal():
        if int(wanted_port) != port:
            return False
        part = wanted.strip("[]")
    if part.startswith("*."):
        part = part[1:]
    if part.startswith("."):
        return name.endswith(part)
    return name == part or name.endswith(f".{part}")
