"""The lines of a made-up kube-proxy log: what is logged, apart from when and in which format.

A `Record` is one call of klog: severity, place, message, keys and values. Noise is what the recordings hold and the
catalogue does not; `Failures` makes what the catalogue looks for, as it comes in life: a few dozen dead endpoints,
ever new ports, conntrack's output inside the error, errors over many lines. The wordings are those of 1.28 to 1.31,
and of 1.20 for a node that runs it.
"""

from __future__ import annotations

import json
import random
import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

RECORDINGS = Path(__file__).parents[1] / "recordings" / "kube-proxy-1.36"

_KLOG = re.compile(r"(?P<severity>[IWEF])\d{4} [\d:.]+ +\d+ (?P<place>\S+:\d+)\] (?P<rest>.*)")
_FIGURE = re.compile(r'((?:elapsed|took|duration|num\w+|totalItems|portCount|interval)"?[=:]"?)(\d+)((?:\.\d+)?)')
VARIANTS = 16  # of each recorded line, with other figures in it


@dataclass(frozen=True, slots=True)
class Record:
    """One call of klog. `id` is the catalogue's, "" for noise; `service` the Service it is about, "" for none.

    `plain` is what an unstructured call of an old release prints instead of message and values.
    """

    id: str
    severity: str
    place: str
    message: str
    values: tuple[tuple[str, object], ...] = ()
    plain: str = ""
    service: str = ""

    def text(self) -> str:
        """As klog prints it after the header; lines of a block are separated by newlines."""
        if self.plain:
            return self.plain
        parts = [json.dumps(self.message)]
        for key, value in self.values:
            if isinstance(value, str) and "\n" in value:
                block = "".join(f"\t{line}\n" for line in value.splitlines())
                parts.append(f"{key}=<\n{block} >")
            elif isinstance(value, dict):
                parts.append(f'{key}="{value["namespace"]}/{value["name"]}"')
            else:
                parts.append(f"{key}={json.dumps(value, separators=(',', ':'))}")
        return " ".join(parts)

    def json(self) -> str:
        """The part of a JSON record behind the time: zapr prints `err` last."""
        fields: dict[str, object] = {"caller": self.place, "msg": self.message}
        if self.severity == "I":
            fields["v"] = 2
        fields.update(sorted(self.values, key=lambda pair: pair[0] == "err"))
        return json.dumps(fields, separators=(",", ":"))[1:]


def noise_text(phrases: Sequence[str], random_: random.Random) -> list[str]:
    """Recorded klog lines as "I|place] message", with other figures, for a log in which a start is rare."""
    lines = [
        f"{match['severity']}|{match['place']}] {match['rest']}"
        for line in _recorded("v4-stopped-then-healed.log")
        if (match := _KLOG.fullmatch(line))
    ]
    return _varied(_lasting(lines, phrases), random_)


def noise_json(phrases: Sequence[str], random_: random.Random) -> list[str]:
    """Recorded JSON records, from behind the time on, with other figures, for a log in which a start is rare."""
    lines = [line.partition(",")[2] for line in _recorded("v4-nftables-json.log")]
    return _varied(_lasting(lines, phrases), random_)


def start(node: str, release: str) -> list[Record]:
    """What a kube-proxy at -v=4 says first: its flags, version and mode."""
    flags = [
        match["rest"]
        for line in _recorded("v4-stopped-then-healed.log")
        if (match := _KLOG.fullmatch(line)) and match["place"].startswith("flags.go")
    ]
    records = [
        Record("", "I", "flag/flags.go:64", flag.replace("knode2", node), plain=flag.replace("knode2", node))
        for flag in flags
    ]
    if release.startswith("v1.20."):
        plain = (("app/server.go:650", f"Version: {release}"), ("app/server_others.go:185", "Using iptables Proxier."))
        return records + [Record("", "I", place, text, plain=text) for place, text in plain]
    return [
        *records,
        Record("", "I", "app/server.go:872", "Version info", (("version", release),)),
        Record("", "I", "app/server_linux.go:165", "Using iptables Proxier"),
    ]


