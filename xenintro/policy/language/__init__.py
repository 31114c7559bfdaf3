"""The language of conditions and texts: what rules and filters are written in.

`syntax` makes a tree of the text, `check` a checked one on what `scope` knows of names, `emit` a function of
that in Python; `expression`, `template`, `value` and `columns` are what comes of it.
"""
