"""From the connection options of the command line to a connection; shared by the commands that talk to a cluster.

What the options mean is known to `cluster.connection`; here they only change their form.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from kdnsctl.cancel import CancelScope
from kdnsctl.cli.options import Common, Connection
from kdnsctl.cli.terminal import words_running
from kdnsctl.cluster.connection import ConnectOptions, connect
from kdnsctl.cluster.errors import ForbiddenError
from kdnsctl.cluster.transport import Connection as Connected
from kdnsctl.model import KdnsctlError, Reporter

PATIENCE = 5.0  # seconds to find out which permission it was that is missing
# How RBAC and its kin word a refusal (k8s apiserver, pkg/endpoints/handlers/responsewriters/errors.go).
REFUSED = re.compile(r'cannot (\w+) resource "([^"]+)" in API group "([^"]*)"')
REQUEST_TIMEOUT = 30.0  # seconds, as ConnectOptions has it


def connect_options(said: Connection, common: Common, incident: str | None = None) -> ConnectOptions:
    """What `cluster` is asked for; `incident` is named in every request.

    Credential plug-ins may ask the operator only where there is one.
    """
    interactive = not common.no_input and sys.stdin is not None and sys.stdin.isatty()
    return ConnectOptions(
        kubeconfig=_text(said.kubeconfig),
        context=said.context,
        cluster=said.cluster,
        user=said.user,
        server=said.server,
        tls_server_name=said.tls_server_name,
        token_file=_text(said.token_file),
        as_user=said.impersonate,
        as_groups=tuple(said.impersonate_groups),
        as_uid=said.impersonate_uid,
        request_timeout=said.request_timeout.total_seconds() if said.request_timeout else REQUEST_TIMEOUT,
        resolve=dict(host.split("=", 1) for host in said.resolve),
        incident=incident,
        interactive=interactive,
        environment=os.environ,
    )


@contextmanager
def connected(
    said: Connection, common: Common, scope: CancelScope, reporter: Reporter, incident: str | None = None
) -> Iterator[Connected]:
    """A connection for the length of the block. What it has to say (warnings, retries) goes to the reporter.

    What the server refused meanwhile, and the command needs, is named at the end with the command that prints the Role.
    """
    connection = connect(connect_options(said, common, incident), scope, note=reporter.noted)
    try:
        try:
            yield connection
        except ForbiddenError:
            raise  # which is what the command ends with, and says so
        except KdnsctlError as error:
            if "not allowed: " not in str(error):
                _tell_refused(connection, reporter)
            raise
        _tell_refused(connection, reporter)
    finally:
        connection.close()


def _tell_refused(connection: Connected, reporter: Reporter) -> None:
    """Name the permissions that the server refused, of those that the command cannot do without."""
    from kdnsctl.access.review import review  # noqa: PLC0415  # where something was refused
    from kdnsctl.cli.needing import command_for, needs_of  # noqa: PLC0415

    command = command_for(words_running())
    met = {match.groups() for said in connection.forbidden if (match := REFUSED.search(said))}
    if not met or not command:
        return
    needs = needs_of([command])[command]
    asked = [*needs.needed, *(one for ones in needs.with_option.values() for one in ones)]
    doubtful = [one for one in dict.fromkeys(asked) if (one.verb, one.resource_path, one.group) in met]
    with CancelScope(PATIENCE) as scope:  # one of its own: that of the command may be over
        answers = review(connection, doubtful, scope=scope)
    for answer in answers:
        if answer.allowed is False:
            one = answer.permission
            reporter.noted(f"not allowed: {one}, so {one.without}; `kdnsctl rbac {command}` prints the Role")


def _text(path: Path | None) -> str | None:
    return None if path is None else str(path)
