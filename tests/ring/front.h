/* SPDX-License-Identifier: MIT */
/*
 * The other end of the ring, for tests: what the hypervisor does with the page.
 * Written from Xen's own order of steps, not from ring.c, so that each checks the other.
 */
#ifndef XI_FRONT_H
#define XI_FRONT_H

#include <stdbool.h>
#include <stdint.h>

struct xi_front {
	uint8_t *page;
	uint32_t slot_size;
	uint32_t nr_slots;
	uint32_t req_prod_pvt;
	uint32_t rsp_cons;
};

/* Take the page as freshly initialised, all indices at start. */
void xi_front_init(struct xi_front *front, void *page, uint32_t slot_size, uint32_t nr_slots,
		   uint32_t start);

/* Slots that hold neither a request nor a response nobody has read. */
uint32_t xi_front_free(const struct xi_front *front);

/* Write a request into the next slot; false when no slot is free. */
bool xi_front_put(struct xi_front *front, const void *request);

/* Show the back end all requests put so far. */
void xi_front_publish(struct xi_front *front);

/* Copy out the oldest response and free its slot; false when there is none. */
bool xi_front_take(struct xi_front *front, void *response);

#endif
