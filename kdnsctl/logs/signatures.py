"""The catalogue of what kube-proxy logs, from 1.2 to 1.37, as data: which message means what, and what it does not.

Nothing is searched here; `scan` does that. A `Signature` is one meaning; its `Variant`s are the wordings it has had.
A structured variant (klog `InfoS`/`ErrorS`, "msg" in JSON logs) is known by its exact message; an unstructured one
(`Errorf` of older releases) by a pattern for its beginning. `files` are the Go source files that print it: the kubelet
and others use some of the same words from other files, and those are not kube-proxy's.

Wordings and version ranges were read in the Kubernetes sources of each minor release and checked against recorded
logs; issue and pull request numbers are those of kubernetes/kubernetes.
"""

from __future__ import annotations

import enum
import re
from dataclasses import dataclass

FIRST_MINOR = 2
LAST_MINOR = 37


class Kind(enum.StrEnum):
    """What a signature is evidence of. Only `FAILURE` makes a node suspect."""

    FAILURE = "failure"
    RESTART = "restart"
    PROGRESS = "progress"
    INFO = "info"


@dataclass(frozen=True, slots=True)
class Variant:
    """One wording: `text` is the exact structured message, or a pattern for the start of an unstructured one.

    `first` and `last` are the minor releases 1.N that print it, both included.
    """

    text: str
    first: int
    last: int
    structured: bool = True


@dataclass(frozen=True, slots=True)
class Signature:
    """One meaning in kube-proxy's log.

    `phrases` are literal texts of which at least one occurs in every line of this signature, in each log format;
    they are what a reader can grep for, and what the scan looks for first. `unless` is a text that shows the line to
    be another component's.
    """

    id: str
    kind: Kind
    severity: str
    summary: str
    means: str
    not_means: str
    source: str
    phrases: tuple[str, ...]
    files: tuple[str, ...]
    variants: tuple[Variant, ...]
    unless: str = ""
    names_service: bool = False

    @property
    def versions(self) -> str:
        """The releases that can log it, as people write them: "1.9–1.31"."""
        first = min(variant.first for variant in self.variants)
        last = max(variant.last for variant in self.variants)
        return f"1.{first}–1.{last}" if last < LAST_MINOR else f"1.{first}+"


def _msg(text: str, first: int, last: int = LAST_MINOR) -> Variant:
    return Variant(text, first, last)


def _old(pattern: str, first: int, last: int) -> Variant:
    return Variant(pattern, first, last, structured=False)


_DELETE = ("proxier.go", "conntrack.go", "cleanup.go")
_NOT_HEALTH = "Its absence is not health: at -v=0 nothing else is logged, and logs rotate."
_LATER = "A later clean-up may have put it right: look at the conntrack table. Absence proves nothing on 1.32+."
_FINAL = "kube-proxy does not retry and counts it in no metric."

