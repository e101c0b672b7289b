"""Containing a node: draining it without hurting DNS or anybody's disruption budget.

What is only computed (`podfilters`, `budgets`, `dnsguard`, `drainplan`) asks nobody; the rest carries a plan out.
"""
