"""Changes to a cluster: what was meant, what was done, and the way back. So far: the journal that all of it rests on.

Nothing here talks to a cluster.
"""
