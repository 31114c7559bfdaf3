"""How ``xenintro.xen._native`` is built: cffi's builder around ring.c.

The extension uses only the limited API and links only libc, so one wheel serves every
Python from 3.11 and every Xen. Paths are relative to the project, where setuptools runs.
"""

from cffi import FFI

PACKAGE = "xenintro/xen"
HARDENING = ["-fstack-protector-strong", "-U_FORTIFY_SOURCE", "-D_FORTIFY_SOURCE=2"]

ffibuilder = FFI()
# The trailing "..." lets C add members (and pick offsets) without a second copy here.
ffibuilder.cdef(
    """
    #define XI_RING_PAGE_SIZE ...
    enum xi_ring_error { XI_RING_CORRUPT, XI_RING_UNASKED, XI_RING_BADGEOM, ... };
    struct xi_ring_page { uint32_t req_prod; ...; };
    struct xi_ring {
        struct xi_ring_page *page;
        uint32_t slot_size;
        uint32_t nr_slots;
        uint32_t req_cons;
        uint32_t rsp_prod_pvt;
        ...;
    };
    int xi_ring_attach(struct xi_ring *ring, void *page, uint32_t slot_size, uint32_t nr_slots,
                       uint32_t req_cons, uint32_t rsp_prod_pvt);
    void xi_ring_init(struct xi_ring *ring);
    int xi_ring_pending(const struct xi_ring *ring);
    int xi_ring_take(struct xi_ring *ring, void *request);
    int xi_ring_put(struct xi_ring *ring, const void *response);
    void xi_ring_publish(struct xi_ring *ring);
    uint32_t xi_ring_unanswered(const struct xi_ring *ring);
    """
)
ffibuilder.set_source(
    "xenintro.xen._native",
    '#include "ring.h"',
    sources=[f"{PACKAGE}/ring.c"],
    depends=[f"{PACKAGE}/ring.h"],
    include_dirs=[PACKAGE],
    py_limited_api=True,
    define_macros=[("Py_LIMITED_API", "0x030b0000")],
    extra_compile_args=["-std=gnu11", "-O2", "-Wall", "-Wextra", "-fvisibility=hidden", *HARDENING],
    extra_link_args=["-Wl,-z,now,-z,relro"],
)
