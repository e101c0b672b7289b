"""Lists nodes and finds their kube-proxy pods, as find-affected does before it reads a log, and nothing else.

    python -m tests.bench.list_scope KUBECONFIG

prints how many nodes there are and how many have a pod: a process of its own, so that its memory can be measured.
"""

from __future__ import annotations

import sys

from kdnsctl.cancel import CancelScope
from kdnsctl.cluster.connection import ConnectOptions, connect
from kdnsctl.find.scope import Chosen, nodes_in_scope


def main(kubeconfig: str) -> None:
    """List them."""
    scope = CancelScope()
    connection = connect(ConnectOptions(kubeconfig=kubeconfig), scope)
    found = nodes_in_scope(connection, Chosen(), scope=scope)
    print(len(found.names), sum(proxy.place is not None for proxy in found.proxies.values()))


if __name__ == "__main__":
    main(sys.argv[1])
