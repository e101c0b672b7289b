"""May we, and what would it take? Preflights and Roles, both from the permissions that calls declare.

`review` asks the server before a command does anything; `roles` prints the least Role or ClusterRole for a command. The
declarations themselves (`Permission`) stand beside the calls they are for. Nothing here grants or changes anything.
"""

from kdnsctl.cluster.permission import Permission

__all__ = ["Permission"]
