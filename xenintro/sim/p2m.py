"""Page permissions: the host's table and the altp2m views (arch/x86/mm/mem_access.c)."""

from __future__ import annotations

R, W, X = 1, 2, 4

#: XENMEM_access_*: up to RWX the number is the set of bits.
N, RWX, RX2RW, N2RWX = 0, 7, 8, 9
RW, RX = R | W, R | X

#: Not a XENMEM_access: a view has no entry for this page yet.
UNSET = 0xFF

#: What each permission lets a guest do; Xen 4.20 put r_pw (10) before default.
ALLOWED = bytes([*range(8), RX, 0, R])

#: hvm.c:hvm_hap_nested_page_fault and p2m_mem_access_emulate_check ask this of every access.
_NAMES = ("n", "r", "w", "rw", "x", "rx", "wx", "rwx", "rx2rw", "n2rwx", "r_pw")


def name(access: int) -> str:
    """``rx2rw`` and the like."""
    return _NAMES[access] if access < len(_NAMES) else f"access {access}"


class P2M:
    """The permissions of one view, one byte a page.

    Attributes:
        access: by gfn.
        default_access: for pages that come later.
        access_required: a violation without a listener crashes the domain.
    """

    def __init__(self, pages: int, access: int = RWX) -> None:
        self.access = bytearray([access]) * pages
        self.default_access = RWX
        self.access_required = False

    def set_range(self, first: int, count: int, access: int) -> None:
        """Give pages a permission."""
        self.access[first : first + count] = bytes([access]) * count

    def restricted(self) -> list[int]:
        """The pages that do not allow everything."""
        return [gfn for gfn, access in enumerate(self.access) if access not in (RWX, UNSET)]


class View(P2M):
    """An altp2m view. Entries come from the host table when first used.

    Up to Xen 4.18 they then take the host's permission; since 7e5b662b28 (4.19) the view's default.
    """

    def __init__(self, host: P2M, default_access: int, inherit: bool) -> None:
        super().__init__(len(host.access), UNSET)
        self.default_access = default_access
        self._host = host
        self._inherit = inherit

    def populate(self, gfn: int) -> int:
        """The permission of a page, taken over if the view has none yet."""
        if self.access[gfn] == UNSET:
            self.access[gfn] = self._host.access[gfn] if self._inherit else self.default_access
        return self.access[gfn]
