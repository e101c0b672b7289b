"""What a file is, by how it begins: never by its name. Pure.

Names of files in dumps are whatever somebody called them, and a wrong guess would judge one thing as another. So only
contents count, and what is not certain is called OTHER. What the kernel's and kube-proxy's own forms are is known to
`netfilter`; here the objects of the API and the numbers of connection tracking are added.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Mapping
from typing import Final

from kdnsctl.netfilter import conntrack
from kdnsctl.netfilter.recognise import PARSERS, Form, RulesParser, recognise

HEAD: Final = 64 << 10  # bytes that are looked at


class Sort(enum.Enum):
    """What a file holds."""

    CONNTRACK = "connection tracking table"
    CONNTRACK_COUNT = "what conntrack said on standard error"
    IPTABLES = "iptables-save"
    NFT_JSON = "nft -j list"
    NFT_TEXT = "nft list"
    IPVS = "ipvsadm-save"
    IPVS_PROC = "/proc/net/ip_vs"
    METRICS = "kube-proxy's metrics"
    HEALTH = "kube-proxy's health"
    MODE = "kube-proxy's mode"
    CONFIG = "kube-proxy's configuration"
    PORTS = "range of local ports"
    CLOCK = "clock of a node"
    KERNEL_LOG = "log of a kernel"
    COUNTERS = "counters of connection tracking"
    SETTINGS = "sizes and timeouts of connection tracking"
    OBJECTS_JSON = "Kubernetes objects, JSON"
    OBJECTS_YAML = "Kubernetes objects, YAML"
    EMPTY = "nothing"
    OTHER = "something else"


_OF_FORM: Final = {
    Form.IPTABLES: Sort.IPTABLES,
    Form.NFT_JSON: Sort.NFT_JSON,
    Form.NFT_TEXT: Sort.NFT_TEXT,
    Form.IPVSADM: Sort.IPVS,
    Form.PROC_IP_VS: Sort.IPVS_PROC,
    Form.METRICS: Sort.METRICS,
    Form.HEALTH: Sort.HEALTH,
    Form.PROXY_MODE: Sort.MODE,
}
RULES: Final[Mapping[Sort, RulesParser]] = {_OF_FORM[form]: parser for form, parser in PARSERS.items()}
"""How to read each sort that holds rules."""


def sort_of(head: bytes) -> Sort:
    """What a file is that begins with `head`: HEAD bytes, fewer when it is shorter."""
    text = head.removeprefix(b"\xef\xbb\xbf").lstrip()
    if not text:
        return Sort.EMPTY
    for pattern, sort in _BEGINNINGS:
        if pattern.match(text):
            return sort
    rules = recognise(text)
    if rules is not None:
        return _OF_FORM[rules]
    form = conntrack.recognise(_LINE_NUMBER.sub(b"", text))
    if form is None:
        return Sort.OTHER
    return Sort.CONNTRACK_COUNT if form is conntrack.Form.MESSAGES else Sort.CONNTRACK


_LINE_NUMBER: Final = re.compile(rb"^\d{1,19}:(?=ipv[46] )", re.MULTILINE)  # what `grep -n` puts before filtered lines
# Objects first: a ConfigMap can quote any of the other forms.
_BEGINNINGS: Final = tuple(
    (re.compile(pattern), sort)
    for pattern, sort in (
        (rb'\{\s*"kubeproxy\.config\.k8s\.io"\s*:', Sort.CONFIG),
        (rb'(?s)\{(?!\s*"(?:nftables|lastUpdated)"\s*:)(?=.*"(?:kind|apiVersion|items)"\s*:)', Sort.OBJECTS_JSON),
        (rb"(?:#[^\n]*\n|---[^\n]*\n)*(?:apiVersion|items|kind):", Sort.OBJECTS_YAML),
        (rb"(?:net\.ipv4\.ip_local_port_range ?= ?)?\d{1,5}\s+\d{1,5}\s*\Z", Sort.PORTS),
        (rb"btime \d+\r?\n\d+\.\d+ \d+\.\d+\s*\Z", Sort.CLOCK),
        (rb"(?:<\d{1,4}>)?\[ *\d+\.\d{6}\] ", Sort.KERNEL_LOG),
        (rb"\d{4}-\d\d-\d\dT[\d:]{8},\d{6}[+-][\d:]{4,5} [^\n]", Sort.KERNEL_LOG),  # dmesg --time-format iso
        (rb"(?:[A-Z][a-z]{2} [ \d]\d [\d:]{8}) \S+ kernel: ", Sort.KERNEL_LOG),  # journalctl -k
        (rb"entries\s+(?:searched|clashres)\s", Sort.COUNTERS),
        (rb"cpu=\d+\s+found=", Sort.COUNTERS),
        (rb"(?:/proc/sys/)?net[./]netfilter[./]nf_conntrack_\w+ ?[:=] ?\d", Sort.SETTINGS),
    )
)
