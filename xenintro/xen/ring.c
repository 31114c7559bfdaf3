// SPDX-License-Identifier: MIT
/*
 * Index arithmetic, memory order and copies of the back end; see ring.h.
 *
 * Order: Xen fills a slot and then stores req_prod, so the slot may be read
 * after an acquire load of req_prod.  Xen reads a response, and reuses its slot,
 * after it has seen rsp_prod, so our copies must be done before a release store
 * of rsp_prod.  No full barrier is needed between publishing and looking for
 * more requests: Xen sends an event for every request, whatever req_event says.
 */
#include "ring.h"

#include <stddef.h>
#include <string.h>
#include <time.h>

_Static_assert(offsetof(struct xi_ring_page, slots) == 64, "slot 0 is at offset 64");

_Static_assert(sizeof(struct xi_entry) == 1040 && offsetof(struct xi_record, entries) == 16,
	       "xenintro/capture/pending.py reads it");

static uint64_t now_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

static uint32_t mask(const struct xi_ring *ring)
{
	return ring->nr_slots - 1;
}

void *xi_ring_slot(const struct xi_ring *ring, uint32_t index)
{
	return ring->page->slots + (size_t)(index & mask(ring)) * ring->slot_size;
}

static int geometry_fits(uint32_t slot_size, uint32_t nr_slots)
{
	const uint32_t room = XI_RING_PAGE_SIZE - offsetof(struct xi_ring_page, slots);

	if (slot_size == 0 || slot_size > room)
		return 0;
	if (nr_slots == 0 || nr_slots > XI_RING_MAX_SLOTS || (nr_slots & (nr_slots - 1)) != 0)
		return 0;
	return nr_slots <= room / slot_size;
}

int xi_ring_attach(struct xi_ring *ring, void *page, uint32_t slot_size, uint32_t nr_slots,
		   uint32_t req_cons, uint32_t rsp_prod_pvt)
{
	if (page == NULL || (uintptr_t)page % _Alignof(struct xi_ring_page) != 0)
		return XI_RING_BADGEOM;
	if (!geometry_fits(slot_size, nr_slots) || req_cons - rsp_prod_pvt > nr_slots)
		return XI_RING_BADGEOM;
	memset(ring, 0, sizeof(*ring));
	pthread_mutex_init(&ring->lock, NULL);
	ring->page = page;
	ring->slot_size = slot_size;
	ring->nr_slots = nr_slots;
	ring->req_cons = req_cons;
	ring->rsp_prod_pvt = rsp_prod_pvt;
	ring->seen = rsp_prod_pvt - nr_slots;	/* even the oldest response still to be consumed */
	return 0;
}

void xi_ring_init(struct xi_ring *ring)
{
	struct xi_ring_page *page = ring->page;

	pthread_mutex_lock(&ring->lock);
	memset(page->pad, 0, sizeof(page->pad));
	__atomic_store_n(&page->req_prod, 0, __ATOMIC_RELAXED);
	__atomic_store_n(&page->req_event, 1, __ATOMIC_RELAXED);
	__atomic_store_n(&page->rsp_prod, 0, __ATOMIC_RELAXED);
	__atomic_store_n(&page->rsp_event, 1, __ATOMIC_RELAXED);
	ring->req_cons = ring->rsp_prod_pvt = ring->seen = 0;
	ring->late = ring->unpublished = 0;
	ring->claiming = 0;
	pthread_mutex_unlock(&ring->lock);
}

int xi_ring_record(struct xi_ring *ring, struct xi_record *record)
{
	if (ring->slot_size > XI_RECORD_SLOT)
		return XI_RING_BADGEOM;
	pthread_mutex_lock(&ring->lock);
	record->base = record->put - ring->rsp_prod_pvt;
	ring->record = record;
	pthread_mutex_unlock(&ring->lock);
	return 0;
}

int xi_ring_waiting(const struct xi_ring *ring)
{
	uint32_t waiting = __atomic_load_n(&ring->page->req_prod, __ATOMIC_ACQUIRE) - ring->rsp_prod_pvt;

	/* A slot is free only once its response is out: no honest front end has more. */
	if (waiting > ring->nr_slots || waiting < ring->req_cons - ring->rsp_prod_pvt)
		return XI_RING_CORRUPT;
	return (int)waiting;
}

/* With the lock held. */
static int pending(const struct xi_ring *ring)
{
	int waiting = xi_ring_waiting(ring);

	return waiting < 0 ? waiting : waiting - (int)(ring->req_cons - ring->rsp_prod_pvt);
}

int xi_ring_pending(struct xi_ring *ring)
{
	int count;

	pthread_mutex_lock(&ring->lock);
	count = pending(ring);
	pthread_mutex_unlock(&ring->lock);
	return count;
}

