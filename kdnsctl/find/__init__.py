"""find-affected: which nodes have it. Joins what logs say, and later what the kernel holds, into one verdict a node.

This room judges and reports; it neither reads logs itself (`logs.sources`) nor writes to a terminal (`cli`).
"""
