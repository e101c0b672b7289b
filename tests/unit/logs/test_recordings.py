"""The recorded logs of Kubernetes 1.36.2, read whole and compared with what a naive search over their text counts."""

import json
import re
from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from kdnsctl.logs.framing import Line
from kdnsctl.logs.klog import TextClock
from kdnsctl.logs.scan import Scanner
from kdnsctl.logs.sinks import StreamKey
from kdnsctl.logs.tally import Tally
from kdnsctl.logs.times import from_datetime
from tests.unit.logs.scanning import KUBE_PROXY, OWN, micro, scan

WRITTEN = from_datetime(datetime(2026, 11, 24, tzinfo=UTC))

# The words that make a signature in releases from 1.32 on, in text and in JSON.
WORDS = {
    "IPT_RESTORE_FAIL": r"Failed to execute iptables-restore",
    "IPT_SAVE_FAIL": r"Failed to execute iptables-save: stale chains will not be deleted",
    "IPT_CHAIN_FAIL": r"Failed to ensure chain (?:exists|jumps)",
    "IPT_SYNC_FAILED": r"Sync failed",
    "IPT_CANARY_FAIL": r"Could not (?:check for|set up) iptables canary",
    "IPT_FLUSHED": r"(?:IPTables canary deleted|Reloading after iptables flush)",
    "NFT_SYNC_FAIL": r"nftables sync failed",
    "CT_LIST_FAIL": r"Failed to list conntrack entries",
    "CT_CLEAR_FAIL": r"Failed to clear all conntrack entries",
    "CT_PARTIAL": r"received a partial result, continuing to clean with partial result",
    "CT_RECONCILED": r"Finished reconciling conntrack entries",
    "SYNC_DONE": r"SyncProxyRules complete",
    "START_VERSION": r"Version info",
    "START_MODE": r"Using \w+ Proxier",
    "START_CTRL": r"Starting (?:service|endpoint slice|node|serviceCIDR) config controller",
    "CACHES_SYNCED": r"Caches are synced",
    "START_NOT_SYNCED": r"Not syncing (?:iptables|nftables) until Services and Endpoints have been received from ",
    "SVC_PORT": r"Adding new service port",
    "EP_SET": r"Setting endpoints for service port name",
}
FLAGS = {"START_FLAG_V": r"FLAG: --v=", "START_NODE": r"FLAG: --hostname-override="}


def by_words(text: str) -> Counter[str]:
    counts: Counter[str] = Counter()
    for line in text.splitlines():
        message = re.search(r'\.go:\d+(?:\] |","msg":)(.*)', line)
        for signature, words in WORDS.items():
            counts[signature] += message is not None and re.match(rf'"{words}', message[1]) is not None
        for signature, words in FLAGS.items():
            counts[signature] += message is not None and re.match(f'"?{words}', message[1]) is not None
    return +counts


def stamps(text: str) -> list[int]:
    """Every klog time of the text, by another way than the code's: strptime and json."""
    found = []
    for line in text.splitlines():
        klog = re.search(r"^[IWEF](\d{4} \d\d:\d\d:\d\d\.\d{6}) ", line)
        if klog:
            moment = datetime.strptime("2026" + klog[1], "%Y%m%d %H:%M:%S.%f").replace(tzinfo=UTC)
            found.append(from_datetime(moment))
        elif line.startswith("{"):
            milliseconds = json.loads(line)["ts"]
            found.append(from_datetime(datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=milliseconds)))
        elif re.match(r"\d{4}-", line):
            found.append(micro(line[:26].rstrip("Z").partition(" ")[0].rstrip("Z")))
    return found


FILES = (
    "v4-stopped-then-healed.log",
    "iptables-restore-failing.log",
    "v4-nftables-json.log",
    "cri-file.log",
    "kubectl-logs-timestamps.txt",
)
each_file = pytest.mark.parametrize("name", FILES)


class OneTally:
    def __init__(self) -> None:
        self.tally = Tally()

    def stream(self, key: StreamKey, line: Line | None) -> Tally:
        assert key == OWN
        assert line is None or line.key == OWN
        return self.tally


def tally_of(path: Path, chunk: int = 1 << 20) -> Tally:
    sink = OneTally()
    scanner = Scanner(sink, TextClock(WRITTEN))
    data = path.read_bytes()
    for start in range(0, len(data), chunk):
        scanner.feed(data[start : start + chunk])
    scanner.finish()
    assert scanner.klog_records
    return sink.tally


@each_file
def test_counts_are_those_of_a_naive_search(name: str) -> None:
    path = KUBE_PROXY / name
    expected = by_words(path.read_text())
    assert Counter(scan(path.read_bytes(), written=WRITTEN).ids) == expected
    assert {signature: count.count for signature, count in tally_of(path).counts.items()} == expected