CATALOGUE: tuple[Signature, ...] = (
    # --- conntrack deletion by the conntrack binary, up to 1.31
    Signature(
        id="CT_DEL_ENDPOINT",
        kind=Kind.FAILURE,
        severity="E",
        summary="could not delete the conntrack entries of a removed endpoint",
        means="UDP flows through the Service address may still go to the endpoint named in the peer, which is gone. "
        + _FINAL,
        not_means="Not proof that entries are still there: they may have expired since. " + _NOT_HEALTH,
        source="pkg/proxy/iptables/proxier.go@1.9–1.27, pkg/proxy/conntrack/cleanup.go@1.28–1.31; #49478, #97678",
        phrases=("endpoint connections",),
        files=_DELETE,
        variants=(
            _old(r"Failed to delete (?!nodeport-related )\S+ endpoint connections,", 9, 20),
            _msg("Failed to delete endpoint connections", 21, 31),
        ),
        names_service=True,
    ),
    Signature(
        id="CT_DEL_ENDPOINT_NODEPORT",
        kind=Kind.FAILURE,
        severity="E",
        summary="could not delete the conntrack entries of a removed endpoint behind a NodePort",
        means="UDP flows to the NodePort may still go to an endpoint that is gone. " + _FINAL,
        not_means="Says nothing of flows through the ClusterIP. " + _NOT_HEALTH,
        source="pkg/proxy/iptables/proxier.go@1.20–1.27, pkg/proxy/conntrack/cleanup.go@1.28–1.31; #96251",
        phrases=("nodeport-related",),
        files=_DELETE,
        variants=(
            _old(r"Failed to delete nodeport-related \S+ endpoint connections,", 20, 20),
            _msg("Failed to delete nodeport-related endpoint connections", 21, 31),
        ),
        names_service=True,
    ),
    Signature(
        id="CT_DEL_ENDPOINT_EXT",
        kind=Kind.FAILURE,
        severity="E",
        summary="could not delete the conntrack entries of a removed endpoint behind an external IP",
        means="UDP flows to the external IP may still go to an endpoint that is gone. " + _FINAL,
        not_means="Says nothing of flows through the ClusterIP. " + _NOT_HEALTH,
        source="pkg/proxy/iptables/proxier.go@1.10–1.27, pkg/proxy/conntrack/cleanup.go@1.28–1.31; #65228",
        phrases=("endpoint connections for externalIP", "connections for externalIP"),
        files=_DELETE,
        variants=(
            _old(r"Failed to delete \S+ endpoint connections for externalIP ", 10, 20),
            _msg("Failed to delete endpoint connections for externalIP", 21, 31),
        ),
        names_service=True,
    ),
    Signature(
        id="CT_DEL_ENDPOINT_LB",
        kind=Kind.FAILURE,
        severity="E",
        summary="could not delete the conntrack entries of a removed endpoint behind a load-balancer IP",
        means="UDP flows to the load-balancer IP may still go to an endpoint that is gone. " + _FINAL,
        not_means="Says nothing of flows through the ClusterIP. " + _NOT_HEALTH,
        source="pkg/proxy/iptables/proxier.go@1.14–1.27 (spelt LoabBalancerIP up to 1.20), "
        "pkg/proxy/conntrack/cleanup.go@1.28–1.31; #75265",
        phrases=("endpoint connections for Lo",),
        files=_DELETE,
        variants=(
            _old(r"Failed to delete \S+ endpoint connections for Lo(?:ab|ad)BalancerIP ", 14, 20),
            _msg("Failed to delete endpoint connections for LoadBalancerIP", 21, 31),
        ),
        names_service=True,
    ),
    Signature(
        id="CT_DEL_SVC",
        kind=Kind.FAILURE,
        severity="E",
        summary="could not delete the conntrack entries of a Service address",
        means="At a start of kube-proxy, or when a Service got its first endpoint, the flush of its UDP entries "
        "failed: entries to dead endpoints, or to the un-NATed address, may remain. " + _FINAL,
        not_means="Not proof that entries are still there. " + _NOT_HEALTH,
        source="pkg/proxy/iptables/proxier.go@1.9–1.27, ipvs/proxier.go@1.23, pkg/proxy/conntrack/cleanup.go@1.28–1.31",
        phrases=("Failed to delete stale service",),
        files=_DELETE,
        variants=(
            _old(r"Failed to delete stale service IP \S+ connections,", 9, 20),
            _msg("Failed to delete stale service connections", 21, 31),
            _msg("Failed to delete stale service IP connections", 23, 23),
        ),
        names_service=True,
    ),
    Signature(
        id="CT_DEL_PORT",
        kind=Kind.FAILURE,
        severity="E",
        summary="could not delete the conntrack entries of a NodePort",
        means="UDP flows to that node port may still go to an endpoint that is gone. " + _FINAL,
        not_means="Says nothing of flows through the ClusterIP. " + _NOT_HEALTH,
        source="pkg/proxy/iptables/proxier.go@1.9–1.27, pkg/proxy/conntrack/cleanup.go@1.28–1.31; #59368, #98305",
        phrases=("Failed to clear udp conntrack",),
        files=_DELETE,
        variants=(
            _old(r"Failed to clear udp conntrack (?:for|on) port \d+[,:]", 9, 20),
            _msg("Failed to clear udp conntrack", 21, 31),
        ),
    ),
    Signature(
        id="CT_RETURN_OLD",
        kind=Kind.FAILURE,
        severity="E",
        summary="conntrack failed, in the words of the oldest releases",
        means="A deletion of UDP conntrack entries failed; the line does not say for which Service. " + _FINAL,
        not_means="Not proof that entries are still there. " + _NOT_HEALTH,
        source="pkg/proxy/iptables/proxier.go and conntrack.go@1.3–1.8; #22573",
        phrases=("conntrack return with error", "conntrack returned error"),
        files=_DELETE,
        variants=(_old(r"conntrack return(?:ed| with) error: ", 2, 8),),
    ),
    # --- the reconciler, 1.32 and later
    Signature(
        id="CT_LIST_FAIL",
        kind=Kind.FAILURE,
        severity="E",
        summary="could not read the conntrack table, so nothing was cleaned",
        means="This clean-up was skipped, and the next one comes only with the next change of a UDP endpoint.",
        not_means=_LATER,
        source="pkg/proxy/conntrack/cleanup.go@1.32–1.36; #127318",
        phrases=("Failed to list conntrack entries",),
        files=_DELETE,
        variants=(_msg("Failed to list conntrack entries", 32),),
    ),
    Signature(
        id="CT_CLEAR_FAIL",
        kind=Kind.FAILURE,
        severity="E",
        summary="could not delete all stale conntrack entries",
        means="Some stale UDP entries remain until the next change of a UDP endpoint; entriesDeleted says how many "
        "went.",
        not_means=_LATER,
        source="pkg/proxy/conntrack/cleanup.go@1.32–1.36; #127318",
        phrases=("Failed to clear all conntrack entries",),
        files=_DELETE,
        variants=(_msg("Failed to clear all conntrack entries", 32),),
    ),
    Signature(
        id="CT_PARTIAL",
        kind=Kind.FAILURE,
        severity="E",
        summary="the conntrack table changed while it was read, so it was cleaned in part",
        means="After five tries the dump was still interrupted; kube-proxy cleaned what it had read.",
        not_means="Printed only at -v=2 and higher. Absence proves nothing.",
        source="pkg/proxy/conntrack/cleanup.go@1.33–1.36; #130256",
        phrases=("continuing to clean with partial result",),
        files=_DELETE,
        variants=(_msg("received a partial result, continuing to clean with partial result", 33),),
    ),
    Signature(
        id="CT_RECONCILED",
        kind=Kind.PROGRESS,
        severity="I",
        summary="a clean-up of the conntrack table finished",
        means="kube-proxy compared the UDP entries with its endpoints and deleted entriesDeleted of them (-v=4).",
        not_means="Not proof of health: Services without serving endpoints are skipped on 1.32–1.36 (#139628).",
        source="pkg/proxy/conntrack/cleanup.go@1.32–1.36",
        phrases=("Finished reconciling conntrack entries",),
        files=_DELETE,
        variants=(_msg("Finished reconciling conntrack entries", 32),),
    ),
    # --- writing the rules
    Signature(
        id="IPT_RESTORE_FAIL",
        kind=Kind.FAILURE,
        severity="E",
        summary="could not write the iptables rules",
        means="The node keeps its old rules, which may point to endpoints that are gone; the conntrack clean-up that "
        "belonged to this change is lost even when a retry succeeds (#112604).",
        not_means="A single one under lock contention is retried; look whether it went on.",
        source="pkg/proxy/iptables/proxier.go@1.6–1.36",
        phrases=("Failed to execute iptables-restore",),
        files=("proxier.go",),
        variants=(
            _old(r"Failed to execute iptables-restore(?: for \w+)?: ", 6, 20),
            _msg("Failed to execute iptables-restore", 21),
        ),
    ),
    Signature(
        id="IPT_CHAIN_FAIL",
        kind=Kind.FAILURE,
        severity="E",
        summary="could not create a chain or a jump to it",
        means="The sync was given up before any rule was written, and with it the conntrack clean-up of this change.",
        not_means="A single one under lock contention is retried; look whether it went on.",
        source="pkg/proxy/iptables/proxier.go@1.6–1.36",
        phrases=("Failed to ensure that ", "Failed to ensure chain exists", "Failed to ensure chain jumps"),
        files=("proxier.go",),
        variants=(
            _old(r"Failed to ensure that \w+ chain \S+ (?:exists|jumps to \S+): ", 6, 20),
            _msg("Failed to ensure chain exists", 21),
            _msg("Failed to ensure chain jumps", 21),
        ),
    ),
    Signature(
        id="IPT_SYNC_FAILED",
        kind=Kind.FAILURE,
        severity="I",
        summary="a sync of the iptables rules failed and will be retried",
        means="The rules are not current; see the error logged just before it. Before 1.17 there was no such line: the "
        "next try came only with the next periodic sync.",
        not_means="Not that the retry failed too: look whether another one follows.",
        source="pkg/proxy/iptables/proxier.go@1.17–1.36",
        phrases=("Sync failed",),
        files=("proxier.go",),
        variants=(_old(r"Sync failed; retrying in \S", 17, 20), _msg("Sync failed", 21)),
    ),
    Signature(
        id="IPT_SAVE_FAIL",
        kind=Kind.FAILURE,
        severity="E",
        summary="could not read the iptables rules back",
        means="Chains of removed endpoints are not deleted this time; often the first sign of the fault that also "
        "breaks iptables-restore.",
        not_means="Alone it does not leave wrong rules in use: unreferenced chains do no harm.",
        source="pkg/proxy/iptables/proxier.go@1.6–1.36",
        phrases=("Failed to execute iptables-save",),
        files=("proxier.go",),
        variants=(
            _old(r"Failed to execute iptables-save\b", 6, 20),
            _msg("Failed to execute iptables-save, syncing all rules", 21, 24),
            _msg("Failed to execute iptables-save: stale chains will not be deleted", 25),
        ),
    ),
    Signature(
        id="IPT_CANARY_FAIL",
        kind=Kind.FAILURE,
        severity="W, from 1.27 E",
        summary="could not look after its canary chain",
        # Counted as a failure though no write failed: it is the first sign of a lock on which the writes fail as well,
        # and while it lasts kube-proxy cannot see that its rules were flushed.
        means="iptables did not answer, nearly always because something else holds the xtables lock, on which writes "
        "fail as well; until it answers, a flush of the rules goes unseen.",
        not_means="By itself no failed write of rules. The kubelet logs the same words for its own KUBE-KUBELET-CANARY.",
        source="pkg/util/iptables/iptables.go@1.16–1.36",
        phrases=("iptables canary",),
        files=("iptables.go",),
        unless="KUBE-KUBELET-CANARY",
        variants=(
            _old(r"Could not (?:check for|set up) iptables canary \S+: ", 16, 26),
            _msg("Could not check for iptables canary", 27),
            _msg("Could not set up iptables canary", 27),
        ),
    ),
    Signature(
        id="IPT_FLUSHED",
        kind=Kind.INFO,
        severity="I",
        summary="something flushed the iptables rules and kube-proxy wrote them again",
        means="For a moment the node had no Service rules: UDP flows begun then are pinned to the un-NATed address.",
        not_means="kube-proxy did not fail; find out who flushed (a firewall reload, another network tool).",
        source="pkg/util/iptables/iptables.go@1.16–1.36, -v=2",
        phrases=("iptables canary", "Reloading after iptables flush", "IPTables canary deleted"),
        files=("iptables.go",),
        unless="KUBE-KUBELET-CANARY",
        variants=(
            _old(r"iptables canary \S+ deleted", 16, 26),
            _old(r"Reloading after iptables flush", 16, 26),
            _msg("IPTables canary deleted", 27),
            _msg("Reloading after iptables flush", 27),
        ),
    ),
    Signature(
        id="NFT_SYNC_FAIL",
        kind=Kind.FAILURE,
        severity="E",
        summary="could not write the nftables rules",
        means="The node keeps its old rules, and the conntrack clean-up of this change is lost.",
        not_means="A single one is retried; look whether it went on.",
        source="pkg/proxy/nftables/proxier.go@1.29–1.36",
        phrases=("nftables sync failed",),
        files=("proxier.go",),
        variants=(_msg("nftables sync failed", 29),),
    ),
    # --- how long a sync takes
    Signature(
        id="SYNC_DONE",
        kind=Kind.PROGRESS,
        severity="I",
        summary="a sync of the rules ended, well or badly",
        means="kube-proxy is alive and not stuck in a sync (-v=2 from 1.19, -v=4 before).",
        not_means="It is also logged after a failed sync.",
        source="pkg/proxy/iptables/proxier.go@1.6–1.36",
        phrases=("yncProxyRules took", "yncProxyRules complete"),
        files=("proxier.go",),
        variants=(
            _old(r"syncProxyRules took \S", 6, 20),
            _msg("syncProxyRules complete", 21, 21),
            _msg("SyncProxyRules complete", 22),
        ),
    ),
    Signature(
        id="TRACE_SLOW",
        kind=Kind.INFO,
        severity="I",
        summary="a step of a sync took more than two seconds",
        means="iptables is slow or waits for its lock; the window in which rules and endpoints differ grows.",
        not_means="Not a failure.",
        source="k8s.io/utils/trace@1.12–1.36",
        phrases=("Trace[",),
        files=("trace.go",),
        variants=(_old(r'Trace\[\d+\]: \\?"iptables ', 12, LAST_MINOR),),
    ),
    # --- starts
    Signature(
        id="START_VERSION",
        kind=Kind.RESTART,
        severity="I",
        summary="kube-proxy started, and says its version",
        means="A start of the process: from 1.32 on it reconciles everything, before it flushes every UDP Service.",
        not_means="There is no line for a stop: a restart is only seen by the next start.",
        source="cmd/kube-proxy/app/server.go@1.9–1.36",
        phrases=("Version: v", "Version info"),
        files=("server.go",),
        variants=(_old(r"Version: v\d", 9, 22), _msg("Version info", 23)),
    ),
    Signature(
        id="START_MODE",
        kind=Kind.RESTART,
        severity="I",
        summary="kube-proxy started, and says its mode",
        means="The mode in force: iptables, ipvs, nftables or userspace.",
        not_means="",
        source="cmd/kube-proxy/app/server_others.go@1.9–1.29, server_linux.go@1.30–1.36",
        phrases=(" Proxier",),
        files=("server_others.go", "server_linux.go", "server.go"),
        variants=(
            _old(r"Using (?:iptables|ipvs|nftables|userspace) Proxier\.?\s*$", 6, 22),
            _msg("Using iptables Proxier", 23),
            _msg("Using ipvs Proxier", 23),
            _msg("Using nftables Proxier", 29),
            _msg("Using userspace Proxier", 23, 25),
        ),
    ),
    Signature(
        id="START_CTRL",
        kind=Kind.RESTART,
        severity="I",
        summary="kube-proxy started to follow Services, endpoints or nodes",
        means="Part of a start.",
        not_means="",
        source="pkg/proxy/config/config.go@1.9–1.36",
        phrases=(" config controller",),
        files=("config.go",),
        variants=(
            _old(r"Starting (?:service|endpoints|endpoint slice|node) config controller\s*$", 9, 22),
            *(
                _msg(f"Starting {what} config controller", first, last)
                for what, first, last in (
                    ("service", 23, LAST_MINOR),
                    ("endpoints", 23, 26),
                    ("endpoint slice", 23, LAST_MINOR),
                    ("node", 23, LAST_MINOR),
                    ("serviceCIDR", 30, LAST_MINOR),
                )
            ),
        ),
    ),
    Signature(
        id="CACHES_SYNCED",
        kind=Kind.RESTART,
        severity="I",
        summary="kube-proxy has received the first list of Services, endpoints or nodes",
        means="Part of a start.",
        not_means="Other components on the same informers log the same words.",
        source="client-go shared_informer.go@1.9–1.36, controller_utils.go up to 1.15",
        phrases=("Caches are synced",),
        files=("shared_informer.go", "controller_utils.go"),
        variants=(
            _old(r"Caches are synced for (?:service|endpoints?|endpoint slice|node|serviceCIDR)\b", 9, 33),
            _msg("Caches are synced", 34),
        ),
    ),
    Signature(
        id="START_FLAG_V",
        kind=Kind.RESTART,
        severity="I",
        summary="kube-proxy started, and lists its verbosity",
        means="The verbosity in force at the start (printed at -v=1 and higher).",
        not_means="It can have been changed at run time since.",
        source="k8s.io/component-base/cli/flag/flags.go@1.12–1.36",
        phrases=("FLAG: --v=",),
        files=("flags.go",),
        variants=(_old(r'FLAG: --v=\\?"\d+', 12, LAST_MINOR),),
    ),
    Signature(
        id="START_NODE",
        kind=Kind.RESTART,
        severity="I",
        summary="kube-proxy started, and lists its node's name",
        means="The node that this log is from (printed at -v=1 and higher).",
        not_means="",
        source="k8s.io/component-base/cli/flag/flags.go, recorded on 1.36.2",
        phrases=("FLAG: --hostname-override=",),
        files=("flags.go",),
        variants=(_old(r"FLAG: --hostname-override=", 12, LAST_MINOR),),
    ),
    Signature(
        id="START_NOT_SYNCED",
        kind=Kind.RESTART,
        severity="I",
        summary="kube-proxy waits for its first lists before it writes rules",
        means="Part of a start (-v=2).",
        not_means="",
        source="pkg/proxy/iptables/proxier.go@1.9–1.36",
        phrases=("Not syncing iptables until", "Not syncing ipvs rules until", "Not syncing nftables until"),
        files=("proxier.go",),
        variants=(
            _old(
                r"Not syncing (?:iptables|ipvs rules) until Services and Endpoints have been received from master",
                9,
                20,
            ),
            _msg("Not syncing iptables until Services and Endpoints have been received from master", 21),
            _msg("Not syncing ipvs rules until Services and Endpoints have been received from master", 21),
            _msg("Not syncing nftables until Services and Endpoints have been received from master", 29),
        ),
    ),
    Signature(
        id="EXIT_CONFIG_CHANGED",
        kind=Kind.RESTART,
        severity="E",
        summary="kube-proxy exits because its configuration file changed",
        means="Somebody edited the ConfigMap: every kube-proxy that mounts it restarts within a minute or so.",
        not_means="",
        source="cmd/kube-proxy/app/options.go@1.14–1.36",
        phrases=("configuration file was updated",),
        files=("server.go", "options.go"),
        variants=(
            _old(r"(?:error: |Error: )?content of the proxy server's configuration file was updated", 14, 22),
            _msg("Error running ProxyServer", 23),
        ),
    ),
    # --- "stale": what kube-proxy is about to clean, not a failure
    Signature(
        id="STALE_SVC",
        kind=Kind.INFO,
        severity="I",
        summary="kube-proxy is about to flush a Service's UDP entries",
        means="A UDP Service is new, or got its first endpoint: normal at every start.",
        not_means="Not a failure, whatever the word says; it was misread as one in #62070.",
        source="pkg/proxy/iptables/proxier.go@1.7–1.27, pkg/proxy/conntrack/cleanup.go@1.28–1.31",
        phrases=("Stale udp service", "Stale sctp service", "Stale service", "may have stale conntrack entries"),
        files=_DELETE,
        variants=(
            _old(r"Stale (?:udp|sctp) service ", 7, 20),
            _msg("Stale service", 21, 26),
            _msg("Newly-active UDP service may have stale conntrack entries", 27, 31),
        ),
        names_service=True,
    ),
    Signature(
        id="STALE_EP",
        kind=Kind.INFO,
        severity="I",
        summary="kube-proxy is about to delete a removed endpoint's UDP entries",
        means="An endpoint of a UDP Service went away (-v=4): the moment at which a clean-up was due.",
        not_means="Not a failure.",
        source="pkg/proxy/endpoints.go@1.9–1.30, endpointschangetracker.go@1.31",
        phrases=("Stale endpoint", "may have stale conntrack entries"),
        files=("endpoints.go", "endpointschangetracker.go", "proxier.go"),
        variants=(
            _old(r"Stale endpoint \S+ -> ", 7, 22),
            _msg("Stale endpoint", 23, 26),
            _msg("Deleted endpoint may have stale conntrack entries", 27, 31),
        ),
        names_service=True,
    ),
    Signature(
        id="V4_CT_CMD",
        kind=Kind.INFO,
        severity="I",
        summary="kube-proxy runs conntrack -D",
        means="The arguments of a deletion (-v=4, 1.20–1.31).",
        not_means="Not a failure, and not a success: see what follows.",
        source="pkg/proxy/conntrack/conntrack.go@1.20–1.31; #95694",
        phrases=("Clearing conntrack entries",),
        files=("conntrack.go",),
        variants=(_old(r"Clearing conntrack entries \[", 20, 27), _msg("Clearing conntrack entries", 28, 31)),
    ),
    Signature(
        id="V4_CT_OUT",
        kind=Kind.PROGRESS,
        severity="I",
        summary="conntrack -D ended, with its output",
        means="What was deleted (-v=4, 1.20–1.31).",
        not_means="A dump that was cut short by a vanished entry also counts as done.",
        source="pkg/proxy/conntrack/conntrack.go@1.20–1.31; #95694",
        phrases=("Conntrack entries deleted",),
        files=("conntrack.go",),
        variants=(_old(r"Conntrack entries deleted ", 20, 27), _msg("Conntrack entries deleted", 28, 31)),
    ),
    # --- what ties addresses to Services
    Signature(
        id="SVC_PORT",
        kind=Kind.INFO,
        severity="I",
        summary="kube-proxy learnt a Service port and its address",
        means="Ties the address in other lines to a Service (-v=1, from 1.36 -v=4).",
        not_means="",
        source="pkg/proxy/service.go, servicechangetracker.go; recorded on 1.36.2",
        phrases=("Adding new service port",),
        files=("proxier.go", "service.go", "servicechangetracker.go"),
        variants=(_old(r'Adding new service port \\?"', 6, 20), _msg("Adding new service port", 21)),
        names_service=True,
    ),
    Signature(
        id="EP_SET",
        kind=Kind.INFO,
        severity="I",
        summary="kube-proxy learnt the endpoints of a Service port",
        means="Shows when endpoints came and went (-v=3).",
        not_means="",
        source="pkg/proxy/endpointslicecache.go, endpoints.go; recorded on 1.36.2",
        phrases=("Setting endpoints for service port name", "Setting endpoints for "),
        files=("proxier.go", "endpoints.go", "endpointslicecache.go"),
        variants=(
            _old(r'Setting endpoints for \\?"', 6, 22),
            _msg("Setting endpoints for service port name", 21),
        ),
        names_service=True,
    ),
)

