"""Writes the example incident into a directory (default: this one): `python make.py [DIRECTORY]`.

Composed, not recorded; README.md says what is in it. The same every time: no clock, no chance.
"""

from __future__ import annotations

import gzip
import json
import random
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

VIP = "10.96.0.10"
GONE = ("10.244.1.5", "10.244.3.9")
NEW = ("10.244.2.17", "10.244.4.11")
DAY = datetime(2026, 3, 12, tzinfo=UTC)
CRI_LIMIT = 16 * 1024  # the runtime cuts longer lines into fragments


@dataclass(frozen=True)
class Record:
    """One record as klog prints it behind the header; further lines of it, if any, behind newlines."""

    at: datetime
    severity: str
    place: str
    text: str

    def klog(self) -> str:
        return f"{self.severity}{self.at:%m%d %H:%M:%S.%f}       1 {self.place}] {self.text}"


@dataclass(frozen=True)
class File:
    """`packed`: gzip; `kept` is the part of the packed file that survived."""

    text: str
    packed: bool = False
    kept: float = 1.0

    def content(self) -> bytes:
        if not self.packed:
            return self.text.encode()
        whole = gzip.compress(self.text.encode(), mtime=0)
        return whole[: int(len(whole) * self.kept)]


def at(clock: str, day: int = 0) -> datetime:
    hour, minute, second = clock.split(":")
    return DAY + timedelta(days=day, hours=int(hour), minutes=int(minute), seconds=float(second))


# What kube-proxy says


def start(node: str, moment: datetime, version: str, *, quoted: bool = True) -> list[Record]:
    """A start at -v=2. `quoted`: structured logging, as from 1.23 on."""
    minor = int(version.split(".")[1])
    flags = ('--config="/var/lib/kube-proxy/config.conf"', f'--hostname-override="{node}"', '--v="2"')
    said: list[tuple[str, str]] = [("flags.go:64", f"FLAG: {flag}") for flag in flags]
    if quoted:
        said += [
            ("server.go:872" if minor < 32 else "server.go:539", f'"Version info" version="{version}"'),
            (
                "server.go:874" if minor < 32 else "server.go:541",
                '"Golang settings" GOGC="" GOMAXPROCS="" GOTRACEBACK=""',
            ),
            ("server_linux.go:165" if minor < 32 else "server_linux.go:137", '"Using iptables Proxier"'),
            *(
                ("config.go:200", f'"Starting {what} config controller"')
                for what in ("service", "endpoint slice", "node")
            ),
            *(
                ("shared_informer.go:320", f"Caches are synced for {what} config")
                if minor < 34
                else ("shared_informer.go:388", f'"Caches are synced" controller="{what} config"')
                for what in ("node", "service", "endpoint slice")
            ),
        ]
    else:
        said += [
            ("server.go:650", f"Version: {version}"),
            ("server_others.go:185", "Using iptables Proxier."),
            ("config.go:315", "Starting service config controller"),
            ("config.go:224", "Starting endpoint slice config controller"),
            ("shared_informer.go:247", "Caches are synced for service config"),
        ]
    return [
        Record(moment + timedelta(milliseconds=7 * index, microseconds=13 * index * index), "I", place, text)
        for index, (place, text) in enumerate(said)
    ]


def syncs(begin: datetime, end: datetime, seed: int, text: Callable[[float], tuple[str, str]]) -> list[Record]:
    """Syncs every quarter of an hour or so."""
    chance = random.Random(seed)
    records = []
    moment = begin + timedelta(seconds=chance.uniform(1, 30))
    while moment < end:
        place, said = text(chance.uniform(21, 64))
        records.append(Record(moment, "I", place, said))
        moment += timedelta(seconds=chance.uniform(500, 1300))
    return records


def complete(milliseconds: float) -> tuple[str, str]:
    return "proxier.go:799", f'"SyncProxyRules complete" elapsed="{milliseconds:.6f}ms"'


def complete_1_31(milliseconds: float) -> tuple[str, str]:
    return "proxier.go:822", f'"SyncProxyRules complete" ipFamily="IPv4" elapsed="{milliseconds:.6f}ms"'


def took(milliseconds: float) -> tuple[str, str]:
    return "proxier.go:812", f"syncProxyRules took {milliseconds:.6f}ms"


