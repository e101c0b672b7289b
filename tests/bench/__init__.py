"""How fast kdnsctl starts and scans, and how much memory it takes: `nox -s bench`, or `python -m tests.bench`.

Figures are ratios against a peer measured in the same run, on the same machine: python's own start-up, and GNU grep
looking for the same phrases in the same files. Nothing here asserts a figure: a slow machine is not a defect.
"""
