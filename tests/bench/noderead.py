"""Reads a file as the connection tracking table of every kube-proxy pod, and prints what came, and its cost, as JSON.

This is the work that is measured: the same calls that `analyze` and `find-affected --live` make for a node.
"""

from __future__ import annotations

import dataclasses
import json
import sys
import time

from kdnsctl import fleet
from kdnsctl.cancel import CancelScope
from kdnsctl.cluster import kubeproxy
from kdnsctl.cluster.connection import ConnectOptions, connect
from kdnsctl.cluster.lists import list_all
from kdnsctl.cluster.objects import Pod
from kdnsctl.facts import conntrack
from kdnsctl.model import SilentReporter, Toolset
from kdnsctl.reach.kubeproxyexec import KubeProxyExec
from kdnsctl.reach.shell import Reading

PODS = "/api/v1/namespaces/kube-system/pods"


def main(kubeconfig: str, table: str, nodes: str, parallel: str) -> None:
    fact = dataclasses.replace(conntrack.TABLE, commands={Toolset.KUBE_PROXY: ("cat", table)})
    with CancelScope() as scope:
        connection = connect(ConnectOptions(kubeconfig=kubeconfig, environment={}), scope)
        found = kubeproxy.locate(None, list_all(connection, PODS, Pod, scope=scope).items)
        places = {node: proxy.place for node, proxy in found.items() if proxy.place is not None}
        names = sorted(places)[: int(nodes)]

        def read(node: str, limit: CancelScope) -> Reading:
            return KubeProxyExec(connection, node, places[node]).read(fact, lambda _: None, scope=limit)

        cpu, wall = time.process_time(), time.perf_counter()
        outcomes = fleet.run(names, read, parallel=int(parallel), deadline=None, reporter=SilentReporter(), scope=scope)
        taken = {"cpu": time.process_time() - cpu, "wall": time.perf_counter() - wall}
        connection.close()
    readings = [outcome.value for outcome in outcomes if outcome.value is not None]
    complete = sum(reading.complete for reading in readings)
    print(json.dumps(taken | {"complete": complete, "received": sum(reading.received for reading in readings)}))


if __name__ == "__main__":
    main(*sys.argv[1:])
