"""The controllers of the lab: pods for DaemonSets, Deployments and StatefulSets, nodes for pods,
EndpointSlices for Services, the status of disruption budgets.

Each controller is one function that looks at the whole store and brings it one pass closer to what the objects ask
for; `manager` runs them when something they look at has changed. They know the store only: no HTTP, no kernel, no
kubelet. Node readiness is the kubelets' business.
"""
