"""What a call to the API needs to be allowed, as data, declared beside the call.

Nothing is asked or granted here: `access` asks the server (preflight, doctor) and prints Roles (rbac), from the same
declarations, so that neither can forget what a command really does.
"""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True, order=True)
class Permission:
    """One verb on one kind of resource, in RBAC's words.

    `namespace` None means all of them, or a resource that has none (nodes); `name` narrows to one object, which does
    not work for create, list and watch. `group` is empty for the core group. `without` says, for people, what is lost
    when it is refused; two permissions that differ in nothing else are the same.
    """

    verb: str
    resource: str
    group: str = ""
    subresource: str = ""
    namespace: str | None = None
    name: str = ""
    without: str = field(default="", compare=False)

    @property
    def resource_path(self) -> str:
        """The resource as Roles name it: `pods`, `pods/log`."""
        return f"{self.resource}/{self.subresource}" if self.subresource else self.resource

    def __str__(self) -> str:
        group = f".{self.group}" if self.group else ""
        name = f" {self.name}" if self.name else ""
        where = f" in {self.namespace}" if self.namespace else ""
        return f"{self.verb} {self.resource}{group}{'/' + self.subresource if self.subresource else ''}{name}{where}"
