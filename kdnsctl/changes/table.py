"""The table of all verbs: what the steps of any journal are looked up in."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from kdnsctl.changes import fields
from kdnsctl.changes.flows import FLOW_VERBS
from kdnsctl.changes.pods import POD_VERBS
from kdnsctl.changes.proxies import PROXY_VERBS
from kdnsctl.changes.verbs import Verb

VERBS: Final[Mapping[str, Verb]] = {**fields.VERBS, **POD_VERBS, **FLOW_VERBS, **PROXY_VERBS}
