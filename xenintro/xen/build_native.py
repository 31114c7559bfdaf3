"""How ``xenintro.xen._native`` is built: cffi's builder around ring.c and guard.c.

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
    #define XI_GUARD_REASONS ...
    #define XI_RECORD_SLOT ...
    #define XI_RECORD_ENTRIES ...
    enum xi_ring_error { XI_RING_CORRUPT, XI_RING_UNASKED, XI_RING_BADGEOM, ... };
    enum xi_ring_outcome { XI_RING_TAKEN, XI_RING_TAKEN_AFTER_MISSED, XI_RING_PUT, XI_RING_LATE, ... };
    struct xi_ring_page { uint32_t req_prod; ...; };
    struct xi_ring {
        struct xi_ring_page *page;
        uint32_t slot_size;
        uint32_t nr_slots;
        uint32_t req_cons;
        uint32_t rsp_prod_pvt;
        uint32_t dropped;
        uint64_t takes;
        ...;
    };
    int xi_ring_attach(struct xi_ring *ring, void *page, uint32_t slot_size, uint32_t nr_slots,
                       uint32_t req_cons, uint32_t rsp_prod_pvt);
    void xi_ring_init(struct xi_ring *ring);
    struct xi_record { uint32_t put; uint32_t published; uint32_t told; uint32_t base; ...; };
    int xi_ring_record(struct xi_ring *ring, struct xi_record *record);
    int xi_ring_pending(struct xi_ring *ring);
    int xi_ring_take(struct xi_ring *ring, void *request);
    int xi_ring_put(struct xi_ring *ring, const void *response);
    int xi_ring_claim(struct xi_ring *ring);
    uint64_t xi_ring_publish(struct xi_ring *ring);
    uint32_t xi_ring_unanswered(struct xi_ring *ring);

    struct xi_field { uint32_t offset; uint32_t size; uint64_t fixed; };
    struct xi_range { uint32_t offset; uint32_t size; };
    struct xi_rule {
        uint8_t known;
        uint8_t always;
        uint32_t flags;
        struct xi_field counter;
        struct xi_field length;
        uint32_t vector;
        struct xi_field type;
        struct xi_field insn_length;
        struct xi_field extra;
    };
    struct xi_answers {
        struct xi_field version;
        struct xi_field reason;
        struct xi_field flags;
        struct xi_field vcpu_id;
        struct xi_range echoed[...];
        struct xi_range payload;
        struct xi_range registers;
        struct xi_rule rules[...];
    };
    struct xi_calls {
        uintptr_t notify;
        uintptr_t notify_handle;
        uint32_t port;
        uintptr_t inject;
        uintptr_t inject_handle;
        uint32_t domid;
    };
    struct xi_missed {
        uint64_t since_ns;
        uint64_t answered_ns;
        uint64_t before;
        uint8_t taken;
        uint8_t claimed;
        uint8_t request[...];
    };
    struct xi_guard {
        struct xi_answers answers;
        struct xi_calls calls;
        uint64_t deadline_ns;
        uint64_t answered;
        uint64_t lost;
        uint64_t longest_ns;
        ...;
    };
    int xi_guard_init(struct xi_guard *guard, struct xi_ring *ring, uint64_t *beat, uint64_t now);
    uint64_t xi_guard_look(struct xi_guard *guard, uint64_t now);
    int xi_guard_missed(struct xi_guard *guard, struct xi_missed *missed);
    struct xi_trap {
        uint64_t vector;
        uint64_t type;
        uint64_t error_code;
        uint64_t insn_length;
        uint64_t extra;
    };
    int xi_guard_inject(struct xi_guard *guard, uintptr_t function, uintptr_t handle,
                        const struct xi_trap *trap, uint64_t now);
    void xi_guard_response(const struct xi_guard *guard, const void *request, void *response);
    int xi_guard_start(struct xi_guard *guard);
    void xi_guard_stop(struct xi_guard *guard);
    int prctl(int option, unsigned long value, unsigned long, unsigned long, unsigned long);
    """
)
ffibuilder.set_source(
    "xenintro.xen._native",
    '#include <sys/prctl.h>\n#include "guard.h"',
    sources=[f"{PACKAGE}/ring.c", f"{PACKAGE}/guard.c"],
    depends=[f"{PACKAGE}/ring.h", f"{PACKAGE}/guard.h"],
    include_dirs=[PACKAGE],
    py_limited_api=True,
    define_macros=[("Py_LIMITED_API", "0x030b0000")],
    extra_compile_args=[
        "-std=gnu11",
        "-O2",
        "-Wall",
        "-Wextra",
        "-fvisibility=hidden",
        "-pthread",
        *HARDENING,
    ],
    extra_link_args=["-pthread", "-Wl,-z,now,-z,relro"],
)
