"""Repairing one node narrowly: deleting its stale conntrack entries, or having kube-proxy write its rules anew.

Which repair a node needs is judged here, on its state as it is now and not on what a report said before; the changes
themselves are steps of `changes`, taken and journaled by its executor. How a node is read and judged is known to
`find` and `diagnosis`.
"""
