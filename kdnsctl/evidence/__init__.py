"""Evidence: what was read from nodes and cluster, kept so that it can be judged later and nothing can change unseen.

A *bundle* is a directory, or that directory as one archive; its *artefacts* are files. How evidence is read is the
business of `reach` and `facts`, what it means that of `diagnosis`.
"""
