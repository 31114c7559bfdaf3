// SPDX-License-Identifier: MIT
/*
 * ring.c against the front end, without Python: run plain and under the sanitizers.
 * Usage: test_ring REQUESTS, the number each pair of threads exchanges.
 */
#include "front.h"
#include "ring.h"

#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define NEAR_WRAP (UINT32_MAX - 5)
#define MAX_SLOT 512

#define CHECK(condition)                                                              \
	do {                                                                          \
		if (!(condition)) {                                                   \
			fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #condition); \
			exit(1);                                                      \
		}                                                                     \
	} while (0)

struct geometry {
	uint32_t slot_size;
	uint32_t nr_slots;
};

static const struct geometry GEOMETRIES[] = {
	{ 32, 64 }, { 40, 64 }, { 296, 8 }, { 312, 8 }, { 376, 8 }, { 384, 8 }, { 400, 8 },
};
#define FOR_EACH_GEOMETRY(g)                                                          \
	for (const struct geometry *g = GEOMETRIES;                                   \
	     g < GEOMETRIES + sizeof(GEOMETRIES) / sizeof(*GEOMETRIES); g++)

/* On the heap and exactly one page, so that a sanitizer sees any step outside it. */
static void *new_page(void)
{
	void *page = aligned_alloc(XI_RING_PAGE_SIZE, XI_RING_PAGE_SIZE);

	CHECK(page != NULL);
	memset(page, 0xa5, XI_RING_PAGE_SIZE);
	return page;
}

/* Every byte of a slot depends on its number and its direction. */
static void fill(uint8_t *slot, uint32_t size, uint32_t number, uint32_t salt)
{
	uint32_t word = number * 2654435761u ^ salt;

	for (uint32_t at = 0; at < size; at += sizeof(word), word = word * 1664525u + 1013904223u)
		memcpy(slot + at, &word, sizeof(word));
}

static void make_request(uint8_t *slot, uint32_t size, uint32_t number)
{
	fill(slot, size, number, 0x72657175u);
}

static void make_response(uint8_t *slot, uint32_t size, uint32_t number)
{
	fill(slot, size, number, 0x616e7377u);
}

static void test_init(void)
{
	uint32_t *page = new_page();
	struct xi_ring ring;

	CHECK(xi_ring_attach(&ring, page, 400, 8, 7, 3) == 0);
	CHECK(page[0] == 0xa5a5a5a5u);
	xi_ring_init(&ring);
	CHECK(page[0] == 0 && page[1] == 1 && page[2] == 0 && page[3] == 1);
	for (int i = 4; i < 16; i++)
		CHECK(page[i] == 0);
	for (int i = 16; i < XI_RING_PAGE_SIZE / 4; i++)
		CHECK(page[i] == 0xa5a5a5a5u);
	CHECK(ring.req_cons == 0 && ring.rsp_prod_pvt == 0);
	CHECK(xi_ring_pending(&ring) == 0);
	free(page);
}

static void test_geometry(void)
{
	uint8_t *page = new_page();
	struct xi_ring ring;

	CHECK(xi_ring_attach(&ring, page, 504, 8, 0, 0) == 0);
	CHECK(xi_ring_attach(&ring, page, 505, 8, 0, 0) == XI_RING_BADGEOM);
	CHECK(xi_ring_attach(&ring, page, 0, 8, 0, 0) == XI_RING_BADGEOM);
	CHECK(xi_ring_attach(&ring, page, 4033, 1, 0, 0) == XI_RING_BADGEOM);
	CHECK(xi_ring_attach(&ring, page, 40, 63, 0, 0) == XI_RING_BADGEOM);
	CHECK(xi_ring_attach(&ring, page, 40, 0, 0, 0) == XI_RING_BADGEOM);
	CHECK(xi_ring_attach(&ring, page, UINT32_MAX, 8, 0, 0) == XI_RING_BADGEOM);
	CHECK(xi_ring_attach(&ring, page, 1, 0x80000000u, 0, 0) == XI_RING_BADGEOM);
	CHECK(xi_ring_attach(&ring, NULL, 400, 8, 0, 0) == XI_RING_BADGEOM);
	CHECK(xi_ring_attach(&ring, page + 2, 400, 8, 0, 0) == XI_RING_BADGEOM);
	CHECK(xi_ring_attach(&ring, page, 400, 8, 3, UINT32_MAX - 4) == 0);
	CHECK(xi_ring_attach(&ring, page, 400, 8, 4, UINT32_MAX - 4) == XI_RING_BADGEOM);
	CHECK(xi_ring_attach(&ring, page, 400, 8, 3, 4) == XI_RING_BADGEOM);
	free(page);
}

static void take_numbered(struct xi_ring *ring, uint32_t number)
{
	uint8_t request[MAX_SLOT], expected[MAX_SLOT];

	make_request(expected, ring->slot_size, number);
	CHECK(xi_ring_take(ring, request) == 1);
	CHECK(memcmp(request, expected, ring->slot_size) == 0);
}

static void put_numbered(struct xi_ring *ring, uint32_t number)
{
	uint8_t response[MAX_SLOT];

	make_response(response, ring->slot_size, number);
	CHECK(xi_ring_put(ring, response) == 0);
}

