"""Which server, as whom, and by which way: what a connection is to, as data. It does nothing."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import urlsplit

from kdnsctl.cluster.proxies import Proxy


@dataclass(frozen=True, slots=True)
class Impersonation:
    """As whom requests are made, if not as who we are. Sent with every request."""

    user: str
    groups: tuple[str, ...] = ()
    uid: str = ""
    extra: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Target:
    """Which server, and as whom: what a confirmation shows. `context` is empty when none applied."""

    server: str
    context: str = ""
    cluster: str = ""
    user: str = ""
    tls_server_name: str = ""
    proxy: Proxy | None = None
    impersonation: Impersonation | None = None

    @property
    def address(self) -> str:
        """HOST:PORT."""
        parts = urlsplit(self.server)
        host, port = parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)
        return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"

    @property
    def expected_name(self) -> str:
        """What the server's certificate has to be made out to."""
        return self.tls_server_name or urlsplit(self.server).hostname or ""

    def __str__(self) -> str:
        who = f" as {self.user}" if self.user else ""
        acting = f" impersonating {self.impersonation.user}" if self.impersonation else ""
        context = f" (context {self.context})" if self.context else ""
        return f"{self.server}{context}{who}{acting}"
