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

_Static_assert(offsetof(struct xi_ring_page, slots) == 64, "slot 0 is at offset 64");

static void *slot_at(const struct xi_ring *ring, uint32_t index)
{
	return ring->page->slots + (size_t)(index & (ring->nr_slots - 1)) * ring->slot_size;
}

static int geometry_fits(uint32_t slot_size, uint32_t nr_slots)
{
	const uint32_t room = XI_RING_PAGE_SIZE - offsetof(struct xi_ring_page, slots);

	if (slot_size == 0 || slot_size > room)
		return 0;
	if (nr_slots == 0 || (nr_slots & (nr_slots - 1)) != 0)
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
	ring->page = page;
	ring->slot_size = slot_size;
	ring->nr_slots = nr_slots;
	ring->req_cons = req_cons;
	ring->rsp_prod_pvt = rsp_prod_pvt;
	return 0;
}

void xi_ring_init(struct xi_ring *ring)
{
	struct xi_ring_page *page = ring->page;

	memset(page->pad, 0, sizeof(page->pad));
	__atomic_store_n(&page->req_prod, 0, __ATOMIC_RELAXED);
	__atomic_store_n(&page->req_event, 1, __ATOMIC_RELAXED);
	__atomic_store_n(&page->rsp_prod, 0, __ATOMIC_RELAXED);
	__atomic_store_n(&page->rsp_event, 1, __ATOMIC_RELAXED);
	ring->req_cons = 0;
	ring->rsp_prod_pvt = 0;
}

int xi_ring_pending(const struct xi_ring *ring)
{
	uint32_t pending = __atomic_load_n(&ring->page->req_prod, __ATOMIC_ACQUIRE) - ring->req_cons;

	/* A slot is free only once its response is out: no honest front end has more. */
	if (pending > ring->nr_slots - xi_ring_unanswered(ring))
		return XI_RING_CORRUPT;
	return (int)pending;
}

int xi_ring_take(struct xi_ring *ring, void *request)
{
	int pending = xi_ring_pending(ring);

	if (pending <= 0)
		return pending;
	memcpy(request, slot_at(ring, ring->req_cons), ring->slot_size);
	ring->req_cons++;
	__atomic_store_n(&ring->page->req_event, ring->req_cons + 1, __ATOMIC_RELAXED);
	return 1;
}

int xi_ring_put(struct xi_ring *ring, const void *response)
{
	if (xi_ring_unanswered(ring) == 0)
		return XI_RING_UNASKED;
	memcpy(slot_at(ring, ring->rsp_prod_pvt), response, ring->slot_size);
	ring->rsp_prod_pvt++;
	return 0;
}

void xi_ring_publish(struct xi_ring *ring)
{
	__atomic_store_n(&ring->page->rsp_prod, ring->rsp_prod_pvt, __ATOMIC_RELEASE);
}