@each_file
@pytest.mark.parametrize("chunk", [7, 1000, 4096])
def test_recordings_read_in_small_chunks_tell_the_same(name: str, chunk: int) -> None:
    data = (KUBE_PROXY / name).read_bytes()
    assert scan(data, chunk=chunk, written=WRITTEN).result() == scan(data, written=WRITTEN).result()


@each_file
def test_the_span_is_that_of_all_stamps_to_the_microsecond(name: str) -> None:
    path = KUBE_PROXY / name
    tally = tally_of(path)
    times = stamps(path.read_text())
    assert len(times) > 4
    # JSON's decimals are finer than a microsecond, and datetime rounds where the code cuts.
    assert abs((tally.first or 0) - min(times)) <= (1 if "json" in name else 0)
    assert abs((tally.last or 0) - max(times)) <= (1 if "json" in name else 0)
    assert tally.cuts == {}


@each_file
def test_first_and_last_of_every_signature_are_those_of_its_lines(name: str) -> None:
    path = KUBE_PROXY / name
    counts = tally_of(path).counts
    by_signature: dict[str, list[int]] = {}
    for line in path.read_text().splitlines():
        for signature in by_words(line):
            by_signature.setdefault(signature, []).extend(stamps(line))
    assert counts.keys() == by_signature.keys()
    for signature, count in counts.items():
        assert abs((count.first or 0) - min(by_signature[signature])) <= 1, signature
        assert abs((count.last or 0) - max(by_signature[signature])) <= 1, signature


def test_the_failing_recording_tells_its_failures_its_start_and_their_cause() -> None:
    tally = tally_of(KUBE_PROXY / "iptables-restore-failing.log")
    restore = tally.counts["IPT_RESTORE_FAIL"]
    assert restore.count == (KUBE_PROXY / "iptables-restore-failing.log").read_text().count('iptables-restore" err')
    assert restore.count > 1
    assert tally.versions == [(tally.counts["START_VERSION"].first, "v1.36.2")]
    assert (tally.mode, tally.verbosity, tally.hostname) == ("iptables", 2, "knode1")
    assert (tally.start_count, len(tally.starts)) == (1, 1)
    assert set(tally.causes) == {("IPT_RESTORE_FAIL", "missingLibrary"), ("IPT_SAVE_FAIL", "other")}
    assert tally.causes["IPT_RESTORE_FAIL", "missingLibrary"].count == restore.count
    assert "cannot open shared object file" in tally.causes["IPT_RESTORE_FAIL", "missingLibrary"].example
    assert tally.syncs_failed == sorted(tally.syncs_failed)
    assert tally.deletions_failed == []
    assert tally.ours


def test_the_healed_recording_tells_a_start_and_a_reconciliation_and_no_failure() -> None:
    tally = tally_of(KUBE_PROXY / "v4-stopped-then-healed.log")
    assert (tally.mode, tally.verbosity, tally.hostname) == ("iptables", 4, "knode2")
    assert [version for _, version in tally.versions] == ["v1.36.2"]
    assert tally.starts == [tally.counts["START_MODE"].first] == [micro("2026-11-23T03:01:29.440367")]
    assert tally.last == micro("2026-11-23T03:02:40.916863")
    assert tally.first == micro("2026-11-23T03:01:29.122687")
    assert (tally.deletions_failed, tally.syncs_failed, tally.causes, tally.peers) == ([], [], {}, {})
    assert tally.counts["CT_RECONCILED"].count >= 1
    assert "entriesDeleted=60" in (KUBE_PROXY / "v4-stopped-then-healed.log").read_text()
    assert "10.96.0.10" in tally.addresses
    assert tally.endpoint_changes
    assert tally.oldest_possible >= 34


@pytest.mark.parametrize("name", ["v4-nftables-json.log", "cri-file.log"])
def test_the_json_recording_and_its_cri_file_tell_the_same_start(name: str) -> None:
    tally = tally_of(KUBE_PROXY / name)
    assert (tally.mode, tally.verbosity, tally.hostname) == ("nftables", 4, "knode2")
    assert [version for _, version in tally.versions] == ["v1.36.2"]
    assert (tally.start_count, len(tally.starts)) == (1, 1)
    assert tally.peers == {}


def test_the_cri_file_is_dated_by_the_runtime() -> None:
    tally = tally_of(KUBE_PROXY / "cri-file.log")
    assert tally.first == micro("2026-11-23T03:03:31.238869")
    assert tally.last == micro("2026-11-23T03:03:42.716759")


def test_the_recordings_are_not_changed_by_line_ends_or_a_missing_last_newline() -> None:
    for name in FILES[:3]:
        data = (KUBE_PROXY / name).read_bytes()
        assert scan(data.rstrip(b"\n"), written=WRITTEN).result() == scan(data, written=WRITTEN).result()
        crlf = scan(data.replace(b"\n", b"\r\n"), written=WRITTEN)
        assert crlf.result() == scan(data, written=WRITTEN).result()
