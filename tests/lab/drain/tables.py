"""Nodes whose tables are made up: stale DNS entries on those that are broken, nothing to be read of the rules.

So a capture proves the broken ones affected, and nothing of the others. Exec is answered from memory, and runs nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

from kdnsctl.lab.recorded.playback import Answer
from kdnsctl.lab.recorded.shellplay import Played, play
from kdnsctl.lab.recorded.shelltools import NotRecordedError
from tests.lab.api.memory_runtime import MemoryRuntime

TABLE: Final = "/proc/net/nf_conntrack"
COUNT: Final = "/proc/sys/net/netfilter/nf_conntrack_count"
GONE: Final = "10.244.200.9"  # never the address of a pod
ENTRY: Final = (
    "ipv4     2 udp      17 {left} src=10.244.1.7 dst=10.96.0.10 sport={port} dport=53 "
    "src={backend} dst=10.244.1.7 sport=53 dport={port} [ASSURED] mark=0 zone=0 use=2\n"
)


class Tables(MemoryRuntime):
    """A runtime for kube-proxy's pods. `node_of` says where a pod is; `broken` are nodes with stale entries."""

    def __init__(self) -> None:
        super().__init__()
        self.broken: frozenset[str] = frozenset()
        self.node_of: Callable[[str, str], str] = lambda _namespace, _pod: ""

    def exec(self, namespace: str, pod: str, container: str, command: Sequence[str], **how: Any) -> Any:
        """See `runtime.PodRuntime.exec`."""
        del container
        files = _files(stale=self.node_of(namespace, pod) in self.broken)

        def program(words: Sequence[str]) -> bytes | None:
            return files.get(words[1]) if len(words) == 2 and words[0] == "cat" else None

        try:
            played = play(command, program, files.get)
        except NotRecordedError as error:
            played = Played(b"", f"{error}: not found\n".encode(), 127)
        return Answer(played, stdout=how.get("stdout", True), stderr=how.get("stderr", True))


def _files(*, stale: bool) -> dict[str, bytes]:
    lines = [ENTRY.format(left=100 + port, port=20000 + port, backend=GONE) for port in range(20)] if stale else []
    return {TABLE: "".join(lines).encode(), COUNT: f"{len(lines)}\n".encode()}
