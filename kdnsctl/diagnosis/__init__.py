"""Judgement of a node's state: what the kernel holds, held against what the cluster says is true.

Pure: nothing is opened, started or waited for; a live node and a bundle are judged by the same functions. Each check is
a small function with an id of its own; the verdict is made of findings and of how complete the evidence was.
"""
