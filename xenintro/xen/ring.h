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
 * Two threads share a struct xi_ring: the loop, which takes and puts, and the
 * guard (guard.h), which answers what the loop leaves unanswered too long.  All
 * functions take the lock; none waits for anything else while it holds it.
 * Responses go out in the order of the requests, so the slot at rsp_prod_pvt is
 * that of the request to be answered next, and still holds it.
 */
#ifndef XI_RING_H
#define XI_RING_H

#include <pthread.h>
#include <stdint.h>

#define XI_RING_PAGE_SIZE 4096
#define XI_RING_MAX_SLOTS 64
#define XI_RECORD_SLOT 512	/* the longest that a record has room for */
#define XI_RECORD_ENTRIES 1024	/* a power of two, more than a ring has slots */

/* All the functions below that return an int: negative is an error. */
enum xi_ring_error {
	XI_RING_CORRUPT = -1,	/* the page's indices are impossible */
	XI_RING_UNASKED = -2,	/* a response, and no request that waits for one */
	XI_RING_BADGEOM = -3,	/* no such ring fits the page, or no such indices a ring */
};

/* What xi_ring_take() and xi_ring_put() return beside errors. */
enum xi_ring_outcome {
	XI_RING_TAKEN = 1,
	XI_RING_TAKEN_AFTER_MISSED = 2,	/* and the guard has answered others before */
	XI_RING_PUT = 0,
	XI_RING_LATE = 1,		/* the guard answered this request: the response is dropped */
};

/* As in Xen's public io/ring.h; the offsets are the same in every release. */
struct xi_ring_page {
	uint32_t req_prod;	/* written by Xen */
	uint32_t req_event;	/* written here, read by nobody: Xen always notifies */
	uint32_t rsp_prod;	/* written here */
	uint32_t rsp_event;	/* written by Xen: one more than the responses it has consumed */
	uint8_t pad[48];
	uint8_t slots[];
};

/* A request and its response.  Times are CLOCK_MONOTONIC. */
struct xi_entry {
	uint64_t taken_ns;	/* or when it was first seen, if the guard answered it untaken */
	uint64_t answered_ns;
	uint8_t request[XI_RECORD_SLOT];
	uint8_t response[XI_RECORD_SLOT];
};

/*
 * What was answered last, in memory that another process maps too: it knows what
 * this one has answered when this one is killed.  Answers are counted over all
 * rings that are recorded here, modulo 2**32; that of a ring index is index + base,
 * and its entry at that % XI_RECORD_ENTRIES.
 */
struct xi_record {
	uint32_t put;		/* one more than the last entry */
	uint32_t published;	/* those before it were shown to Xen, or are about to be */
	uint32_t told;		/* of those before it, what the guard answered is no longer in its log */
	uint32_t base;
	struct xi_entry entries[XI_RECORD_ENTRIES];
};

struct xi_ring {
	pthread_mutex_t lock;	/* over all that follows, and over writing the page */
	struct xi_ring_page *page;
	uint32_t slot_size;	/* bytes */
	uint32_t nr_slots;	/* a power of two */
	uint32_t req_cons;	/* requests taken, or answered without that */
	uint32_t rsp_prod_pvt;	/* responses put, published or not */
	uint32_t late;		/* requests that the loop has yet to answer, and the guard has */
	uint32_t dropped;	/* responses that came too late */
	uint32_t unpublished;	/* the loop's responses that Xen has not been shown */
	uint32_t missed;	/* entries in the guard's log */
	uint32_t held;		/* with holding: responses from this one on stay unpublished */
	uint32_t claimed;	/* with claiming: the request that the loop has claimed */
	uint32_t seen;		/* requests whose since is known */
	uint64_t takes;		/* requests that the loop has taken */
	uint8_t holding;
	uint8_t claiming;
	uint64_t published_ns;	/* when the guard last published responses of the loop, 0 if it did not */
	uint64_t since[XI_RING_MAX_SLOTS];	/* by slot: when its request came, or earlier */
	struct xi_record *record;	/* NULL: nobody wants one */
	uint64_t taken_ns[XI_RING_MAX_SLOTS];	/* with a record, by slot */
};

/*
 * Use the page as it stands, with these private indices.  Nothing is written.
 * The page is 4-byte aligned and outlives the ring.
 */
int xi_ring_attach(struct xi_ring *ring, void *page, uint32_t slot_size, uint32_t nr_slots,
		   uint32_t req_cons, uint32_t rsp_prod_pvt);

/* Start over: the header as SHARED_RING_INIT leaves it, private indices 0.  Before the guard starts. */
void xi_ring_init(struct xi_ring *ring);

/*
 * Add to a record from now on, in memory that outlives the ring and was zero when
 * it was new.  Returns 0 or XI_RING_BADGEOM.
 */
int xi_ring_record(struct xi_ring *ring, struct xi_record *record);

/* Requests that wait to be taken, or XI_RING_CORRUPT. */
int xi_ring_pending(struct xi_ring *ring);

/*
 * Copy the oldest waiting request (slot_size bytes) and take it.
 * Returns XI_RING_TAKEN or XI_RING_TAKEN_AFTER_MISSED, 0 if there is none, or
 * XI_RING_CORRUPT with nothing changed.
 */
int xi_ring_take(struct xi_ring *ring, void *request);

/*
 * Write a response (slot_size bytes); Xen sees it after xi_ring_publish().
 * Returns XI_RING_PUT, or XI_RING_LATE or XI_RING_UNASKED with nothing written.
 */
int xi_ring_put(struct xi_ring *ring, const void *response);

/*
 * Before an effect that goes with the next response: returns 0 if the guard has
 * answered that request, else 1.  The guard may answer it all the same, and its
 * log says then that it was claimed.
 */
int xi_ring_claim(struct xi_ring *ring);

/*
 * Show Xen all responses put so far.  Ringing the event channel is the caller's.
 * Returns when the guard did that for responses put since the last time, 0 if it did not.
 */
uint64_t xi_ring_publish(struct xi_ring *ring);

/* Requests taken that have no response yet. */
uint32_t xi_ring_unanswered(struct xi_ring *ring);

/* The rest is for guard.c, with the lock held. */

int xi_ring_claim_locked(struct xi_ring *ring);

/* Whether the loop has claimed the request at this index. */
int xi_ring_is_claimed(const struct xi_ring *ring, uint32_t index);

/* The slot of a ring index. */
void *xi_ring_slot(const struct xi_ring *ring, uint32_t index);

/* Requests without a response, taken or not, or XI_RING_CORRUPT. */
int xi_ring_waiting(const struct xi_ring *ring);

/* The oldest response that Xen has not consumed, or rsp_prod_pvt if there is none. */
uint32_t xi_ring_unconsumed(const struct xi_ring *ring);

/* Note since when the requests up to req_prod wait that have not been seen before. */
void xi_ring_see(struct xi_ring *ring, uint32_t req_prod, uint64_t since);

/* Write the response to the oldest request without one; true if the loop never took it. */
int xi_ring_answer(struct xi_ring *ring, const void *response);

void xi_ring_publish_locked(struct xi_ring *ring);

#endif
