"""Small kube-proxy logs for the tests of this folder, and judging them as a directory of files."""

from __future__ import annotations

import gzip
import io
import json
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from kdnsctl.find.offline import OfflineOptions, find_in_logs
from kdnsctl.find.report import FindReport, NodeFinding
from kdnsctl.model import SilentReporter

NOW = datetime(2026, 3, 13, tzinfo=UTC)
NOON = datetime(2026, 3, 12, 12, tzinfo=UTC)
VIP = "10.96.0.10"
DNS = "kube-system/kube-dns:dns"
STATSD = "monitoring/statsd:statsd"
UUID = "6c1f0c1e-94f5-4c1b-9a7e-0f6f2a1f8b11"


def minutes(number: float) -> datetime:
    """So many minutes after noon of the day."""
    return NOON + timedelta(minutes=number)


def klog(at: datetime, text: str, place: str = "proxier.go:799", severity: str = "I") -> str:
    """A record as kube-proxy prints it."""
    return f"{severity}{at:%m%d %H:%M:%S.%f}       1 {place}] {text}"


def said(at: datetime, text: str, place: str = "proxier.go:799", severity: str = "I") -> str:
    """A record as `kubectl logs --timestamps` shows it: with its year."""
    return f"{at:%Y-%m-%dT%H:%M:%S.%f}000Z {klog(at, text, place, severity)}\n"


def start(at: datetime = NOON, version: str = "v1.27.3", node: str = "") -> str:
    lines = said(at, f'FLAG: --hostname-override="{node}"', "flags.go:64") if node else ""
    lines += said(at, f'"Version info" version="{version}"', "server.go:872")
    return lines + said(at + timedelta(seconds=1), '"Using iptables Proxier"', "server_linux.go:165")


def sync(at: datetime) -> str:
    """Something that every release from 1.22 on prints, and only kube-proxy."""
    return said(at, '"SyncProxyRules complete" elapsed="31.5ms"')


def peer(vip: str, endpoint: str, cause: str = "such conntrack doesn't exist") -> str:
    return json.dumps(
        f"error deleting conntrack entries for UDP peer {{{vip}, {endpoint}}}, error: conntrack command returned: "
        f'"conntrack v1.4.7 (conntrack-tools): Operation failed: {cause}\\n", error message: exit status 1'
    )


def failure(at: datetime, service: str = DNS, vip: str = VIP, endpoint: str = "10.244.1.5") -> str:
    text = f'"Failed to delete endpoint connections" err={peer(vip, endpoint)} servicePortName="{service}"'
    return said(at, text, "cleanup.go:99", "E")


def service_failure(at: datetime, vip: str = VIP) -> str:
    """A failure that names no Service, only its address."""
    error = json.dumps(f"error deleting connection tracking state for UDP service IP: {vip}, error: exit status 1")
    return said(at, f'"Failed to delete stale service connections" err={error} IP="{vip}"', "cleanup.go:70", "E")


def service_port(at: datetime, service: str, vip: str, port: str = "53/UDP") -> str:
    text = f'"Adding new service port" portName="{service}" servicePort="{vip}:{port}"'
    return said(at, text, "servicechangetracker.go:202")


def list_failure(at: datetime) -> str:
    """A failure of 1.32 and later."""
    return said(at, '"Failed to list conntrack entries" err="interrupted system call"', "cleanup.go:56", "E")


def restore_failure(at: datetime) -> str:
    """What one failed sync logs: the error, and that it will be tried again."""
    error = said(at, '"Failed to execute iptables-restore" err="exit status 4"', "proxier.go:1579", "E")
    return error + said(at + timedelta(microseconds=90), '"Sync failed" retryingTime="30s"', "proxier.go:874")


def kubelets(at: datetime) -> str:
    """A record of the kubelet's: klog, but not kube-proxy."""
    return said(at, '"SyncLoop (PLEG): event for pod" pod="kube-system/coredns-76f75df574-8kqhz"', "kubelet.go:2456")


def healthy(version: str = "v1.27.3") -> str:
    """A whole log without a failure, from noon to one o'clock."""
    return start(NOON, version) + sync(minutes(30)) + sync(minutes(60))


def bad(version: str = "v1.27.3") -> str:
    """A whole log with one failure, from noon to one o'clock."""
    return start(NOON, version) + failure(minutes(1)) + sync(minutes(60))


def tree(pod: str = "kube-proxy-x7x2p", container: str = "kube-proxy", name: str = "0.log") -> str:
    """The path of a container's log in a copy of a node's files."""
    return f"var/log/pods/kube-system_{pod}_{UUID}/{container}/{name}"


def cri(text: str) -> str:
    """Lines of `kubectl logs --timestamps` as the runtime writes them."""
    return "".join(f"{line.partition(' ')[0]} stderr F {line.partition(' ')[2]}\n" for line in text.splitlines())


def cut(text: str, keep: float = 0.5) -> bytes:
    """A gzip file of which the end is missing."""
    whole = gzip.compress(text.encode(), mtime=0)
    return whole[: int(len(whole) * keep)]


def find(root: Path, files: Mapping[str, str | bytes], **options: Any) -> FindReport:
    """Write `files` below `root` and judge the directory."""
    for name, content in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content.encode() if isinstance(content, str) else content)
    paths = options.pop("paths", (str(root),))
    stdin = io.BytesIO(options.pop("stdin", b""))
    return find_in_logs(OfflineOptions(paths=paths, **options), stdin=stdin, reporter=SilentReporter(), now=NOW)


def only(report: FindReport) -> NodeFinding:
    (finding,) = report.nodes
    return finding


def one(root: Path, text: str | bytes, **options: Any) -> NodeFinding:
    """The finding on one node whose log is `text`."""
    return only(find(root, {"node-a/kube-proxy.log": text}, **options))


def verdicts(report: FindReport) -> dict[str, str]:
    """Verdict and reason code by node."""
    return {finding.name: f"{finding.verdict}/{finding.reason_code}" for finding in report.nodes}
