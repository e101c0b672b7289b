"""All that is fuzzed. A new parser gets a module of targets beside this one, and its line here."""

from __future__ import annotations

from tests.fuzz import conntrack, rules
from tests.fuzz.target import Target

TARGETS: tuple[Target, ...] = (*conntrack.TARGETS, *rules.TARGETS)
