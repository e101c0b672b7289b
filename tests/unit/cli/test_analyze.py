"""analyze on files, from the command line: the recorded node, in every form that its state was saved in."""

from __future__ import annotations

import gzip
import io
import json
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from kdnsctl.cli import explain
from kdnsctl.cli.analyze import is_path
from tests.unit.cli.conftest import Run
from tests.unit.find.composing import bad

NODE = Path(__file__).parents[2] / "recordings" / "node"
API = NODE.parent / "api"
FORMS = ("conntrack-stale.txt", "conntrack-stale-extended-id.txt", "conntrack-stale.xml", "proc-nf_conntrack-stale.txt")
PROVEN = ("conntrack-stale.txt", "conntrack-stale.xml")  # with a count line beside it, with an end tag
DEAD = ["10.244.1.2:53", "10.244.2.2:53"]
RULES_TOO = "rules for kube-system/kube-dns:dns lead to 10.244.1.2:53, 10.244.2.2:53, which do not serve it"


@pytest.fixture
def evidence(tmp_path: Path) -> Path:
    """The recorded node's rules and the truth after the rollout; tests add a table."""
    folder = tmp_path / "evidence"
    (folder / "knode2").mkdir(parents=True)
    shutil.copy(NODE / "iptables-nft-save-stale.txt", folder / "knode2" / "rules")
    shutil.copy(API / "endpointslices-after-rollout.json", folder / "slices")
    shutil.copy(API / "service-kube-dns.json", folder / "service")
    return folder


def with_table(evidence: Path, form: str) -> None:
    shutil.copy(NODE / form, evidence / "knode2" / "table")
    if form == "conntrack-stale.txt":
        shutil.copy(NODE / "conntrack-stale.err", evidence / "knode2" / "table.err")


def with_healthy_rules(evidence: Path) -> None:
    """As kube-proxy would have written them after the rollout."""
    rules = (evidence / "knode2" / "rules").read_bytes()
    for old, new in ((b"10.244.1.2", b"10.244.1.5"), (b"10.244.2.2", b"10.244.3.4")):
        rules = rules.replace(old, new)
    (evidence / "knode2" / "rules").write_bytes(rules)


@pytest.fixture
def analyzed(run: Run, pytestconfig: pytest.Config) -> Callable[..., dict[str, Any]]:
    """Runs analyze; the report, which is as its schema says."""
    schema = json.loads((pytestconfig.rootpath / "docs/schemas/AnalyzeReport.schema.json").read_text())

    def analyzed(*words: str, code: int = 3, stdin: bytes = b"") -> dict[str, Any]:
        ran = run("analyze", *words, "-o", "json", stdin=stdin)
        assert ran.code == code, ran.err
        report = json.loads(ran.out)
        jsonschema.validate(report, schema)
        assert isinstance(report, dict)
        return report

    return analyzed


Analyzed = Callable[..., dict[str, Any]]


def only(report: dict[str, Any]) -> dict[str, Any]:
    (node,) = report["nodes"]
    assert isinstance(node, dict)
    return node


def by_id(node: dict[str, Any]) -> dict[str, list[dict[str, Any]]]:
    found: dict[str, list[dict[str, Any]]] = {}
    for finding in node["findings"]:
        found.setdefault(finding["id"], []).append(finding)
    return found


@pytest.mark.parametrize("form", FORMS)
def test_the_recorded_node_has_the_sixty_entries_of_the_incident(evidence: Path, analyzed: Analyzed, form: str) -> None:
    with_table(evidence, form)
    node = only(analyzed(str(evidence)))
    assert (node["name"], node["identified"], node["nameFrom"]) == ("knode2", True, "path")
    assert (node["verdict"], node["basis"], node["staleEntries"], node["reads"]) == ("affected", "state", 60, 1)
    assert node["reason"] == f"60 stale UDP entries (one read); {RULES_TOO}"
    assert node["complete"] is (form in PROVEN)
    found = by_id(node)
    (entries,) = found["C1"]
    assert (entries["service"], entries["port"], entries["protocol"]) == ("kube-system/kube-dns:dns", 53, "udp")
    assert (entries["count"], sorted(entries["backends"])) == (60, DEAD)
    assert [(client["address"], client["count"]) for client in entries["clients"]] == [("10.244.2.3", 60)]
    rules = [finding for finding in found["R2"] if finding["protocol"] == "udp"]
    assert [sorted(finding["backends"]) for finding in rules] == [DEAD]


