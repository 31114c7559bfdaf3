"""Live introspection of Xen guests: requests off the vm_event ring, decided and answered.

`import xenintro` works anywhere, without Xen and without the C extension; what talks to a hypervisor is in
`xenintro.xen` and imported by those who need it.
"""

from xenintro.abi import Interface, interface
from xenintro.codec import acknowledge, decode, encode
from xenintro.errors import XenintroError
from xenintro.events import Event
from xenintro.response import Response, allow

__all__ = [
    "Event",
    "Interface",
    "Response",
    "XenintroError",
    "acknowledge",
    "allow",
    "decode",
    "encode",
    "interface",
]
