"""Changes to a cluster: what was meant, what was done, and the way back.

`verbs` says what a verb is, `fields` has those that set one field of an object; `plan` holds steps before they are
taken, `executor` takes them one by one and journals each before and after, and undoes them; `incidents` keeps the
journals of incidents on this machine, `lock` keeps a second operator off a node. Which changes are right is decided by
the rooms above.
"""
