"""Who sends a request, and what they may do: certificates, tokens, impersonation, and simple rules per user or group.

A stand-in for RBAC: rules have its shape (verbs, groups, resources, names) but are given in code, not as objects.
The refusals are those of `api/forbidden-*.json`. Members of system:masters may do everything.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from kdnsctl.lab.api.requests import Target
from kdnsctl.lab.replies import JSON, Refused, forbidden

MASTERS: Final = "system:masters"
AUTHENTICATED: Final = "system:authenticated"
UNAUTHENTICATED: Final = "system:unauthenticated"
ANONYMOUS: Final = "system:anonymous"


_SERVICE_ACCOUNT: Final = re.compile(r"system:serviceaccount:([^:]+):[^:]+")
_ATTRIBUTES: Final = {
    "verb": str, "group": str, "version": str, "resource": str, "subresource": str, "name": str, "namespace": str
}  # fmt: skip
REVIEW: Final = {
    "spec": {
        "resourceAttributes": _ATTRIBUTES, "nonResourceAttributes": {"verb": str, "path": str}, "namespace": str
    }
}  # fmt: skip
"""The types in the questions about oneself, for `shapes.check_types`."""


@dataclass(frozen=True, slots=True)
class Identity:
    """A user with groups; `uid` and `extra` only come from impersonation."""

    user: str
    groups: tuple[str, ...] = ()
    uid: str = ""
    extra: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Rule:
    """What is allowed. "*" matches all; no `names` or `namespaces`: any.

    `paths` are for requests outside resources, with a trailing "*" for everything below.
    """

    verbs: tuple[str, ...]
    groups: tuple[str, ...] = ()
    resources: tuple[str, ...] = ()
    names: tuple[str, ...] = ()
    namespaces: tuple[str, ...] = ()
    paths: tuple[str, ...] = ()

    def allows(self, verb: str, group: str, resource: str, name: str, namespace: str) -> bool:
        """Whether a request on a resource falls under the rule."""
        subresource = "*/" + resource.partition("/")[2] if "/" in resource else "*"
        return (
            _in(verb, self.verbs)
            and _in(group, self.groups)
            and (_in(resource, self.resources) or subresource in self.resources)
            and (not self.names or name in self.names)
            and (not self.namespaces or namespace in self.namespaces)
        )

    def allows_path(self, verb: str, path: str) -> bool:
        return _in(verb, self.verbs) and any(
            path == known or (known.endswith("*") and path.startswith(known[:-1])) for known in self.paths
        )


def _in(value: str, allowed: tuple[str, ...]) -> bool:
    return value in allowed or "*" in allowed


# What every cluster grants: the roles system:discovery, system:basic-user and system:public-info-viewer.
_DISCOVERY: Final = Rule(
    ("get",),
    paths=("/api", "/api/*", "/apis", "/apis/*", "/healthz", "/livez", "/openapi", "/openapi/*", "/readyz", "/version",
           "/version/"),
)  # fmt: skip
_BASIC: Final = Rule(("create",), ("authorization.k8s.io",), ("selfsubjectaccessreviews", "selfsubjectrulesreviews"))
_REVIEW: Final = Rule(("create",), ("authentication.k8s.io",), ("selfsubjectreviews",))
_PUBLIC: Final = Rule(("get",), paths=("/healthz", "/livez", "/readyz", "/version", "/version/"))


class Policy:
    """Rules by user and by group, and the tokens that stand for users.

    May be changed before the server starts or while it runs: every request reads it anew.
    """

    def __init__(self) -> None:
        self.tokens: dict[str, Identity] = {}
        self._users: dict[str, list[Rule]] = {}
        self._groups: dict[str, list[Rule]] = {
            AUTHENTICATED: [_DISCOVERY, _BASIC, _REVIEW],
            UNAUTHENTICATED: [_PUBLIC],
        }

    def grant_user(self, user: str, *rules: Rule) -> None:
        self._users.setdefault(user, []).extend(rules)

    def grant_group(self, group: str, *rules: Rule) -> None:
        self._groups.setdefault(group, []).extend(rules)

    def rules_of(self, identity: Identity) -> list[Rule]:
        """All rules that hold for the identity."""
        if MASTERS in identity.groups:
            return [Rule(("*",), ("*",), ("*",)), Rule(("*",), paths=("*",))]
        rules = list(self._users.get(identity.user, []))
        for group in identity.groups:
            rules += self._groups.get(group, [])
        return rules

    def allows(self, identity: Identity, verb: str, group: str, resource: str, name: str, namespace: str) -> bool:
        return any(rule.allows(verb, group, resource, name, namespace) for rule in self.rules_of(identity))

    def allows_path(self, identity: Identity, verb: str, path: str) -> bool:
        return any(rule.allows_path(verb, path) for rule in self.rules_of(identity))

    def check(self, identity: Identity, target: Target, verb: str | None = None) -> None:
        """Raises Refused (403) unless the identity may do it. `verb` overrides the target's."""
        verb = verb or target.verb
        if not self.allows(identity, verb, target.group, target.resource, target.name, target.namespace):
            raise forbidden(target.plural, target.group, target.name, _why(identity, verb, target))

    def check_path(self, identity: Identity, verb: str, path: str) -> None:
        if not self.allows_path(identity, verb, path):
            message = f'forbidden: User "{identity.user}" cannot {verb} path "{path}"'
            raise Refused(403, "Forbidden", message, details={})

    def authenticate(self, authorization: str | None, certificate: Mapping[str, Any] | None) -> Identity:
        """The sender, from a bearer token or a client certificate. Raises Refused (401) for a token nobody has."""
        if authorization is not None:
            scheme, _, token = authorization.partition(" ")
            known = self.tokens.get(token.strip()) if scheme.lower() == "bearer" else None
            if known is None:
                raise Refused(401, "Unauthorized", "Unauthorized")
            return Identity(known.user, _with(known.groups, AUTHENTICATED))
        if certificate:
            names = [pair for part in certificate.get("subject", ()) for pair in part]
            user = next((value for key, value in names if key == "commonName"), "")
            groups = [value for key, value in names if key == "organizationName"]
            return Identity(user, _with(groups, AUTHENTICATED))
        return Identity(ANONYMOUS, (UNAUTHENTICATED,))

    def impersonated(self, sender: Identity, headers: Iterable[tuple[str, str]]) -> Identity:
        """Whom the sender acts as by its Impersonate-* headers. Raises Refused (403, or 500 for groups alone)."""
        user, uid = "", ""
        groups: list[str] = []
        extra: dict[str, list[str]] = {}
        for header, value in headers:
            name = header.lower()
            if name == "impersonate-user":
                user = value
            elif name == "impersonate-uid":
                uid = value
            elif name == "impersonate-group":
                groups.append(value)
            elif name.startswith("impersonate-extra-"):
                extra.setdefault(name.removeprefix("impersonate-extra-"), []).append(value)
        if not user:
            if groups or uid or extra:
                message = "Internal error occurred: requested impersonation without impersonating a user"
                raise Refused(500, "InternalError", message, details={"causes": [{"message": message}]})
            return sender
        self._check_impersonation(sender, "users", "", user)
        for group in groups:
            self._check_impersonation(sender, "groups", "", group)
        if uid:
            self._check_impersonation(sender, "uids", "authentication.k8s.io", uid)
        for key, values in extra.items():
            for value in values:
                self._check_impersonation(sender, f"userextras/{key}", "authentication.k8s.io", value)
        groups = groups or _service_account_groups(user)
        membership = UNAUTHENTICATED if user == ANONYMOUS else AUTHENTICATED
        return Identity(user, _with(groups, membership), uid, {key: tuple(values) for key, values in extra.items()})

    def _check_impersonation(self, sender: Identity, resource: str, group: str, name: str) -> None:
        if not self.allows(sender, "impersonate", group, resource, name, ""):
            plural, _, subresource = resource.partition("/")
            target = Target("impersonate", group, "v1", plural, name=name, subresource=subresource)
            raise forbidden(plural, group, name, _why(sender, "impersonate", target))