def test_the_same_node_before_the_rollout_is_clean(evidence: Path, analyzed: Analyzed) -> None:
    with_table(evidence, "conntrack-stale.txt")
    slices = json.loads((evidence / "slices").read_text())
    for endpoint, address in zip(slices["items"][0]["endpoints"], ("10.244.1.2", "10.244.2.2"), strict=True):
        endpoint["addresses"] = [address]
    (evidence / "slices").write_text(json.dumps(slices))
    node = only(analyzed(str(evidence), code=0))
    assert (node["verdict"], node["staleEntries"], node["complete"]) == ("clean", 0, True)


def test_a_table_without_proof_that_it_is_whole_is_never_clean(evidence: Path, analyzed: Analyzed) -> None:
    (evidence / "knode2" / "table").write_bytes(
        b"udp      17 20 src=10.244.2.3 dst=10.96.0.10 sport=9 dport=53 src=10.244.1.5 dst=10.244.2.3 sport=53 dport=9 "
        b"mark=0 use=1\n"
    )
    (evidence / "knode2" / "rules").unlink()
    report = analyzed(str(evidence), code=4)
    assert (only(report)["verdict"], only(report)["staleEntries"]) == ("unknown", 0)
    assert report["coverage"]["unknown"] == 1


@pytest.mark.parametrize("lines", [1, 17, 59])
def test_what_a_cut_table_still_has_counts(evidence: Path, analyzed: Analyzed, lines: int) -> None:
    with_table(evidence, "conntrack-stale.txt")
    whole = (evidence / "knode2" / "table").read_bytes().splitlines(keepends=True)
    (evidence / "knode2" / "table").write_bytes(b"".join(whole[:lines]))
    node = only(analyzed(str(evidence)))
    assert (node["verdict"], node["staleEntries"], node["complete"]) == ("affected", lines, False)
    assert "countDiffers" in {gap["code"] for gap in node["missing"]}


@pytest.mark.parametrize(
    ("entries", "why"),
    [
        (b"", "tableEmpty"),  # such as that of a container with a network of its own
        (
            (
                b"tcp      6 86390 ESTABLISHED src=10.244.2.3 dst=10.96.0.1 sport=40000 dport=443 src=10.0.0.1 "
                b"dst=10.244.2.3 sport=6443 dport=40000 [ASSURED] mark=0 use=1\n"
            ),
            "noUdpEntries",  # such as of `conntrack -L -p tcp`
        ),
    ],
)
def test_a_whole_table_without_any_udp_is_never_clean(
    evidence: Path, analyzed: Analyzed, entries: bytes, why: str
) -> None:
    with_healthy_rules(evidence)
    said = f"conntrack v1.4.7 (conntrack-tools): {entries.count(10)} flow entries have been shown.\n"
    (evidence / "knode2" / "table").write_bytes(entries)
    (evidence / "knode2" / "table.err").write_text(said)
    node = only(analyzed(str(evidence), code=4))
    assert (node["verdict"], node["staleEntries"], node["complete"]) == ("unknown", 0, False)
    assert [gap["code"] for gap in node["missing"]] == [why]


@pytest.mark.parametrize(("total", "verdict"), [(1, "clean"), (900, "unknown")])
def test_a_table_that_the_node_has_filtered_is_not_the_table(
    evidence: Path, analyzed: Analyzed, total: int, verdict: str
) -> None:
    with_healthy_rules(evidence)
    (evidence / "knode2" / "table").write_bytes(
        b"1:ipv4     2 udp      17 20 src=10.244.2.3 dst=10.96.0.10 sport=9 dport=53 src=10.244.1.5 dst=10.244.2.3 "
        b"sport=53 dport=9 mark=0 zone=0 use=2\n%d:#kdnsctl-end 0a rc=0;\n" % (total + 1)
    )
    node = only(analyzed(str(evidence), code=0 if verdict == "clean" else 4))
    assert node["verdict"] == verdict
    assert [gap["code"] for gap in node["missing"]] == ([] if verdict == "clean" else ["filtered"])


