"""A bare urllib3 thread pool that reads the logs of numbered kube-proxy pods over TLS, and does nothing with them.

    python -m tests.bench.peers.read_logs KUBECONFIG COUNT

prints how many bytes it read. The same 32 at once as find-affected; no listing, no deadlines, no judgement.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import urllib3

PARALLEL = 32
PIECE = 64 << 10  # bytes


def main(arguments: Sequence[str]) -> None:
    """Read them all."""
    config = json.loads(Path(arguments[0]).read_text(encoding="utf-8"))
    cluster = config["clusters"][0]["cluster"]
    headers = {"Authorization": f"Bearer {config['users'][0]['user']['token']}"}
    pool = urllib3.PoolManager(maxsize=PARALLEL, ca_certs=cluster["certificate-authority"], retries=False)

    def read(number: int) -> int:
        path = f"/api/v1/namespaces/kube-system/pods/kube-proxy-{number:05}/log?container=kube-proxy&timestamps=true"
        response = pool.request("GET", cluster["server"] + path, headers=headers, preload_content=False)
        if response.status != 200:
            raise SystemExit(f"{path}: HTTP {response.status}")
        size = sum(map(len, response.stream(PIECE)))
        response.release_conn()
        return size

    with ThreadPoolExecutor(PARALLEL) as threads:
        print(sum(threads.map(read, range(int(arguments[1])))))


if __name__ == "__main__":
    main(sys.argv[1:])
