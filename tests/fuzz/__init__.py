"""Feeds parsers with damaged recordings, as long as one likes: `nox -s fuzz`. The tests run a little of it."""
