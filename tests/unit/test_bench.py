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
from tests.bench import corpus, machine, measuring, reading, scanning
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
    assert set(facts) == {"processor", "memory", "kernel", "Python", "grep"}
    assert all(facts.values())


def test_a_small_run_prints_tables_writes_json_and_leaves_no_logs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    logs = tmp_path / "logs"
    logs.mkdir()
    monkeypatch.setenv("KDNSCTL_BENCH_DIR", str(logs))
    out = tmp_path / "figures.json"
    only = ["--only=startup", "--only=scan"]
    assert bench.main([*only, "--megabytes=2", "--rounds=1", "--runs=1", f"--out={out}"]) == 0
    assert list(logs.iterdir()) == []

    printed = capsys.readouterr().out
    assert "| python -c pass |" in printed
    assert printed.count("| yes |") == len(scanning.SHARES)
    figures = json.loads(out.read_text(encoding="utf-8"))
    assert [scan["share"] for scan in figures["scan"]] == list(scanning.SHARES)
    assert all(scan["agrees"] for scan in figures["scan"])
    assert all(start["cpu"] > 0 for start in figures["startup"])


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
