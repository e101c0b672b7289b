"""The Kubernetes API: how it is reached, and the few things that are read through it.

`connection.connect` gives a `Connection`; everything else takes one. The room speaks HTTP on urllib3 itself: lists are
decoded page by page into the few fields that are read (`objects`), logs and watches are streams that a `CancelScope`
can shut, retries are visible, and errors are typed (`errors`). It judges nothing: what a log or a list means is decided
above.

    connection ─ kubeconfig, credentials (execplugin, authprovider), certificates, proxies, network
        │
    transport ─ pool, retries, failures, errors, answers          requests and streams
        │
    lists, watch, logs ─ objects               what Kubernetes offers over them
        │
    kubeproxy, dns                             where kube-proxy and the cluster's DNS are
    permission                                 what a call needs to be allowed, as data
    caches                                     where what may be lost is kept
"""
