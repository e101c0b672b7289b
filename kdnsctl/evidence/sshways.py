"""Opening shells over SSH to the nodes of a cluster: at the Node's InternalIP, with the key that is known for its name.

DNS is not asked for a node: it may be what is broken. What the connection is made of is known to `reach`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from typing import Final

from kdnsctl.cancel import CancelScope
from kdnsctl.reach.hostkeys import HostKeys, Policy
from kdnsctl.reach.openssh import OpenSsh
from kdnsctl.reach.shell import NodeShell
from kdnsctl.reach.sshconfig import SshOptions, way_to
from kdnsctl.reach.sshconnection import SshConnection
from kdnsctl.reach.sshlogin import KeyRing, Secrets
from kdnsctl.reach.sshshell import OPENSSH, SSH, Host, SshShell

POLICIES: Final = tuple(policy.value for policy in Policy)


class SshWays:
    """SSH to any node. `addresses` are asked for the InternalIP of a node; `openssh`: with the OpenSSH client."""

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
        self._policy = Policy(policy)
        self._openssh = openssh
        self._host_keys = HostKeys(self._policy, note)
        self._keys = KeyRing(secrets)
        self.addresses: Mapping[str, str] = {}

    @property
    def rung(self) -> str:
        """What the reports call it."""
        return OPENSSH if self._openssh else SSH

    def open(self, node: str, scope: CancelScope, opened: contextlib.ExitStack) -> NodeShell:
        """Log in at a node; `opened` closes it. Raises KdnsctlError."""
        hops = way_to(node, self._options, address=self.addresses.get(node), alias=node)
        host: Host
        if self._openssh:
            host = opened.enter_context(OpenSsh.open(hops, self._options, scope, policy=self._policy))
        else:
            host = opened.enter_context(SshConnection.open(hops, self._host_keys, self._keys, scope))
        return SshShell(host, node, self.rung, self._secrets.sudo_password)