def test_an_empty_table_is_one_when_conntrack_said_so(evidence: Path, analyzed: Analyzed) -> None:
    (evidence / "knode2" / "table").write_bytes(b"")
    (evidence / "knode2" / "rules").unlink()
    (evidence / "knode2" / "table.err").write_bytes(
        b"conntrack v1.4.7 (conntrack-tools): 0 flow entries have been shown.\n"
    )
    node = only(analyzed(str(evidence), code=4))  # the rules are missing
    assert (node["verdict"], node["staleEntries"]) == ("unknown", 0)
    assert {gap["code"] for gap in node["missing"]} == {"noFile", "tableEmpty"}


def test_a_table_for_each_address_family_is_one_table(evidence: Path, analyzed: Analyzed) -> None:
    folder = evidence / "knode2"
    shutil.copy(NODE / "conntrack-stale.txt", folder / "conntrack-ipv4")
    shutil.copy(NODE / "conntrack-stale.err", folder / "conntrack-ipv4.err")
    (folder / "conntrack-ipv6").touch()
    (folder / "conntrack-ipv6.err").write_text("conntrack v1.4.7 (conntrack-tools): 0 flow entries have been shown.\n")
    node = only(analyzed(str(evidence)))
    assert (node["staleEntries"], node["complete"], len(node["sources"])) == (60, True, 3)


def packed(evidence: Path, mode: str) -> bytes:
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode=mode) as tar:  # type: ignore[call-overload]  # the mode is a test's
        tar.add(evidence, arcname="evidence")
    return archive.getvalue()


@pytest.mark.parametrize(("mode", "suffix"), [("w", ".tar"), ("w:gz", ".tar.gz"), ("w:xz", ".tar.xz")])
def test_an_archive_is_as_good_as_its_directory(
    evidence: Path, analyzed: Analyzed, tmp_path: Path, mode: str, suffix: str
) -> None:
    with_table(evidence, "conntrack-stale.txt")
    archive = tmp_path / f"dump{suffix}"
    archive.write_bytes(packed(evidence, mode))
    for words, stdin in (([str(archive)], b""), (["-"], archive.read_bytes())):
        node = only(analyzed(*words, stdin=stdin))
        assert (node["name"], node["staleEntries"], node["complete"]) == ("knode2", 60, True)


def test_a_table_through_a_pipe_and_packed_files(evidence: Path, analyzed: Analyzed) -> None:
    for name in ("slices", "service"):
        (evidence / name).write_bytes(gzip.compress((evidence / name).read_bytes()))
    table = (NODE / "proc-nf_conntrack-stale.txt").read_bytes()
    words = ("-", str(evidence / "slices"), str(evidence / "service"), "--node", "n7")
    node = only(analyzed(*words, stdin=table))
    assert (node["name"], node["nameFrom"], node["identified"]) == ("n7", "option", True)
    assert node["staleEntries"] == 60


def test_truth_as_yaml_is_the_same_truth(evidence: Path, analyzed: Analyzed) -> None:
    import yaml

    with_table(evidence, "conntrack-stale.txt")
    for name in ("slices", "service"):
        (evidence / name).write_text(yaml.safe_dump(json.loads((evidence / name).read_text())))
    assert only(analyzed(str(evidence)))["staleEntries"] == 60


def test_two_candidates_for_one_truth_are_refused_by_name(evidence: Path, run: Run) -> None:
    with_table(evidence, "conntrack-stale.txt")
    shutil.copy(API / "endpointslices-kube-dns.json", evidence / "earlier")
    ran = run("analyze", str(evidence))
    assert ran.code == 2
    assert f"{evidence}/earlier and {evidence}/slices both say what is true of EndpointSlices" in ran.err


def test_two_tables_of_one_node_are_refused_by_name(evidence: Path, run: Run) -> None:
    with_table(evidence, "conntrack-stale.txt")
    shutil.copy(NODE / "conntrack-stale.xml", evidence / "knode2" / "another")
    ran = run("analyze", str(evidence))
    assert ran.code == 2
    assert f"{evidence}/knode2/another and {evidence}/knode2/table are both" in ran.err
    assert ran.out == ""


