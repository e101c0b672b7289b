"""A disposable Kubernetes-shaped cluster on one Linux machine, in which the DNS incident really happens.

Three parts that know little of each other: the API (`store`, `api`, `controllers`: in process, no root, an injected
clock), the machine (namespaces with their nodes, kubelets, kube-proxies and DNS servers), and `runtime`, the seam
between them. Nothing here imports another part of kdnsctl: if the stand-ins shared its parsers or rules, every test
against the lab would confirm itself.
"""
