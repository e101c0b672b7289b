"""Measuring DNS: what comes back from an address, from this machine or from a node, from which source port.

It changes nothing but for what every query changes: each flow is an entry of connection tracking for 30 s, or for 120 s
once it has lasted longer than 2 s. Why DNS fails is proven by the node's own state, which is `diagnosis`' business.
"""
