"""Runbooks: Markdown that an operator reads and kdnsctl runs, step by step, with a journal.

`book` has the records, `parsing` makes them of text, `words` makes command lines of a step's code, `shelf` finds
runbooks in directories, `running` goes through one and `diary` writes down and resumes. What a step's commands do is
theirs: they are processes of their own. Nobody is asked here; the command does that.
"""
