"""`kdnsctl bundle show`, `verify` and `redact` on bundles that are sound, and on ones that were touched."""

import json
from pathlib import Path

import jsonschema
import pytest

from kdnsctl.evidence.artefactfile import Source
from kdnsctl.evidence.bundle import Bundle
from tests.unit.cli.conftest import Run
from tests.unit.evidence.test_verify import make_bundle

SCHEMA = json.loads((Path(__file__).parents[3] / "docs/schemas/BundleReport.schema.json").read_text())


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return make_bundle(tmp_path / "evidence")


def test_a_sound_bundle_is_called_so(run: Run, place: Path) -> None:
    ran = run("bundle", "verify", str(place))
    assert (ran.code, ran.err) == (0, "")
    assert f"{place}: sound. 3 artefacts of 1 node, 1 of them cut off or failed (bundle show: WHOLE)." in " ".join(
        ran.out.split()
    )
    assert "SHA-256 of SHA256SUMS: " in ran.out


def test_show_lists_what_is_whole_and_why_the_rest_is_not(run: Run, place: Path) -> None:
    ran = run("bundle", "show", str(place))
    assert ran.code == 0
    rows = [line.split() for line in ran.lines]
    assert any(row[:3] == ["services", "<cluster>", "1"] and "yes" in row for row in rows)
    assert any(row[:2] == ["iptables", "knode1"] and "COMMIT" in row and "yes" not in row for row in rows)


def test_one_flipped_bit_is_found(run: Run, place: Path) -> None:
    file = place / "cluster/01/services.json"
    content = bytearray(file.read_bytes())
    content[3] ^= 1
    file.write_bytes(content)
    for command in ("show", "verify"):
        ran = run("bundle", command, str(place))
        assert ran.code == 3
        assert "BROKEN" in ran.out
        assert "cluster/01/services.json" in ran.out
        assert "sound." not in ran.out


def test_a_report_for_programs_keeps_to_its_schema(run: Run, place: Path) -> None:
    (place / "nodes/knode1/01/added.txt").write_text("x")
    ran = run("bundle", "verify", str(place), "-o", "json")
    assert ran.code == 3
    report = json.loads(ran.out)
    jsonschema.validate(report, SCHEMA)
    assert report["sound"] is False
    assert {flaw["path"] for flaw in report["flaws"]} == {"nodes/knode1/01/added.txt"}
    assert [one["node"] for one in report["artefacts"]] == [None, "knode1", "knode1"]


def test_escapes_of_a_stranger_do_not_reach_the_terminal(run: Run, place: Path) -> None:
    (place / "nodes/knode1/01/\x1b[31mred").write_text("x")
    ran = run("bundle", "show", str(place))
    assert ran.code == 3
    assert "\x1b" not in ran.out


def test_what_is_no_bundle_is_wrong_usage(run: Run, tmp_path: Path) -> None:
    ran = run("bundle", "verify", str(tmp_path / "nothing"))
    assert ran.code == 2
    assert "there is no bundle" in ran.err


class TestRedact:
    SCHEMA = json.loads((Path(__file__).parents[3] / "docs/schemas/RedactReport.schema.json").read_text())

    @pytest.fixture
    def known(self, tmp_path: Path) -> Path:
        """A bundle with nothing in it but what can be redacted."""
        with Bundle.create(tmp_path / "evidence", {"nodes": ["knode1"]}) as bundle:
            mode = bundle.begin("knode1", "kubeProxy.mode", "proxy-mode.txt", Source("exec"))
            mode.write(b"iptables")
            mode.close(proof="closed")
            bundle.finish({"nodes": {"knode1": "complete"}})
        return tmp_path / "evidence"

    def test_the_copy_is_told_and_sound(self, run: Run, known: Path, tmp_path: Path) -> None:
        ran = run("bundle", "redact", str(known), "-O", str(tmp_path / "copy"))
        assert (ran.code, ran.err) == (0, "")
        assert f"1 artefacts redacted, 0 left out, 0 withheld. Bundle: {tmp_path / 'copy'}" in " ".join(ran.out.split())
        assert run("bundle", "verify", str(tmp_path / "copy")).code == 0
        assert not list((tmp_path / "copy/nodes").glob("knode1"))

    def test_what_was_left_out_is_told_and_no_success(self, run: Run, place: Path, tmp_path: Path) -> None:
        ran = run("bundle", "redact", str(place), "-O", str(tmp_path / "copy"), "-o", "json")
        report = json.loads(ran.out)
        jsonschema.validate(report, self.SCHEMA)
        assert (ran.code, report["leftOut"]) == (4, ["nodes/knode1/01/iptables.txt"])

    def test_a_broken_bundle_is_refused(self, run: Run, known: Path, tmp_path: Path) -> None:
        (known / "nodes/knode1/01/proxy-mode.txt").write_bytes(b"ipvs")
        ran = run("bundle", "redact", str(known), "-O", str(tmp_path / "copy"))
        assert ran.code == 5
        assert "nothing was written" in ran.err
        assert not (tmp_path / "copy").exists()

    def test_one_key_gives_the_same_names_and_none_gives_others(self, run: Run, known: Path, tmp_path: Path) -> None:
        (tmp_path / "key").write_bytes(bytes(range(32)))
        key = ["--key-file", str(tmp_path / "key")]
        for name, words in {"one": key, "two": key, "three": []}.items():
            assert run("bundle", "redact", str(known), "-O", str(tmp_path / name), *words).code == 0
        nodes = [next((tmp_path / name / "nodes").iterdir()).name for name in ("one", "two", "three")]
        assert nodes[0] == nodes[1] != nodes[2]

    @pytest.mark.parametrize("content", [None, b"short", b"x" * 5000])
    def test_a_key_that_is_none_is_wrong_usage(
        self, run: Run, known: Path, tmp_path: Path, content: bytes | None
    ) -> None:
        if content is not None:
            (tmp_path / "key").write_bytes(content)
        ran = run("bundle", "redact", str(known), "-O", str(tmp_path / "copy"), "--key-file", str(tmp_path / "key"))
        assert ran.code == 2
        assert not (tmp_path / "copy").exists()