def _service_account_groups(user: str) -> list[str]:
    """What a real server adds when no groups are asked for (apiserver, pkg/endpoints/filters/impersonation)."""
    account = _SERVICE_ACCOUNT.fullmatch(user)
    return [] if account is None else ["system:serviceaccounts", f"system:serviceaccounts:{account[1]}"]


def _with(groups: Iterable[str], group: str) -> tuple[str, ...]:
    known = tuple(groups)
    return known if group in known else (*known, group)


def _why(identity: Identity, verb: str, target: Target) -> str:
    scope = f'in the namespace "{target.namespace}"' if target.namespace else "at the cluster scope"
    return f'User "{identity.user}" cannot {verb} resource "{target.resource}" in API group "{target.group}" {scope}'


def access_review(policy: Policy, identity: Identity, review: JSON) -> JSON:
    """A SelfSubjectAccessReview with its status filled in, as `api/selfsubjectaccessreview.json`."""
    spec = review.get("spec", {})
    if "nonResourceAttributes" in spec:
        asked = spec["nonResourceAttributes"]
        allowed = policy.allows_path(identity, asked.get("verb", ""), asked.get("path", ""))
    else:
        asked = spec.get("resourceAttributes", {})
        resource = asked.get("resource", "")
        if asked.get("subresource"):
            resource += "/" + asked["subresource"]
        allowed = policy.allows(
            identity, asked.get("verb", ""), asked.get("group", ""), resource, asked.get("name", ""),
            asked.get("namespace", ""),
        )  # fmt: skip
    return {
        "kind": "SelfSubjectAccessReview",
        "apiVersion": "authorization.k8s.io/v1",
        "metadata": {},
        "spec": spec,
        "status": {"allowed": allowed},
    }


def rules_review(policy: Policy, identity: Identity, review: JSON) -> JSON:
    """A SelfSubjectRulesReview with every rule that holds in the namespace asked for."""
    spec = review.get("spec", {})
    namespace = spec.get("namespace", "")
    resources, paths = [], []
    for rule in policy.rules_of(identity):
        if rule.paths:
            paths.append({"verbs": list(rule.verbs), "nonResourceURLs": list(rule.paths)})
        elif not rule.namespaces or namespace in rule.namespaces:
            entry: JSON = {
                "verbs": list(rule.verbs), "apiGroups": list(rule.groups), "resources": list(rule.resources)
            }  # fmt: skip
            if rule.names:
                entry["resourceNames"] = list(rule.names)
            resources.append(entry)
    return {
        "kind": "SelfSubjectRulesReview",
        "apiVersion": "authorization.k8s.io/v1",
        "metadata": {},
        "spec": spec,
        "status": {"resourceRules": resources, "nonResourceRules": paths, "incomplete": False},
    }


def self_review(identity: Identity) -> JSON:
    """A SelfSubjectReview: who the server takes the sender for (`kubectl auth whoami`)."""
    info: JSON = {"username": identity.user, "groups": list(identity.groups)}
    if identity.uid:
        info["uid"] = identity.uid
    if identity.extra:
        info["extra"] = {key: list(values) for key, values in identity.extra.items()}
    return {
        "kind": "SelfSubjectReview",
        "apiVersion": "authentication.k8s.io/v1",
        "metadata": {},
        "status": {"userInfo": info},
    }
