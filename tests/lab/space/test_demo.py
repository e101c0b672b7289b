"""The demo plays all acts, in order, and leaves nothing; the doctor tries the real thing."""

from __future__ import annotations

from pathlib import Path

from kdnsctl.lab import demo, doctor, space
from kdnsctl.lab.incident import Mode
from kdnsctl.lab.spacedir import LabDir, lab_dir


def test_the_story(labs: Path) -> None:
    told: list[str] = []

    def find(where: LabDir) -> None:
        logs = where.root / "nodes"
        files = sorted(logs.glob("*/var/log/pods/kube-system_kube-proxy-*/kube-proxy/*.log"))
        guilty = [
            file.relative_to(logs).parts[0]
            for file in files
            if "Failed to delete endpoint connections" in file.read_text()
        ]
        assert space.status(where.name, root=labs).running
        told.append(f"found: {guilty}")

    def repair(_: LabDir) -> bool:
        told.append("not repaired")
        return False

    acts = demo.Acts(find, lambda _: told.append("contained"), repair, lambda _: told.append("released"))
    result = demo.run(
        demo.DemoOptions(Mode.DELETE_FAILS, space.UpOptions(name="story", root=labs), results=4), told.append, acts
    )
    well = (*result.healthy, *result.healed, *result.released)
    assert (len(well), {each.percent for each in well}) == (18, {100})
    for measured in (result.broken, result.contained):
        broken = {(each.node, each.kind): each.percent for each in measured if each.percent < 100}
        assert broken == {("knode2", "fixed"): 0}
    acts_told = ["found: ['knode2']", "contained", "not repaired", "released"]
    assert [line for line in told if line in acts_told] == acts_told
    # What the acts did not repair, the lab does.
    assert told.index("not repaired") + 1 == told.index("The fault is lifted and the node's stale entries go ...")
    assert not lab_dir("story", labs).root.exists()


def test_this_machine_can_run_the_lab() -> None:
    checks = doctor.examine()
    assert doctor.can_run(checks)
    assert "namespaces" in {check.name for check in checks}


def test_a_machine_without_a_tool_is_told_the_package() -> None:
    missing = doctor.Check("conntrack", ok=False, needed=True, detail="missing", remedy="apt-get install conntrack")
    assert not doctor.can_run((missing,))
    assert doctor.can_run((doctor.Check("nft", ok=False, needed=False, detail="missing"),))