def test_a_later_reading_is_known_by_its_name_and_settles_nothing_twice(evidence: Path, analyzed: Analyzed) -> None:
    shutil.copy(NODE / "conntrack-stale.txt", evidence / "knode2" / "table.a")
    half = (NODE / "conntrack-stale.txt").read_bytes().splitlines(keepends=True)[:30]
    (evidence / "knode2" / "table.b").write_bytes(b"".join(half))
    (evidence / "knode2" / "table.b.err").write_text(
        "conntrack v1.4.7 (conntrack-tools): 30 flow entries have been shown.\n"
    )
    node = only(analyzed(str(evidence)))
    assert (node["reads"], node["staleEntries"]) == (2, 30)


def test_every_node_is_there_once_and_no_two_are_mixed(evidence: Path, analyzed: Analyzed) -> None:
    with_table(evidence, "conntrack-stale.txt")
    (evidence / "knode3").mkdir()
    shutil.copy(NODE / "iptables-nft-save-stale.txt", evidence / "knode3" / "rules")
    nodes = {node["name"]: node for node in analyzed(str(evidence))["nodes"]}
    assert nodes.keys() == {"knode2", "knode3"}
    assert (nodes["knode2"]["staleEntries"], nodes["knode3"]["staleEntries"]) == (60, None)
    assert nodes["knode3"]["verdict"] == "affected"  # its rules prove it
    assert all(source.startswith(f"{evidence}/knode3/") for source in nodes["knode3"]["sources"])


def test_truth_that_is_missing_is_said_and_nothing_is_concluded(evidence: Path, run: Run) -> None:
    with_table(evidence, "conntrack-stale.txt")
    (evidence / "slices").unlink()
    ran = run("analyze", str(evidence))
    assert ran.code == 4
    assert "There are no EndpointSlices among the files" in ran.err
    assert "1 unknown" in ran.out


def test_what_hostile_files_say_does_not_reach_the_terminal_or_the_memory(evidence: Path, run: Run) -> None:
    with_table(evidence, "conntrack-stale.txt")
    bomb = "a: &a [x,x]\nb: &b [*a,*a]\nitems: [*b,*b]\nkind: List\n"
    (evidence / "bomb.yaml").write_text("apiVersion: v1\n" + bomb)
    (evidence / "deep.json").write_text('{"kind":' + "[" * 100_000)
    (evidence / "\x1b[31mred.json").write_text('{"kind": "List", "items": [{"kind": "Pod", "metadata": 5}]}')
    ran = run("analyze", str(evidence), "-v")
    assert ran.code == 3
    assert "\x1b" not in ran.out + ran.err
    assert "YAML with aliases" in ran.err
    assert "60 stale UDP entries" in ran.out


def test_the_explanation_comes_first_and_the_evidence_last(evidence: Path, run: Run) -> None:
    with_table(evidence, "conntrack-stale.txt")
    lines = run("analyze", str(evidence)).lines
    titles = [line.strip() for line in lines if line.startswith("  ") and not line.startswith("    ")]
    assert titles == ["What is wrong", "Who is hurt", "Will it heal by itself?", "What to do", "Evidence"]
    assert lines[0] == f"knode2: affected: 60 stale UDP entries (one read); {RULES_TOO}"
    assert any(line.startswith("    - C1 (entries that lead to a dead backend), fault, ") for line in lines)
    assert lines[-1] == "1 node in scope, 1 judged: 1 affected."


