"""`python -m kdnsctl.lab COMMAND`: the lab's functions from a command line, for those who develop it.

Operators use `kdnsctl lab`, which calls the same functions.
"""

# ruff: noqa: T201 - a command line prints
from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict

from kdnsctl.lab import demo, doctor, incident, space
from kdnsctl.lab.incident import Mode
from kdnsctl.lab.spacedir import LabError


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m kdnsctl.lab")
    commands = parser.add_subparsers(dest="command", required=True)

    def command(name: str, text: str) -> argparse.ArgumentParser:
        made = commands.add_parser(name, help=text)
        if name != "doctor":
            made.add_argument("--name", default="demo" if name == "demo" else space.DEFAULT_NAME)
        return made

    for name in ("up", "demo"):
        made = command(name, "build a lab" if name == "up" else "play the whole incident")
        made.add_argument("--nodes", type=int, default=3)
        made.add_argument("--kube-proxy-version", default=space.DEFAULT_VERSION)
        made.add_argument("--verbosity", type=int, default=2)
        made.add_argument("--json-logs", action="store_true")
        if name == "demo":
            made.add_argument("--keep", action="store_true")
    for name in ("down", "status", "env", "heal", "doctor"):
        command(name, f"see docs/lab.md, {name}")
    shell = command("shell", "run a command inside the lab")
    shell.add_argument("--node")
    shell.add_argument("words", nargs=argparse.REMAINDER)
    breaking = command("break", "break DNS on one node")
    breaking.add_argument("--node")
    for each in (breaking, commands.choices["demo"]):
        each.add_argument("--mode", choices=[mode.value for mode in Mode], default=Mode.DELETE_FAILS.value)
    return parser


def _run(options: argparse.Namespace) -> int:
    name = getattr(options, "name", "")
    if options.command in ("up", "demo"):
        wanted = space.UpOptions(
            name,
            options.nodes,
            kube_proxy_version=options.kube_proxy_version,
            kube_proxy_verbosity=options.verbosity,
            kube_proxy_json=options.json_logs,
        )
        if options.command == "demo":
            demo.run(demo.DemoOptions(Mode(options.mode), wanted, keep=options.keep), print)
        else:
            print(f"lab {name} is up: {space.up(wanted).server}")
    elif options.command == "down":
        print(f"lab {name} is gone" if space.down(name) else f"there is no lab {name}")
    elif options.command == "status":
        print(json.dumps(asdict(space.status(name)), indent=2, default=str))
    elif options.command == "env":
        print(space.env(name), end="")
    elif options.command == "shell":
        words = options.words[1:] if options.words[:1] == ["--"] else options.words
        return space.shell(words, name=name, node=options.node)
    elif options.command == "break":
        print(json.dumps(asdict(incident.break_dns(Mode(options.mode), name=name, node=options.node))))
    elif options.command == "heal":
        healed = incident.heal(name=name)
        print(f"healed {healed.mode} on {healed.node}" if healed else "nothing was broken")
    else:
        checks = doctor.examine(
            lambda check: print(f"{'ok' if check.ok else 'NO':<4}{check.name:<22}{check.detail} {check.remedy}")
        )
        return 0 if doctor.can_run(checks) else 1
    return 0


def main() -> int:
    """Run one command; errors are one line, with what to do."""
    try:
        return _run(_parser().parse_args())
    except LabError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
