"""What decides: policies written in Python, loaded by name.

`load` gives a policy, `chain` makes of several the ``decide`` of `xenintro.session.Session`: the first that
answers wins. Whether answers are sent or only shown is the session's ``enforce``.
"""

from xenintro.policy.python import Policy, chain, load

__all__ = ["Policy", "chain", "load"]
