"""The Kubernetes API of the lab over HTTPS: what kdnsctl and kubectl use, answered as recorded from a real cluster.

`server` runs it in a thread; every other module is one part of answering a request. The objects live in `lab.store`,
the processes behind `lab.runtime`; this package holds neither. docs/lab-api.md lists what is served and where it
deviates from a real server.
"""
