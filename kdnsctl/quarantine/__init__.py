"""Keeping nodes from hurting anybody and keeping them for forensics: hold, cordon, capture, judge, drain; and the way
back, exactly.

`record` is what is written on a node, `holds` keeps autoscalers and repair controllers off it, `guards` say no,
`planning` makes the steps, `quarantine`, `release` and `status` are the commands. Of a drain, what is only computed
(`podfilters`, `budgets`, `dnsguard`, `drainplan`) asks nobody; the rest carries a plan out without hurting DNS or
anybody's disruption budget. Nothing is repaired here.
"""
