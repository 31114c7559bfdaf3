"""What decides: files of rules and policies in Python, loaded by name.

`load` gives a policy, `running` makes of several the ``decide`` of `xenintro.session.Session`: the first rule
that has a say wins. Whether answers are sent or only shown is the session's ``enforce``.
"""

from xenintro.policy.chain import Policy, chain, may_deny, running, set_up, tear_down
from xenintro.policy.handlers import on
from xenintro.policy.spec import LIBRARY, load, load_all

__all__ = [
    "LIBRARY",
    "Policy",
    "chain",
    "load",
    "load_all",
    "may_deny",
    "on",
    "running",
    "set_up",
    "tear_down",
]
