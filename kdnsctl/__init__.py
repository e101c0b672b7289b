"""kdnsctl: find, contain, prove and repair the Kubernetes DNS blackhole, node by node.

This package root holds the version and nothing else, so that `kdnsctl --version` costs no more than starting Python.
"""

__version__ = "0.1.0"
