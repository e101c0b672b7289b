"""The benchmark's own tools: figures are worth something only if the input is what it is said to be."""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from kdnsctl.logs.signatures import PHRASES
from tests.bench import __main__ as bench
from tests.bench import corpus, fleet, machine, measuring, online, reading, scanning, sshfleet, tablereading, tables
from tests.bench.measuring import RunError, measure
from tests.bench.peers import grep_phrases

SIZE = 1_500_000


def digest(files: list[Path]) -> str:
    return hashlib.sha256(b"".join(path.read_bytes() for path in files)).hexdigest()


@pytest.mark.parametrize("share", scanning.SHARES)
def test_the_mix_holds_as_many_hits_as_it_says_and_grep_finds_them(tmp_path: Path, share: float) -> None:
    written = corpus.write(tmp_path / "logs", SIZE, share, seed=1, phrases=PHRASES)
    text = b"".join(path.read_bytes() for path in written.files)
    assert (written.size, written.lines) == (len(text), text.count(b"\n"))
    # The few lines of a start are hits too, and weigh more in files as small as these.
    assert share <= written.hits / written.lines < share + 0.01

    phrases = grep_phrases.write_phrases(tmp_path / "phrases")
    grep = subprocess.run(
        grep_phrases.command(phrases, written.files),
        env={**os.environ, **grep_phrases.ENVIRONMENT},
        capture_output=True,
        check=True,
    )
    assert scanning.counted_by_grep(grep.stdout) == written.hits


def test_the_same_seed_makes_the_same_bytes_and_another_seed_others(tmp_path: Path) -> None:
    first, again, other = (
        digest(corpus.write(tmp_path / str(number), SIZE, 0.05, seed, PHRASES).files)
        for number, seed in enumerate([1, 1, 2])
    )
    assert first == again != other


def test_each_line_has_the_format_of_its_file_and_time_never_goes_back(tmp_path: Path) -> None:
    written = corpus.write(tmp_path, SIZE, 0.05, seed=1, phrases=PHRASES)
    klog = re.compile(r"[IWEF](\d{4} \d\d:\d\d:\d\d\.\d{6})       1 [\w.]+\.go:\d+\] .+")
    block = re.compile(r"\t.*| >( \w+=.*)?")
    cri = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}Z) stderr [FP] (.+)")
    for path in written.files:
        times = []
        for line in path.read_text(encoding="utf-8").splitlines():
            if path.parent.name == "json":
                times.append(json.loads(line)["ts"])
            elif path.parent.name == "text":
                match = klog.fullmatch(line)
                assert match or block.fullmatch(line), line
                times += [match[1]] if match else []
            else:
                match = cri.fullmatch(line)
                assert match, line
                times.append(match[1])
        assert times == sorted(times)
        assert len(times) > 500


def test_a_long_line_is_cut_as_a_runtime_cuts_it(tmp_path: Path) -> None:
    written = corpus.write(tmp_path, 20_000_000, 0.2, seed=1, phrases=PHRASES)
    fragments = [
        line
        for path in written.files
        if path.name == "0.log"
        for line in path.read_text(encoding="utf-8").splitlines()
        if " stderr P " in line
    ]
    assert fragments
    assert {len(line.partition(" stderr P ")[2]) for line in fragments} == {corpus.FRAGMENT}