def deletion_failed(moment: datetime, endpoint: str, clients: Sequence[tuple[str, int]]) -> Record:
    """conntrack -D had deleted some entries, then one expired under its hands and it gave up."""
    deleted = "".join(
        f"udp      17 {7 + port % 113} src={client} dst={VIP} sport={port} dport=53 [UNREPLIED] src={endpoint} "
        f"dst={client} sport=53 dport={port} mark=0 use=1\n"
        for client, port in clients
    )
    output = deleted + "conntrack v1.4.7 (conntrack-tools): Operation failed: such conntrack doesn't exist\n"
    error = (
        f"error deleting conntrack entries for UDP peer {{{VIP}, {endpoint}}}, error: conntrack command returned: "
        f"{json.dumps(output)}, error message: exit status 1"
    )
    text = f'"Failed to delete endpoint connections" err={json.dumps(error)} servicePortName="kube-system/kube-dns:dns"'
    return Record(moment, "E", "cleanup.go:99", text)


def lock_held(moment: datetime) -> list[Record]:
    """One failed sync of 1.20: the error has real newlines in it."""
    held = "Another app is currently holding the xtables lock"
    waiting = [f"{held}; still {left}s 0us time ahead to have a chance to grab the lock..." for left in (4, 3, 2, 1)]
    output = "\n".join([*waiting, f"{held}. Stopped waiting after 5s.\n"])
    return [
        Record(moment, "E", "proxier.go:1609", f"Failed to execute iptables-restore: exit status 4 ({output})"),
        Record(moment + timedelta(microseconds=88), "I", "proxier.go:779", "Sync failed; retrying in 30s"),
    ]


# How it was written down


def cri(records: Iterable[Record]) -> str:
    """The runtime's file on the node."""
    lines = []
    for record in records:
        stamp = f"{record.at + timedelta(microseconds=61):%Y-%m-%dT%H:%M:%S.%f}204Z stderr"
        for line in record.klog().split("\n"):
            pieces = [line[begin : begin + CRI_LIMIT] for begin in range(0, len(line), CRI_LIMIT)] or [""]
            lines += [f"{stamp} P {piece}" for piece in pieces[:-1]] + [f"{stamp} F {pieces[-1]}"]
    return "".join(f"{line}\n" for line in lines)


def timestamps(records: Iterable[Record]) -> str:
    """`kubectl logs --timestamps`."""
    return "".join(
        f"{record.at + timedelta(microseconds=61):%Y-%m-%dT%H:%M:%S.%f}204Z {line}\n"
        for record in records
        for line in record.klog().split("\n")
    )


def klog_json(at_: datetime, place: str, message: str, **values: object) -> str:
    """A record of --logging-format=json: an error has "err", anything else has "v"."""
    said: dict[str, object] = {"ts": at_.timestamp() * 1000, "caller": place, "msg": message}
    if "err" not in values:
        said["v"] = 2 if "elapsed" in values else 0
    return json.dumps({**said, **values}, separators=(",", ":")) + "\n"


# The nodes


def node_a() -> dict[str, File]:
    """kube-proxy was rolled together with CoreDNS; both clean-ups were given up half-way."""
    chance = random.Random("clients of node-a")
    clients = [(f"10.244.5.{chance.randrange(2, 40)}", chance.randrange(32768, 60999)) for _ in range(146)]
    begin = at("07:30:00", day=-1)
    rotated = at("20:30:15", day=-1)
    killed = at("09:58:09")
    before = start("node-a", begin, "v1.30.3") + syncs(begin, killed, 1, complete)
    restarted = at("09:58:11.204917")
    after = [
        *start("node-a", restarted, "v1.30.3"),
        Record(at("09:58:11.690113"), "I", *complete(61.204117)),
        deletion_failed(at("09:58:24.118402"), GONE[0], clients),
        Record(at("09:58:24.131777"), "I", *complete(38.511209)),
        deletion_failed(at("09:58:31.902655"), GONE[1], clients[:3]),
        Record(at("09:58:31.915020"), "I", *complete(29.882140)),
        *syncs(at("10:05:00"), at("11:20:00"), 2, complete),
    ]
    pods = "node-a/var/log/pods"
    kube_proxy = f"{pods}/kube-system_kube-proxy-x7x2p_6c1f0c1e-94f5-4c1b-9a7e-0f6f2a1f8b11/kube-proxy"
    coredns = f"{pods}/kube-system_coredns-76f75df574-8kqhz_b1f4e1b4-3a55-4d0e-8f0e-3d6d0a1c9c55/coredns"
    return {
        f"{kube_proxy}/0.log.20260311-203015.gz": File(cri(r for r in before if r.at < rotated), packed=True),
        f"{kube_proxy}/0.log": File(cri(r for r in before if r.at >= rotated)),
        f"{kube_proxy}/1.log": File(cri(after)),
        f"{coredns}/0.log": File(
            "2026-03-12T09:58:22.507311904Z stdout F .:53\n"
            "2026-03-12T09:58:22.507388112Z stdout F [INFO] plugin/reload: Running configuration SHA512 = 591cf328\n"
            "2026-03-12T09:58:22.507391020Z stdout F CoreDNS-1.11.1\n"
            "2026-03-12T10:02:47.310022871Z stdout F [ERROR] plugin/errors: 2 example.com. A: read udp "
            f"{NEW[0]}:41733->192.0.2.53:53: i/o timeout\n"
        ),
        "node-a/metrics.txt": File(
            "# HELP kubeproxy_sync_proxy_rules_iptables_restore_failures_total [ALPHA] Cumulative failures\n"
            "# TYPE kubeproxy_sync_proxy_rules_iptables_restore_failures_total counter\n"
            "kubeproxy_sync_proxy_rules_iptables_restore_failures_total 0\n"
        ),
    }


