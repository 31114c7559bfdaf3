/* SPDX-License-Identifier: MIT */
/*
 * The monitor's end of a vm_event ring: one shared page, free-running 32-bit
 * indices, slots that hold a request until its response overwrites it.
 *
 * Xen is the front end (it produces requests and consumes responses), the
 * monitor the back end.  The three counters never overtake one another:
 *
 *	rsp_prod_pvt <= req_cons <= req_prod <= rsp_prod_pvt + nr_slots
 *
 * One struct xi_ring belongs to one thread at a time; only the page is shared.
 */
#ifndef XI_RING_H
#define XI_RING_H

#include <stdint.h>

#define XI_RING_PAGE_SIZE 4096

/* All the functions below that return an int: negative is an error. */
enum xi_ring_error {
	XI_RING_CORRUPT = -1,	/* the page's indices are impossible */
	XI_RING_UNASKED = -2,	/* a response, and no request that waits for one */
	XI_RING_BADGEOM = -3,	/* no such ring fits the page, or no such indices a ring */
};

/* As in Xen's public io/ring.h; the offsets are the same in every release. */
struct xi_ring_page {
	uint32_t req_prod;	/* written by Xen */
	uint32_t req_event;	/* written here, read by nobody: Xen always notifies */
	uint32_t rsp_prod;	/* written here */
	uint32_t rsp_event;	/* written by Xen */
	uint8_t pad[48];
	uint8_t slots[];
};

struct xi_ring {
	struct xi_ring_page *page;
	uint32_t slot_size;	/* bytes */
	uint32_t nr_slots;	/* a power of two */
	uint32_t req_cons;	/* requests taken */
	uint32_t rsp_prod_pvt;	/* responses put, published or not */
};

/*
 * Use the page as it stands, with these private indices.  Nothing is written.
 * The page is 4-byte aligned and outlives the ring.
 */
int xi_ring_attach(struct xi_ring *ring, void *page, uint32_t slot_size, uint32_t nr_slots,
		   uint32_t req_cons, uint32_t rsp_prod_pvt);

/* Start over: the header as SHARED_RING_INIT leaves it, private indices 0. */
void xi_ring_init(struct xi_ring *ring);

/* Requests that wait to be taken, or XI_RING_CORRUPT. */
int xi_ring_pending(const struct xi_ring *ring);

/*
 * Copy the oldest waiting request (slot_size bytes) and take it.
 * Returns 1, 0 if there is none, or XI_RING_CORRUPT with nothing changed.
 */
int xi_ring_take(struct xi_ring *ring, void *request);

/*
 * Write a response (slot_size bytes); Xen sees it after xi_ring_publish().
 * Returns 0, or XI_RING_UNASKED with nothing changed.
 */
int xi_ring_put(struct xi_ring *ring, const void *response);

/* Show Xen all responses put so far.  Ringing the event channel is the caller's. */
void xi_ring_publish(struct xi_ring *ring);

/* Requests taken that have no response yet. */
static inline uint32_t xi_ring_unanswered(const struct xi_ring *ring)
{
	return ring->req_cons - ring->rsp_prod_pvt;
}

#endif
