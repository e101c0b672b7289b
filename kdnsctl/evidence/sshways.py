"""Opening shells over SSH to the nodes of a cluster: at the Node's InternalIP, with the key that is known for its name.

DNS is not asked for a node: it may be what is broken. What the connection is made of is known to `reach`.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from kdnsctl.cancel import CancelScope
from kdnsctl.reach.shell import NodeShell
from kdnsctl.reach.sshconfig import SshOptions, way_to
from kdnsctl.reach.sshshell import OPENSSH, SSH, Host, SshShell

if TYPE_CHECKING:
    from kdnsctl.reach.hostkeys import HostKeys
    from kdnsctl.reach.sshlogin import KeyRing, Secrets


class SshWays:
    """SSH to any node. `addresses` are asked for the InternalIP of a node; `openssh`: with the OpenSSH client.

    `policy` is one of `hostkeys.Policy`. What SSH needs is imported at the first node that is reached so.
    """

    def __init__(
        self,
        options: SshOptions,
        secrets: Secrets,
        *,
        policy: str,
        openssh: bool,
        note: Callable[[str], None],
    ) -> None:
        self._options = options
        self._secrets = secrets
        self._policy = policy
        self._openssh = openssh
        self._note = note
        self._lock = threading.Lock()
        self._known: tuple[HostKeys, KeyRing] | None = None
        self.addresses: Mapping[str, str] = {}

    @property
    def rung(self) -> str:
        """What the reports call it."""
        return OPENSSH if self._openssh else SSH

    def by_openssh(self) -> SshWays:
        """The same, with the OpenSSH client."""
        other = SshWays(self._options, self._secrets, policy=self._policy, openssh=True, note=self._note)
        other.addresses = self.addresses
        return other

    def open(self, node: str, scope: CancelScope, opened: contextlib.ExitStack) -> NodeShell:
        """Log in at a node, and see that commands run there; `opened` closes it. Raises KdnsctlError."""
        from kdnsctl.reach.hostkeys import Policy  # noqa: PLC0415
        from kdnsctl.reach.openssh import OpenSsh  # noqa: PLC0415
        from kdnsctl.reach.sshconnection import SshConnection  # noqa: PLC0415

        hops = way_to(node, self._options, address=self.addresses.get(node), alias=node)
        host: Host
        if self._openssh:
            host = opened.enter_context(OpenSsh.open(hops, self._options, scope, policy=Policy(self._policy)))
        else:
            host_keys, keys = self._shared()
            host = opened.enter_context(SshConnection.open(hops, host_keys, keys, scope))
        shell = SshShell(host, node, self.rung, self._secrets.sudo_password)
        shell.probe(scope)
        return shell

    def _shared(self) -> tuple[HostKeys, KeyRing]:
        """Known hosts and keys, which are read once for all nodes."""
        from kdnsctl.reach.hostkeys import HostKeys, Policy  # noqa: PLC0415
        from kdnsctl.reach.sshlogin import KeyRing  # noqa: PLC0415

        with self._lock:
            if self._known is None:
                self._known = HostKeys(Policy(self._policy), self._note), KeyRing(self._secrets)
            return self._known