BY_ID: dict[str, Signature] = {signature.id: signature for signature in CATALOGUE}


def _distinct_phrases() -> tuple[str, ...]:
    """Every phrase that is not already found through a shorter one."""
    every = sorted({phrase for signature in CATALOGUE for phrase in signature.phrases}, key=len)
    kept: list[str] = []
    for phrase in every:
        if not any(shorter in phrase for shorter in kept):
            kept.append(phrase)
    return tuple(sorted(kept))


PHRASES: tuple[str, ...] = _distinct_phrases()
"""Literal texts of which at least one is in every line of every signature: the catalogue for `grep -F`."""


class Known:
    """A signature together with the wording by which it was recognised; one object for each, compared by identity."""

    __slots__ = ("goes_on", "signature", "unless", "variant")

    def __init__(self, signature: Signature, variant: Variant) -> None:
        self.signature = signature
        self.variant = variant
        self.unless = signature.unless.encode()
        # Releases before structured logging print a multi-line error with its newlines.
        self.goes_on = not variant.structured and signature.kind is Kind.FAILURE


def _structured() -> dict[bytes, Known]:
    table: dict[bytes, Known] = {}
    for signature in CATALOGUE:
        for variant in signature.variants:
            if variant.structured:
                table[variant.text.encode()] = Known(signature, variant)
    return table


def _unstructured() -> tuple[tuple[re.Pattern[bytes], Known], ...]:
    return tuple(
        (re.compile(variant.text.encode()), Known(signature, variant))
        for signature in CATALOGUE
        for variant in signature.variants
        if not variant.structured
    )


_STRUCTURED = _structured()
_UNSTRUCTURED = _unstructured()


def recognise(file: bytes, message: bytes, *, structured: bool | None) -> Known | None:
    """The signature of a message from the Go source file `file` (its base name), or None when it is not one of ours.

    `structured` says what the line format tells of the message: True for the unquoted message of a structured text
    line (an exact text), False for a line of prose (which only has to begin like it), None for JSON, where either
    can stand in "msg".
    """
    known = None
    if structured is not False:
        known = _STRUCTURED.get(message)
    if known is None and structured is not True:
        for pattern, candidate in _UNSTRUCTURED:
            if pattern.match(message):
                known = candidate
                break
    if known is None or (file and file.decode("ascii", "replace") not in known.signature.files):
        return None
    return known