/* Full rings through the wrap of the indices, answered only when all was taken. */
static void test_full_ring(const struct geometry *g)
{
	uint8_t *page = new_page(), slot[MAX_SLOT], expected[MAX_SLOT];
	struct xi_front front;
	struct xi_ring ring;

	xi_front_init(&front, page, g->slot_size, g->nr_slots, NEAR_WRAP);
	CHECK(xi_ring_attach(&ring, page, g->slot_size, g->nr_slots, NEAR_WRAP, NEAR_WRAP) == 0);
	for (uint32_t first = 0; first < 3 * g->nr_slots; first += g->nr_slots) {
		for (uint32_t i = 0; i < g->nr_slots; i++) {
			make_request(slot, g->slot_size, first + i);
			CHECK(xi_front_put(&front, slot));
		}
		CHECK(!xi_front_put(&front, slot) && xi_ring_pending(&ring) == 0);
		xi_front_publish(&front);
		CHECK(xi_ring_pending(&ring) == (int)g->nr_slots);
		for (uint32_t i = 0; i < g->nr_slots; i++)
			take_numbered(&ring, first + i);
		CHECK(xi_ring_take(&ring, slot) == 0);
		CHECK(xi_ring_unanswered(&ring) == g->nr_slots);
		for (uint32_t i = 0; i < g->nr_slots; i++)
			put_numbered(&ring, first + i);
		CHECK(xi_ring_put(&ring, slot) == XI_RING_UNASKED);
		CHECK(!xi_front_take(&front, slot));
		xi_ring_publish(&ring);
		for (uint32_t i = 0; i < g->nr_slots; i++) {
			make_response(expected, g->slot_size, first + i);
			CHECK(xi_front_take(&front, slot));
			CHECK(memcmp(slot, expected, g->slot_size) == 0);
		}
	}
	free(page);
}

/* With two requests unanswered: every impossible req_prod is refused, nothing is touched. */
static void test_corrupt(const struct geometry *g)
{
	uint8_t *page = new_page(), before[XI_RING_PAGE_SIZE], slot[MAX_SLOT];
	const uint32_t room = g->nr_slots - 2, cons = NEAR_WRAP + 2;
	const uint32_t bad[] = { cons + room + 1, cons - 1, cons + 0x80000000u, cons + g->nr_slots };
	struct xi_ring ring, unchanged;

	CHECK(xi_ring_attach(&ring, page, g->slot_size, g->nr_slots, cons, NEAR_WRAP) == 0);
	unchanged = ring;
	for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++) {
		ring.page->req_prod = bad[i];
		memcpy(before, page, sizeof(before));
		CHECK(xi_ring_pending(&ring) == XI_RING_CORRUPT);
		CHECK(xi_ring_take(&ring, slot) == XI_RING_CORRUPT);
		CHECK(memcmp(before, page, sizeof(before)) == 0);
		CHECK(memcmp(&ring, &unchanged, sizeof(ring)) == 0);
	}
	ring.page->req_prod = cons + room;
	CHECK(xi_ring_pending(&ring) == (int)room);
	free(page);
}

struct exchange {
	struct xi_front front;
	struct xi_ring ring;
	uint32_t requests;
};

/* Xen: keep the ring as full as it goes and check every response. */
static void *run_front(void *argument)
{
	struct exchange *x = argument;
	uint8_t slot[MAX_SLOT], expected[MAX_SLOT];
	uint32_t sent = 0, done = 0;

	while (done < x->requests) {
		uint32_t before = sent + done;

		while (sent < x->requests && xi_front_free(&x->front) != 0) {
			make_request(slot, x->front.slot_size, sent++);
			CHECK(xi_front_put(&x->front, slot));
			if (sent % 3 != 0)
				xi_front_publish(&x->front);
		}
		xi_front_publish(&x->front);
		while (xi_front_take(&x->front, slot)) {
			make_response(expected, x->front.slot_size, done++);
			CHECK(memcmp(slot, expected, x->front.slot_size) == 0);
		}
		if (before == sent + done)
			sched_yield();
	}
	CHECK(!xi_front_take(&x->front, slot));
	return NULL;
}

/* The monitor: take, answer some at once and some late, publish in batches. */
static void run_back(struct exchange *x)
{
	uint32_t taken = 0, answered = 0;

	while (answered < x->requests) {
		while (xi_ring_pending(&x->ring) != 0) {
			take_numbered(&x->ring, taken++);
			if (taken % 4 != 0)
				put_numbered(&x->ring, answered++);
			if (taken % 5 == 0)
				xi_ring_publish(&x->ring);
		}
		while (xi_ring_unanswered(&x->ring) != 0)
			put_numbered(&x->ring, answered++);
		xi_ring_publish(&x->ring);
		sched_yield();
	}
	CHECK(taken == x->requests && xi_ring_pending(&x->ring) == 0);
}

static void test_two_threads(uint32_t slot_size, uint32_t nr_slots, uint32_t requests)
{
	struct exchange x = { .requests = requests };
	/* The indices wrap in the middle of the exchange. */
	uint32_t start = 0u - requests / 2;
	void *page = new_page();
	pthread_t xen;

	xi_front_init(&x.front, page, slot_size, nr_slots, start);
	CHECK(xi_ring_attach(&x.ring, page, slot_size, nr_slots, start, start) == 0);
	CHECK(pthread_create(&xen, NULL, run_front, &x) == 0);
	run_back(&x);
	CHECK(pthread_join(xen, NULL) == 0);
	CHECK(x.ring.req_cons == start + requests && x.ring.rsp_prod_pvt == start + requests);
	free(page);
}

int main(int argc, char **argv)
{
	uint32_t requests = argc == 2 ? (uint32_t)strtoul(argv[1], NULL, 10) : 0;

	CHECK(requests > 0);
	test_init();
	test_geometry();
	FOR_EACH_GEOMETRY(g) {
		test_full_ring(g);
		test_corrupt(g);
	}
	test_two_threads(40, 64, requests);
	test_two_threads(400, 8, requests);
	puts("ring: ok");
	return 0;
}
