"""`kdnsctl rbac`: the least Role and ClusterRole for commands, as manifests for `kubectl apply -f -`.

No cluster is asked. What the commands need stands beside their calls; what a Role looks like is known to
`access.roles`.
"""

from __future__ import annotations

import enum
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import typer

from kdnsctl.cli import needing, values
from kdnsctl.cli.options import Common, Format
from kdnsctl.model import UsageError

if TYPE_CHECKING:
    from kdnsctl.access import Permission
    from kdnsctl.access.needs import Needs

# The options of other commands for which --with-… adds permissions.
KUBELET_LOGS = "--kubelet-logs"
LIVE = "--live"
VIA_POD = "--via pod"
# The API server's rule for names of roles: a path segment (apimachinery, pkg/api/validation/path/name.go).
_ROLE_NAME = re.compile(r"(?!\.\.?$)[^/%\s]{1,253}")


class Form(enum.StrEnum):
    """How to print the manifests."""

    YAML = "yaml"
    JSON = "json"


@dataclass(frozen=True, slots=True)
class Granting:
    """How much the roles shall allow."""

    with_kubelet_logs: Annotated[
        bool,
        typer.Option(
            "--with-kubelet-logs",
            help="Allow get nodes/proxy too, for find-affected --kubelet-logs. It is nearly root on every node.",
            show_default=False,
        ),
    ] = False
    with_live: Annotated[
        bool,
        typer.Option(
            "--with-live",
            help="Allow what find-affected --live needs too: pods/exec in kube-system, among others, which is as good "
            "as root on every node.",
            show_default=False,
        ),
    ] = False
    with_pods: Annotated[
        bool,
        typer.Option(
            "--with-pods",
            help="Allow what collect --via pod and probe need too: making and deleting pods in kube-system, as good as "
            "root on every node.",
            show_default=False,
        ),
    ] = False
    only_needed: Annotated[
        bool,
        typer.Option("--only-needed", help="Leave out what commands can do without, knowing less.", show_default=False),
    ] = False


def rbac(
    common: Common,  # noqa: ARG001
    granting: Granting,
    commands: needing.Commands = None,
    name: Annotated[
        str, typer.Option("--name", metavar="NAME", help="The name of the roles and bindings.")
    ] = "kdnsctl",
    bind_to: Annotated[
        list[str] | None,
        typer.Option(
            "--bind-to",
            metavar="SUBJECT",
            parser=values.subject,
            help="Print bindings too: user:NAME, group:NAME or serviceaccount:NAMESPACE:NAME (repeatable).",
        ),
    ] = None,
    output: Annotated[
        Form, typer.Option("--output", "-o", help="How to print the manifests.", case_sensitive=False)
    ] = Form.YAML,
) -> int:
    """Print the least Role with which commands can do their work.

    Examples:
      # Look at what is needed
      kdnsctl rbac
      # Allow it to the group of those on call
      kdnsctl rbac find-affected --bind-to group:on-call | kubectl apply -f -
      # Try it out
      kdnsctl doctor --as jane --as-group on-call

    What is needed in one namespace only goes into a Role there, the rest into a ClusterRole. No cluster is asked, and
    nothing is granted before somebody applies it.

    Exit codes: 0 printed, 1 failed, 2 wrong usage, 130 interrupted.
    """
    if not _ROLE_NAME.fullmatch(name):
        raise UsageError(f"--name: '{name}' cannot be the name of a role")
    # Late: what commands need is known to modules that --help and TAB do without.
    from kdnsctl.access.needs import granted  # noqa: PLC0415
    from kdnsctl.access.roles import bindings, roles  # noqa: PLC0415
    from kdnsctl.cli import output as document  # noqa: PLC0415
    from kdnsctl.cli.terminal import put  # noqa: PLC0415

    chosen = needing.needs_of(commands)
    wanted = (
        (KUBELET_LOGS, "--with-kubelet-logs", granting.with_kubelet_logs),
        (LIVE, "--with-live", granting.with_live),
        (VIA_POD, "--with-pods", granting.with_pods),
    )
    options = tuple(option for option, _, said in wanted if said)
    for option, given, said in wanted:
        if said and not any(option in one.with_option for one in chosen.values()):
            raise UsageError(f"{given} has no effect: {' and '.join(chosen)} has no option {option}")
    manifests = roles(granted(chosen.values(), helpful=not granting.only_needed, options=options), name)
    if bind_to:
        manifests += bindings(manifests, [values.subject_of(word) for word in bind_to])
    if output is Form.JSON:
        document.document({"apiVersion": "v1", "kind": "List", "items": manifests}, Format.JSON)
        return 0
    put("".join(f"# {line}\n" for line in _about(chosen, only_needed=granting.only_needed, options=options)))
    put("---\n".join(document.as_yaml(manifest) for manifest in manifests))
    return 0


def _about(chosen: dict[str, Needs], *, only_needed: bool, options: tuple[str, ...]) -> list[str]:
    """What the manifests are for, as comments: an auditor reads them without us."""
    lines = [f"What is needed for: kdnsctl {', '.join(chosen)}", "Needed:"]
    needed = list(dict.fromkeys(one for needs in chosen.values() for one in needs.needed))
    lines += _listed(needed)
    helpful = list(dict.fromkeys(one for needs in chosen.values() for one in needs.helpful if one not in needed))
    if helpful and not only_needed:
        lines += ["Helpful:", *_listed(helpful)]
    for option in options:
        extra = [one for needs in chosen.values() for one in needs.with_option.get(option, ())]
        lines += [f"For {option}:", *_listed(extra)]
    return lines


def _listed(permissions: list[Permission]) -> list[str]:
    return [f"  {permission} (without: {permission.without})" for permission in permissions]