int xi_ring_take(struct xi_ring *ring, void *request)
{
	int outcome;

	pthread_mutex_lock(&ring->lock);
	outcome = pending(ring);
	if (outcome > 0) {
		memcpy(request, xi_ring_slot(ring, ring->req_cons), ring->slot_size);
		if (ring->record != NULL)
			ring->taken_ns[ring->req_cons & mask(ring)] = now_ns();
		ring->req_cons++;
		ring->takes++;
		__atomic_store_n(&ring->page->req_event, ring->req_cons + 1, __ATOMIC_RELAXED);
		outcome = ring->missed == 0 ? XI_RING_TAKEN : XI_RING_TAKEN_AFTER_MISSED;
	}
	pthread_mutex_unlock(&ring->lock);
	return outcome;
}

/* As put(), whose slot still holds the request. */
static void note(const struct xi_ring *ring, const void *response)
{
	const uint32_t index = ring->rsp_prod_pvt;
	struct xi_entry *entry = &ring->record->entries[ring->record->put % XI_RECORD_ENTRIES];

	entry->taken_ns = ring->taken_ns[index & mask(ring)];
	entry->answered_ns = now_ns();
	memcpy(entry->request, xi_ring_slot(ring, index), ring->slot_size);
	memcpy(entry->response, response, ring->slot_size);
	__atomic_store_n(&ring->record->put, ring->record->put + 1, __ATOMIC_RELEASE);
}

/* With the lock held, and a request without a response. */
static void put(struct xi_ring *ring, const void *response)
{
	if (ring->record != NULL)
		note(ring, response);
	memcpy(xi_ring_slot(ring, ring->rsp_prod_pvt), response, ring->slot_size);
	ring->rsp_prod_pvt++;
	ring->claiming = 0;
}

int xi_ring_put(struct xi_ring *ring, const void *response)
{
	int outcome = XI_RING_PUT;

	pthread_mutex_lock(&ring->lock);
	if (ring->late != 0) {
		/* The guard answers the oldest first: what it answered is what the loop answers next. */
		ring->late--;
		ring->dropped++;
		outcome = XI_RING_LATE;
	} else if (ring->req_cons == ring->rsp_prod_pvt) {
		outcome = XI_RING_UNASKED;
	} else {
		put(ring, response);
		ring->unpublished++;
	}
	pthread_mutex_unlock(&ring->lock);
	return outcome;
}

int xi_ring_answer(struct xi_ring *ring, const void *response)
{
	int untaken = ring->req_cons == ring->rsp_prod_pvt;

	if (untaken) {
		ring->taken_ns[ring->req_cons & mask(ring)] = ring->since[ring->req_cons & mask(ring)];
		ring->req_cons++;
		__atomic_store_n(&ring->page->req_event, ring->req_cons + 1, __ATOMIC_RELAXED);
	} else {
		ring->late++;
	}
	put(ring, response);
	return untaken;
}

int xi_ring_claim_locked(struct xi_ring *ring)
{
	if (ring->late != 0 || ring->req_cons == ring->rsp_prod_pvt)
		return 0;
	ring->claimed = ring->rsp_prod_pvt;
	ring->claiming = 1;
	return 1;
}

int xi_ring_is_claimed(const struct xi_ring *ring, uint32_t index)
{
	return ring->claiming && ring->claimed == index;
}

int xi_ring_claim(struct xi_ring *ring)
{
	int granted;

	pthread_mutex_lock(&ring->lock);
	granted = xi_ring_claim_locked(ring);
	pthread_mutex_unlock(&ring->lock);
	return granted;
}

void xi_ring_publish_locked(struct xi_ring *ring)
{
	uint32_t rsp_prod = ring->holding ? ring->held : ring->rsp_prod_pvt;

	if (ring->record != NULL)
		__atomic_store_n(&ring->record->published, rsp_prod + ring->record->base, __ATOMIC_RELEASE);
	__atomic_store_n(&ring->page->rsp_prod, rsp_prod, __ATOMIC_RELEASE);
}

uint64_t xi_ring_publish(struct xi_ring *ring)
{
	uint64_t by_guard_ns;

	pthread_mutex_lock(&ring->lock);
	xi_ring_publish_locked(ring);
	by_guard_ns = ring->published_ns;
	ring->published_ns = 0;
	ring->unpublished = 0;
	pthread_mutex_unlock(&ring->lock);
	return by_guard_ns;
}

uint32_t xi_ring_unanswered(struct xi_ring *ring)
{
	uint32_t count;

	pthread_mutex_lock(&ring->lock);
	count = ring->req_cons - ring->rsp_prod_pvt;
	pthread_mutex_unlock(&ring->lock);
	return count;
}

uint32_t xi_ring_unconsumed(const struct xi_ring *ring)
{
	uint32_t rsp_cons = __atomic_load_n(&ring->page->rsp_event, __ATOMIC_RELAXED) - 1;

	return ring->rsp_prod_pvt - rsp_cons > ring->nr_slots ? ring->rsp_prod_pvt : rsp_cons;
}

void xi_ring_see(struct xi_ring *ring, uint32_t req_prod, uint64_t since)
{
	if ((int32_t)(req_prod - ring->seen) > (int32_t)ring->nr_slots)
		ring->seen = req_prod - ring->nr_slots;
	while ((int32_t)(req_prod - ring->seen) > 0)
		ring->since[ring->seen++ & mask(ring)] = since;
}
