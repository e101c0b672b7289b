"""What kube-proxy said: line formats, the catalogue of its messages, and the scan that finds them.

The modules here are pure (bytes in, records out); only `logs.sources` reads files or, later, a cluster.
"""
