"""Reading something on a node: one narrow interface, and the ways (rungs) to get there.

What is read comes from the catalogue in `facts`, as data; what it means is for parsers and `diagnosis`. Nothing here
changes a node.
"""