def node_b() -> dict[str, File]:
    """Rolled twice, and every clean-up went well."""
    first, second, third = at("06:12:00", day=-1), at("09:58:40.300118"), at("10:04:02.771930")
    previous = start("node-b", second, "v1.31.4") + syncs(second, third, 4, complete_1_31)
    current = start("node-b", third, "v1.31.4") + syncs(third, at("11:20:00"), 5, complete_1_31)
    oldest = start("node-b", first, "v1.31.4") + syncs(first, second, 3, complete_1_31)
    return {
        "node-b/kube-proxy.2.previous.log": File(timestamps(oldest)),
        "node-b/kube-proxy.previous.log": File(timestamps(previous)),
        "node-b/kube-proxy.log": File(timestamps(current)),
    }


def node_c() -> dict[str, File]:
    """A release whose log proves nothing."""
    begin = at("10:00:17.480226")
    name = f"kube-proxy-5k8wz_kube-system_kube-proxy-{'4f8e1d9c' * 8}.log"
    records = start("node-c", begin, "v1.36.2") + syncs(begin, at("11:20:00"), 6, complete_1_31)
    return {f"node-c/var/log/containers/{name}": File(cri(records))}


def node_d() -> dict[str, File]:
    """An old release, and something else that holds the lock of iptables: the rules are not written."""
    begin = at("04:40:31.017331")
    failed = [record for clock in ("09:58:26.7", "09:58:56.9", "09:59:27.2") for record in lock_held(at(clock))]
    records = [
        *start("node-d", begin, "v1.20.15", quoted=False),
        *syncs(begin, at("09:58:00"), 7, took),
        *failed,
        *syncs(at("10:00:02"), at("11:20:00"), 8, took),
    ]
    return {"kube-proxy-node-d.log": File(timestamps(records))}


def node_e() -> dict[str, File]:
    """The copy broke off half-way."""
    begin = at("02:15:09.555012", day=-2)
    records = start("node-e", begin, "v1.30.3") + syncs(begin, at("11:20:00"), 9, complete)
    return {"node-e/kube-proxy.log.gz": File(timestamps(records), packed=True, kept=0.5)}


def node_f() -> dict[str, File]:
    """JSON, and an image without the conntrack program: nothing is ever deleted."""
    begin = at("09:58:52.118000")
    missing = (
        f"error deleting connection tracking state for UDP service IP: {VIP}, error: error looking for path of "
        'conntrack: exec: "conntrack": executable file not found in $PATH'
    )
    text = klog_json(begin, "flag/flags.go:64", 'FLAG: --hostname-override="node-f"').replace('"v":0', '"v":1')
    text += klog_json(begin + timedelta(milliseconds=9), "app/server.go:876", "Version info", version="v1.31.4")
    text += klog_json(begin + timedelta(milliseconds=31), "app/server_linux.go:140", "Using iptables Proxier")
    for second in (1, 332, 2790):
        moment = begin + timedelta(seconds=second)
        failure = {"IP": VIP, "err": missing}
        text += klog_json(moment, "conntrack/cleanup.go:70", "Failed to delete stale service connections", **failure)
        place, milliseconds = "iptables/proxier.go:822", 33.1 + second / 1000
        done = {"ipFamily": "IPv4", "elapsed": f"{milliseconds:.6f}ms"}
        text += klog_json(moment + timedelta(milliseconds=40), place, "SyncProxyRules complete", **done)
    return {"node-f/kube-proxy.json.log": File(text)}


def files() -> dict[str, File]:
    """Every file of the incident by its path."""
    return {**node_a(), **node_b(), **node_c(), **node_d(), **node_e(), **node_f()}


def main(directory: Path) -> None:
    for path, file in files().items():
        (directory / path).parent.mkdir(parents=True, exist_ok=True)
        (directory / path).write_bytes(file.content())


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent)
