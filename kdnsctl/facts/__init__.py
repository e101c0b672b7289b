"""What can be read from a node, as pairs: a fact (which command, which privilege, how to know that it is whole) and the
parser of its output.

`catalogue` holds all of them and the programs that they may run. How a node is reached is the business of `reach`, what
the records mean that of `diagnosis`.
"""
