"""Keeping nodes from hurting anybody, and keeping them for forensics: hold, cordon, capture, judge; and the exact way
back.

`record` is what is written on a node, `holds` keeps autoscalers and repair controllers off it, `guards` say no,
`planning` makes the steps, `quarantine`, `release` and `status` are the commands. Nothing is repaired here.
"""
