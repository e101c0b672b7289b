"""The one door to every check: `nox` runs lint, types and tests, as CI does; `nox -l` lists the rest.

Started from the project's own `.venv` (which `./check` makes from requirements-dev.lock), sessions run right there.
Started from any other nox, each session makes and keeps an environment of its own.
"""

from __future__ import annotations

import concurrent.futures
import os
import sys
from pathlib import Path

import nox

ROOT = Path(__file__).parent
IN_PROJECT_VENV = Path(sys.prefix).resolve() == (ROOT / ".venv").resolve()
BACKEND = "none" if IN_PROJECT_VENV else "uv|venv"
if IN_PROJECT_VENV:  # its tools are found also when it was not activated
    os.environ["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])

# Pure rooms: no reason to leave a branch untested. Each is measured by itself, from the day it exists.
GATED_ROOMS = {
    "logs": ("kdnsctl/logs/sources/*",),  # room: what in it is not pure
    "netfilter": (),
    "diagnosis": (),
}
GATE_PERCENT = 95
IN_A_LAB = ("tests/lab", "tests/e2e", "tests/docs")
# The longest first; whatever is not named comes after them. Each has a lab of its own, or none.
LONGEST_FIRST = (
    *(f"tests/lab/{name}" for name in ("test_runbooks.py", "space", "test_collect_faults.py", "test_flush.py")),
    *("tests/docs", *(f"tests/lab/test_{name}.py" for name in ("verbosity", "demo", "quarantine")), "tests/e2e"),
)
AT_ONCE = 3  # parts of the tests in labs: these mostly wait, for their kernel and their processes
FAULTS = ("tests/lab/drain/test_faults.py", "tests/lab/drain/test_killed.py", "tests/lab/test_collect_faults.py")

nox.needs_version = ">=2025.5.1"
nox.options.sessions = ["lint", "types", "tests"]
nox.options.reuse_existing_virtualenvs = True
nox.options.error_on_external_run = True


def prepare(session: nox.Session) -> None:
    """Install the package and all development dependencies as locked, unless this environment already holds them."""
    if IN_PROJECT_VENV:
        return
    session.install("--require-hashes", "-r", "requirements-dev.lock")
    session.install("--no-deps", "--no-build-isolation", "-e", ".")


def measured_rooms() -> list[tuple[str, tuple[str, ...]]]:
    return [(room, omit) for room, omit in GATED_ROOMS.items() if (ROOT / "kdnsctl" / room).is_dir()]


def parts_in_labs() -> list[str]:
    """The tests in labs, in parts that can run at the same time."""
    lab = sorted(path for path in (ROOT / "tests" / "lab").iterdir() if (path / "__init__.py").exists())
    modules = sorted((ROOT / "tests" / "lab").glob("test_*.py"))
    found = [str(path.relative_to(ROOT)) for path in (*lab, *modules)]
    found += [path for path in IN_A_LAB if path != "tests/lab"]
    return list(dict.fromkeys((*LONGEST_FIRST, *found)))


@nox.session(venv_backend=BACKEND)
def lint(session: nox.Session) -> None:
    """Style, likely bugs, format, and which room may import which."""
    prepare(session)
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")
    session.run("lint-imports", "--no-logo", silent=True)  # printed only when a contract is broken


@nox.session(venv_backend=BACKEND)
def types(session: nox.Session) -> None:
    """Run mypy --strict over the package, the tests and this file."""
    prepare(session)
    session.run("mypy", "--strict", *session.posargs)


@nox.session(venv_backend=BACKEND)
def tests(session: nox.Session) -> None:
    """Run the tests, and hold the pure rooms to their coverage. With arguments: those to pytest, and no gate."""
    prepare(session)
    if session.posargs:
        session.run("pytest", *session.posargs)
        return
    session.run("coverage", "erase")
    # Beside them run those that compute, and cover the pure rooms; coverage slows down what it measures.
    parts = parts_in_labs()
    with concurrent.futures.ThreadPoolExecutor(max_workers=AT_ONCE) as beside:
        waiting = [beside.submit(session.run, "pytest", "-q", part, silent=True) for part in parts]
        try:
            session.run("coverage", "run", "-m", "pytest", "-q", *(f"--ignore={path}" for path in IN_A_LAB))
        finally:
            session.log(f"waiting for the tests of {', '.join(IN_A_LAB)}")
            concurrent.futures.wait(waiting)
            said = [part.result() for part in waiting]  # raises when one failed, after it has shown what it said
    for part, one in zip(parts, said, strict=True):
        session.log(f"{part}: {str(one).strip().splitlines()[-1]}")
    for room, omit in measured_rooms():
        omitted = [f"--omit={','.join(omit)}"] if omit else []
        session.log(f"coverage of {room}, branches included, must reach {GATE_PERCENT} %")
        session.run("coverage", "report", f"--include=kdnsctl/{room}/*", *omitted, f"--fail-under={GATE_PERCENT}")


@nox.session(venv_backend="uv")
def minimums(session: nox.Session) -> None:
    """Run the tests with the lowest version that pyproject.toml declares of each direct dependency."""
    lowest = str(Path(session.create_tmp()) / "lowest.txt")
    resolve = ["uv", "pip", "compile", "pyproject.toml", "--extra=lab", "--resolution=lowest-direct", "--quiet"]
    session.run(*resolve, "--output-file", lowest, external=True, silent=True)
    session.install("--require-hashes", "-r", "requirements-dev.lock")  # the test tools; then the rest is lowered
    session.install("-r", lowest)
    session.install("--no-deps", "--no-build-isolation", "-e", ".")
    session.run("pytest", *session.posargs)


@nox.session(venv_backend=BACKEND)
def e2e(session: nox.Session) -> None:
    """Run the commands on the cluster of KDNSCTL_E2E_KUBECONFIG, or on a lab; CONTRIBUTING.md says what it touches."""
    prepare(session)
    session.run("pytest", *(session.posargs or ("tests/e2e",)))


@nox.session(venv_backend=BACKEND)
def demo(session: nox.Session) -> None:
    """Play the lab's demo in all three ways to fail, hold it to its story, and show it."""
    prepare(session)
    session.run("pytest", "tests/lab/test_demo.py", "-rP", *session.posargs)


@nox.session(venv_backend=BACKEND)
def faults(session: nox.Session) -> None:
    """End commands at every moment, fail nodes and servers in every way, in the lab: minutes; the tests do a few."""
    prepare(session)
    session.run("pytest", *(session.posargs or FAULTS), env={"KDNSCTL_FAULTS": "all"})


@nox.session(venv_backend=BACKEND)
def bench(session: nox.Session) -> None:
    """Measure speed and memory beside the peers; prints figures, asserts none."""
    prepare(session)
    session.run("python", "-m", "tests.bench", *session.posargs)


@nox.session(venv_backend=BACKEND)
def fuzz(session: nox.Session) -> None:
    """Feed the parsers with damaged recordings, a minute each; `-- --help` says more. The tests run a little of it."""
    prepare(session)
    session.run("python", "-m", "tests.fuzz", *session.posargs)


@nox.session(venv_backend=BACKEND)
def docs(session: nox.Session) -> None:
    """Build the site into site/; a broken link is an error."""
    prepare(session)
    session.run("zensical", "build", "--strict", "--clean")


@nox.session(venv_backend=BACKEND)
def singlefile(session: nox.Session) -> None:
    """Make the single file for this machine into dist/; `-- --platform linux-aarch64` fetches what others need."""
    prepare(session)
    session.run("python", "scripts/singlefile.py", *session.posargs)


@nox.session(venv_backend=BACKEND)
def krew(session: nox.Session) -> None:
    """Make the krew plug-in of the single files in dist/: `-- --url https://…/v1.2.3` says where it will be."""
    prepare(session)
    files = sorted(str(path) for path in (ROOT / "dist").glob("*.pyz"))
    session.run("python", "scripts/krew.py", *files, *session.posargs)


@nox.session(venv_backend=BACKEND)
def reference(session: nox.Session) -> None:
    """Write docs/reference anew, from the commands; a test holds it to them."""
    prepare(session)
    session.run("python", "-m", "tests.docs.reference")


@nox.session(venv_backend=BACKEND)
def images(session: nox.Session) -> None:
    """Draw docs/images anew, in a lab; a test holds them to what the commands print."""
    prepare(session)
    session.run("python", "-m", "tests.docs.images")


@nox.session(venv_backend="uv")
def lock(session: nox.Session) -> None:
    """Write the lock files anew. With arguments: those to uv, for example `--upgrade`."""
    common = [
        "--extra=lab",  # ./try plays the lab's demo, and the tests need it
        "--universal",
        "--python-version=3.11",
        "--generate-hashes",
        "--no-emit-index-url",
        "--no-emit-find-links",
        "--no-annotate",
        "--custom-compile-command=nox -s lock",
        "--quiet",
        *session.posargs,
    ]
    run = ["uv", "pip", "compile", "pyproject.toml", *common, "--output-file"]
    session.run(*run, "requirements.lock", external=True)
    session.run(*run, "requirements-dev.lock", "--group=dev", "--constraints=requirements.lock", external=True)