def test_memory_of_a_child_counts_while_it_is_held(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    hold = f"block = bytearray(50_000_000); open({str(gate)!r}).read(); print(len(block))"
    command = [sys.executable, "-c", f"import subprocess, sys; subprocess.run([sys.executable, '-c', {hold!r}])"]
    anonymous = measuring._anonymous
    seen: list[int] = []

    def let_go_once_seen(pid: int) -> int:
        size = anonymous(pid)
        if size > 50_000_000 and not seen:
            seen.append(size)
            gate.write_text("", encoding="ascii")  # waits for the reader, which ends then
        return size

    monkeypatch.setattr(measuring, "_anonymous", let_go_once_seen)
    usage = measure(command, sample=True)
    assert usage.output == b"50000000\n"
    assert 50_000_000 < usage.anonymous < 150_000_000
    assert usage.cpu > 0
    assert usage.wall > 0


def test_a_run_that_fails_is_an_error_with_what_it_said() -> None:
    with pytest.raises(RunError, match="exit code 3: no such file"):
        measure([sys.executable, "-c", "import sys; print('no such file', file=sys.stderr); sys.exit(3)"])


def test_the_machine_is_described() -> None:
    facts = machine.facts()
    assert set(facts) == {"processor", "memory", "kernel", "Python", "grep", "mawk"}
    assert all(facts.values())


def test_a_small_run_prints_tables_writes_json_and_leaves_no_logs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    logs = tmp_path / "logs"
    logs.mkdir()
    monkeypatch.setenv("KDNSCTL_BENCH_DIR", str(logs))
    out = tmp_path / "figures.json"
    small = ["--megabytes=2", "--rounds=1", "--runs=1", "--pods=20", "--large=400000", "--nodes=600", "--entries=3000"]
    only = [f"--only={part}" for part in ("startup", "scan", "online", "kubectl", "memory", "table")]
    assert bench.main([*only, *small, f"--out={out}"]) == 0
    assert list(logs.iterdir()) == []

    printed = capsys.readouterr().out
    assert "| python -c pass |" in printed
    assert printed.count("| yes |") == len(scanning.SHARES) + len(online.SHAPES) + 2
    assert "| NO |" not in printed
    figures = json.loads(out.read_text(encoding="utf-8"))
    assert [scan["share"] for scan in figures["scan"]] == list(scanning.SHARES)
    assert all(scan["agrees"] for scan in figures["scan"])
    assert [one["shape"] for one in figures["online"]] == [shape.name for shape in online.SHAPES]
    assert all(one["agrees"] and one["bytes"] > 20 * online.SIZE for one in [*figures["online"]])
    assert figures["kubectl"]["agrees"]
    assert all(figures["memory"][name] > 1e6 for name in ("small", "large", "listing"))
    assert all(start["cpu"] > 0 for start in figures["startup"])
    (table,) = figures["table"]
    assert table["agrees"]
    assert (table["entries"], table["stale"]) == (3_000, 30)


def test_the_nodes_that_are_read_are_read_whole_or_the_run_fails(tmp_path: Path) -> None:
    table = reading._table(tmp_path / "table", 300_000)
    assert table.stat().st_size >= 300_000
    with reading._server(tmp_path, 3) as kubeconfig:
        usage, said = reading._read(kubeconfig, table, 3, 2)
        assert (said["complete"], said["received"]) == (3, 3 * table.stat().st_size)
        assert usage.anonymous > 0
        assert said["cpu"] > 0
        with pytest.raises(RunError, match="of 4 nodes 3 were read whole"):
            reading._read(kubeconfig, table, 4, 2)
        with pytest.raises(RunError, match="of 3 nodes 0 were read whole"):
            reading._read(kubeconfig, tmp_path, 3, 2)


def test_a_report_that_misses_a_node_or_a_failure_is_not_right() -> None:
    def report(pods: int, failures: int) -> bytes:
        bad = {"verdict": "suspect", "signatures": [{"id": "CT_DEL_ENDPOINT", "count": failures}]}
        good = {"verdict": "clean", "signatures": []}
        nodes = [{"name": fleet.node_name(number), **(bad if fleet.is_bad(number) else good)} for number in range(pods)]
        return json.dumps({"nodes": nodes}).encode()

    assert online.is_right(report(20, fleet.FAILURES), 20)
    assert not online.is_right(report(19, fleet.FAILURES), 20)
    assert not online.is_right(report(20, fleet.FAILURES - 1), 20)
    assert not online.is_right(report(20, fleet.FAILURES).replace(b"suspect", b"clean"), 20)


def test_a_table_holds_what_it_says_and_is_of_the_kinds_that_are_promised(tmp_path: Path) -> None:
    table = tables.write(tmp_path / "table", 20_000, 0.02, seed=1)
    text = table.path.read_text(encoding="ascii")
    lines = text.splitlines()
    assert (table.size, table.entries, table.stale) == (len(text), len(lines), 400)
    assert 200 < table.size / table.entries < 270
    for some in ("ipv4 ", "ipv6 ", " tcp ", " udp ", " unknown ", "packets=", "secctx=", "delta-time=", "[OFFLOAD]"):
        assert 0 < sum(some in line for line in lines) < len(lines), some
    other = tables.write(tmp_path / "other", 2_000, 0.02, seed=2)
    again = tables.write(tmp_path / "again", 20_000, 0.02, seed=1)
    assert again.path.read_bytes() == table.path.read_bytes()
    assert not text.startswith(other.path.read_text(encoding="ascii")[:1000])


def test_the_awk_program_counts_by_its_definition(tmp_path: Path) -> None:
    line = "ipv4 2 %s 17 9 src=10.0.0.1 dst=%s sport=1 dport=%d src=%s dst=10.0.0.1 sport=%d dport=1 mark=0 use=1"
    cases = [
        ("udp", "10.96.0.10", 53, "10.0.0.5", 53),  # serves
        ("udp", "10.96.0.10", 53, "10.0.0.6", 53),  # dead
        ("udp", "10.96.0.10", 53, "10.0.0.5", 54),  # another port
        ("tcp", "10.96.0.10", 53, "10.0.0.6", 53),  # not UDP
        ("udp", "10.96.0.10", 54, "10.0.0.6", 53),  # not the Service's port
        ("udp", "10.96.0.11", 53, "10.0.0.6", 53),  # not its address
    ]
    serving, table = tmp_path / "serving", tmp_path / "table"
    serving.write_text("10.96.0.10 53 10.0.0.5 53\n", encoding="ascii")
    table.write_text("".join(f"{line % case}\n" for case in cases) + "what is this\n", encoding="ascii")
    mawk = subprocess.run(["mawk", "-f", tablereading.PEER, serving, table], capture_output=True, check=True)
    assert mawk.stdout == b"2 6 1\n"


def test_tables_come_whole_over_ssh_by_both_sides_that_are_compared(tmp_path: Path) -> None:
    with sshfleet.servers(tmp_path, 2) as fleet:
        fleet.write_table(200_000)
        assert 150_000 < fleet.size < 250_000
        assert fleet.collect("ssh").wall > 0  # both raise when what came is not what was there
        assert fleet.peer("gzip -1").wall > 0
        (tmp_path / "table").write_bytes(b"something else")
        with pytest.raises(RunError, match="not what was there"):
            fleet.collect("ssh")