def test_a_command_is_never_broken_up_it_is_to_be_copied(
    evidence: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_table(evidence, "conntrack-stale.txt")
    (evidence / "knode2" / "rules").unlink()
    monkeypatch.setattr(explain, "columns", lambda _: 40)
    lines = [line.strip() for line in run("analyze", str(evidence)).lines]
    for dead in ("10.244.1.2", "10.244.2.2"):
        command = f"conntrack -D -p udp --orig-dst 10.96.0.10 --orig-port-dst 53 --reply-src {dead} --reply-port-src 53"
        assert lines.count(command) == 1


def test_to_collect_first_is_said_once_before_the_first_step_that_destroys(evidence: Path, run: Run) -> None:
    with_table(evidence, "conntrack-stale.txt")
    out = run("analyze", str(evidence)).out
    assert out.count("Collect the evidence first") == 1
    assert out.index("Collect the evidence first") < out.index("Restarting kube-proxy on this node")


def test_a_log_of_kube_proxy_beside_the_dumps_is_for_another_command(evidence: Path, run: Run) -> None:
    with_table(evidence, "conntrack-stale.txt")
    assert "Next:" not in run("analyze", str(evidence)).out
    (evidence / "knode2" / "kube-proxy.log").write_text(bad())
    assert run("analyze", str(evidence)).lines[-2:] == ["Next:", f"  kdnsctl find-affected --logs {evidence}"]
    ran = run("find-affected", "--logs", str(evidence), "-o", "name", "--include", "suspect")
    assert (ran.code, ran.out) == (3, "node/knode2\n")


def test_name_prints_affected_nodes_that_are_certain(evidence: Path, run: Run) -> None:
    with_table(evidence, "conntrack-stale.txt")
    assert run("analyze", str(evidence), "-o", "name").out == "node/knode2\n"
    # The name of what was given is a guess, and the truth here knows no such node.
    ran = run("analyze", str(evidence / "knode2"), str(evidence / "slices"), str(evidence / "service"), "-o", "name")
    assert (ran.code, ran.out) == (3, "")
    assert "1 left out" in ran.err


def test_rows_alone_are_for_scripts(evidence: Path, run: Run) -> None:
    with_table(evidence, "conntrack-stale.txt")
    ran = run("analyze", str(evidence), "--no-headers")
    (row,) = ran.lines
    assert row.split()[:3] == ["knode2", "affected", "60"]
    assert "1 node in scope" in ran.err


@pytest.mark.parametrize("width", [40, 80, 200])
def test_no_line_is_wider_than_the_terminal_but_a_single_word(
    evidence: Path, run: Run, monkeypatch: pytest.MonkeyPatch, width: int
) -> None:
    with_table(evidence, "conntrack-stale.txt")
    monkeypatch.setattr(explain, "columns", lambda _: width)
    for form in ("table", "wide"):
        lines = run("analyze", str(evidence), "-o", form).lines
        lines = [line for line in lines if not line.startswith("       kdnsctl ")]  # a command, to be copied
        assert [line for line in lines if len(line) > width and len(line.split()) > 1] == []
        assert any("60" in line for line in lines)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "which nodes?"),
        (["/no/such/path"], "no such"),
        (["Not_A_Node"], "is not a node name"),
        (["n1", "--at", "2026-11-23T03:00:00Z"], "--at has no effect on live nodes"),
        (["n1", "--all"], "exclude each other"),
        (["."], "no dump of a node"),
    ],
)
def test_words_that_make_no_sense(
    run: Run, words: list[str], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "notes.md").write_text("nothing\n")
    monkeypatch.chdir(tmp_path)
    ran = run("analyze", *words)
    assert ran.code == 2
    assert said in ran.err.lower() or said in ran.err


def test_nodes_and_files_are_not_mixed(run: Run, evidence: Path) -> None:
    ran = run("analyze", str(evidence), "knode2")
    assert ran.code == 2
    assert f"{evidence} is a path, and knode2 is not" in ran.err
    assert run("analyze", str(evidence), "--parallel", "3").code == 2


def test_what_a_word_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "knode2").mkdir()
    monkeypatch.chdir(tmp_path)
    assert [is_path(word) for word in ("-", "knode2", "./x", "a/b", "node/Bad")] == [True] * 5
    assert [is_path(word) for word in ("knode3", "node/knode3", "node/knode2")] == [False] * 3


@pytest.mark.parametrize("word", ["nofile.txt", "bundle.tar.gz", "Conntrack.JSON"])
def test_a_word_like_a_file_that_is_not_there_is_not_looked_for_among_the_nodes(run: Run, word: str) -> None:
    ran = run("analyze", "--server", "https://127.0.0.1:9", word)
    assert ran.code == 2
    assert f"there is no file {word}" in ran.err
    assert f"node/{word}" in ran.err
    assert "127.0.0.1" not in ran.err