class Failures:
    """Makes, in bursts, what the catalogue looks for. The same seed makes the same."""

    def __init__(self, random_: random.Random, *, structured: bool) -> None:
        self._random = random_
        self._structured = structured
        self._endpoints = [f"10.244.{net}.{host}" for net in range(1, 13) for host in (2, 5, 17)]
        self._services = [
            ("kube-system", "kube-dns", "dns", "10.96.0.10", 53),
            ("logging", "syslog", "udp", "10.96.44.7", 514),
            ("monitoring", "statsd", "statsd", "10.96.81.203", 8125),
        ]
        makers: list[tuple[Callable[[], list[Record]], int]] = [
            (self._endpoint_not_cleaned, 60),
            (self._service_not_cleaned, 4),
            (self._restore_failed, 6),
            (self._endpoints_set, 12),
            (self._synced, 12),
            (self._stale_endpoint, 6),
        ]
        self._makers = [make for make, _ in makers]
        self._weights = [weight for _, weight in makers]

    def burst(self) -> list[Record]:
        """What one change of endpoints leaves in the log: one to a dozen events."""
        count = min(12, 1 + int(self._random.expovariate(0.4)))
        made: list[Record] = []
        for make in self._random.choices(self._makers, self._weights, k=count):
            made += make()
        return made

    def _service(self) -> tuple[str, str, str, str, int]:
        return self._random.choices(self._services, (8, 1, 1))[0]

    def _peer_error(self, vip: str, port: int, endpoint: str) -> str:
        """kube-proxy's error of one `conntrack -D`; one in three had deleted entries first, and lists them."""
        if self._random.random() < 0.05:
            cause = 'error looking for path of conntrack: exec: "conntrack": executable file not found in $PATH'
        else:
            output = "".join(self._entry(vip, port, endpoint) for _ in range(self._listed()))
            output += "conntrack v1.4.7 (conntrack-tools): Operation failed: such conntrack doesn't exist\n"
            cause = f"conntrack command returned: {json.dumps(output)}, error message: exit status 1"
        protocol = "UDP" if self._structured else "udp"  # lower case from 1.19 to 1.26
        return f"error deleting conntrack entries for {protocol} peer {{{vip}, {endpoint}}}, error: {cause}"

    def _listed(self) -> int:
        if self._random.random() > 1 / 3:
            return 0
        if self._random.random() < 0.005:
            return 150  # longer than the 16 KiB at which a runtime splits a line
        return self._random.randint(1, 6)

    def _entry(self, vip: str, port: int, endpoint: str) -> str:
        client = f"10.244.{self._random.randint(1, 12)}.{self._random.randint(2, 254)}"
        source = self._random.randint(1024, 65535)
        return (
            f"udp      17 {self._random.randint(1, 179)} src={client} dst={vip} sport={source} dport={port} "
            f"[UNREPLIED] src={endpoint} dst={client} sport={port} dport={source} mark=0 use=1\n"
        )

    def _endpoint_not_cleaned(self) -> list[Record]:
        namespace, name, port_name, vip, port = self._service()
        error = self._peer_error(vip, port, self._random.choice(self._endpoints))
        service = f"{namespace}/{name}:{port_name}"
        plain = "" if self._structured else f"Failed to delete {service} endpoint connections, error: {error}"
        place = "conntrack/cleanup.go:99" if self._structured else "iptables/proxier.go:764"
        return [
            Record(
                "CT_DEL_ENDPOINT",
                "E",
                place,
                "Failed to delete endpoint connections",
                (("err", error), ("servicePortName", service)),
                plain,
                f"{namespace}/{name}",
            )
        ]

    def _service_not_cleaned(self) -> list[Record]:
        namespace, name, _, vip, _ = self._service()
        error = (
            f"error deleting connection tracking state for UDP service IP: {vip}, error: conntrack command returned: "
            '"conntrack v1.4.7 (conntrack-tools): Operation failed: such conntrack doesn\'t exist\\n", '
            "error message: exit status 1"
        )
        plain = "" if self._structured else f"Failed to delete stale service IP {vip} connections, error: {error}"
        place = "conntrack/cleanup.go:70" if self._structured else "iptables/proxier.go:1644"
        message = "Failed to delete stale service connections"
        values = (("err", error), ("IP", vip))
        return [Record("CT_DEL_SVC", "E", place, message, values, plain, f"{namespace}/{name}")]

    def _restore_failed(self) -> list[Record]:
        lock = "Another app is currently holding the xtables lock"
        left = self._random.randint(0, 999_999)
        if not self._structured:
            error = f"exit status 4 ({lock}; still 1s {left}us time ahead to have a chance to grab the lock...)"
            plain = ("Failed to execute iptables-restore: " + error, "Sync failed; retrying in 30s")
            return [
                Record("IPT_RESTORE_FAIL", "E", "iptables/proxier.go:1609", "", plain=plain[0]),
                Record("IPT_SYNC_FAILED", "I", "iptables/proxier.go:844", "", plain=plain[1]),
            ]
        error = (
            f"exit status 4: {lock}; still 1s {left}us time ahead to have a chance to grab the lock...\n"
            f"{lock}. Stopped waiting after 5s.\n"
        )
        return [
            Record(
                "IPT_RESTORE_FAIL",
                "E",
                "iptables/proxier.go:1579",
                "Failed to execute iptables-restore",
                (("err", error),),
            ),
            Record("IPT_SYNC_FAILED", "I", "iptables/proxier.go:833", "Sync failed", (("retryingTime", "30s"),)),
        ]

    def _endpoints_set(self) -> list[Record]:
        namespace, name, port_name, _, port = self._service()
        serving = [f"{address}:{port}" for address in self._random.sample(self._endpoints, 2)]
        message = "Setting endpoints for service port name"
        values = (("portName", f"{namespace}/{name}:{port_name}"), ("endpoints", serving))
        plain = "" if self._structured else f'Setting endpoints for "{namespace}/{name}:{port_name}" to {serving}'
        return [Record("EP_SET", "I", "proxy/endpointslicecache.go:348", message, values, plain)]

    def _synced(self) -> list[Record]:
        elapsed = f"{self._random.uniform(5, 900):.6f}ms"
        plain = "" if self._structured else f"syncProxyRules took {elapsed}"
        place = "iptables/proxier.go:799"
        return [Record("SYNC_DONE", "I", place, "SyncProxyRules complete", (("elapsed", elapsed),), plain)]

    def _stale_endpoint(self) -> list[Record]:
        namespace, name, port_name, _, port = self._service()
        endpoint = f"{self._random.choice(self._endpoints)}:{port}"
        service = f"{namespace}/{name}:{port_name}"
        message = "Deleted endpoint may have stale conntrack entries"
        plain = "" if self._structured else f"Stale endpoint {service} -> {endpoint}"
        values = (("portName", service), ("endpoint", endpoint))
        return [Record("STALE_EP", "I", "proxy/endpointschangetracker.go:318", message, values, plain)]


def _recorded(name: str) -> list[str]:
    return (RECORDINGS / name).read_text(encoding="utf-8").splitlines()


def _lasting(lines: Sequence[str], phrases: Sequence[str]) -> list[str]:
    """Lines without a phrase whose like was recorded more than once, as often as it was: what goes on after a start."""
    likes = Counter(map(_like, lines))
    return [line for line in lines if likes[_like(line)] > 1 and not any(phrase in line for phrase in phrases)]


def _like(line: str) -> str:
    return re.sub(r"\d+", "0", line)


def _varied(lines: Sequence[str], random_: random.Random) -> list[str]:
    def other(match: re.Match[str]) -> str:
        fraction = f".{random_.randint(0, 999_999)}" if match[3] else ""
        return f"{match[1]}{random_.randint(1, 999)}{fraction}"

    return [_FIGURE.sub(other, line) for line in lines for _ in range(VARIANTS)]
