"""Cordon and drain nodes with the library, as a process: what `kubectl drain` does with the same arguments."""

from __future__ import annotations

import sys
from datetime import UTC, datetime

from kdnsctl.cancel import CancelScope
from kdnsctl.changes.fields import VERBS, node_path
from kdnsctl.changes.verbs import Means
from kdnsctl.cluster.connection import ConnectOptions, connect
from kdnsctl.cluster.objects import Node
from kdnsctl.model import SilentReporter, Step
from kdnsctl.quarantine.draining import drain, sender
from kdnsctl.quarantine.drainreading import read_plan
from kdnsctl.quarantine.podfilters import DrainOptions


class NoProbe:
    """There is no DNS in the cluster that is drained here."""

    def trouble(self, service: str, scope: CancelScope) -> str:
        scope.check()
        return f"{service} was not to be there"


def main(kubeconfig: str, *nodes: str) -> int:
    with CancelScope() as scope:
        connection = connect(ConnectOptions(kubeconfig=kubeconfig), scope)
        for name in nodes:
            uid = connection.get(node_path(name), Node, scope=scope).metadata.uid
            step = Step("node.cordon", {"path": node_path(name)}, uid, before=None, after=True)
            VERBS[step.verb].apply(step, Means(connection, scope))
        plan = read_plan(connection, nodes, DrainOptions(), scope, now=lambda: datetime.now(UTC)).plan
        results = drain(plan, connection, scope, SilentReporter(), send=sender(connection), probe=NoProbe())
    return 0 if all(result.drained for result in results) else 1


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
