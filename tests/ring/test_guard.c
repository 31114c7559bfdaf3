// SPDX-License-Identifier: MIT
/*
 * The loop and the guard on one ring, each in its thread, against a Xen that
 * checks every response: run plain and under the sanitizers.
 * Usage: test_guard REQUESTS
 */
#include "front.h"
#include "guard.h"

#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define CHECK(condition)                                                              \
	do {                                                                          \
		if (!(condition)) {                                                   \
			fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #condition); \
			abort();                                                      \
		}                                                                     \
	} while (0)

#define MS 1000000u
#define DEADLINE (20 * MS)
#define STALL (DEADLINE + DEADLINE / 2)
#define LONG_STALL (2000 * MS)
/* Half of the long stall: far beyond the deadline on the slowest machine, far from the stall. */
#define TOO_LONG (LONG_STALL / 2)

enum { PAUSED = 1, EMULATE = 4, BY_LOOP = 1 << 20 };
enum { ACCESS = 1, TRAP = 2, NR_REASONS = 3 };	/* 0: the table does not know it */

/* What both ends agree on; any interface's slot would do. */
struct slot {
	uint32_t version, flags, reason, vcpu_id;
	uint64_t number, more;
};

struct request {
	uint64_t posted_ns;
	uint32_t vcpu_id, reason;
	uint32_t injections;
	uint8_t responses, by_loop, put, late, missed;
};

/* Its lock is Xen's: both threads call into it. */
static struct {
	pthread_mutex_t lock;
	struct xi_front front;
	struct request *requests;
	uint64_t posted, done, total;
	uint64_t waits_for[XI_RING_MAX_SLOTS];	/* by vCPU: the number of its request, + 1 */
	uint64_t longest_ns;
	struct request *injecting;	/* by the loop */
	uint64_t call_ns;	/* how long that takes */
} xen = { .lock = PTHREAD_MUTEX_INITIALIZER };

static uint64_t now_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

static void stall(uint64_t nanoseconds)
{
	struct timespec time = { (time_t)(nanoseconds / 1000000000u), (long)(nanoseconds % 1000000000u) };

	nanosleep(&time, NULL);
}

/* xenevtchn_notify: Xen consumes every response that is published. */
static int notify(void *handle, uint32_t port)
{
	union {
		struct slot slot;
		uint8_t bytes[XI_GUARD_SLOT];
	} got;

	CHECK(handle == (void *)&xen && port == 7);
	pthread_mutex_lock(&xen.lock);
	while (xi_front_take(&xen.front, &got)) {
		const struct slot *response = &got.slot;
		struct request *request = &xen.requests[response->number];
		uint64_t waited = now_ns() - request->posted_ns;
		int by_loop = (response->flags & BY_LOOP) != 0;

		CHECK(response->number < xen.posted && request->responses++ == 0);
		CHECK(response->version == 7 && response->vcpu_id == request->vcpu_id);
		CHECK(response->reason == request->reason);
		CHECK(xen.waits_for[request->vcpu_id] == response->number + 1);
		if (by_loop)
			CHECK(response->flags == (PAUSED | BY_LOOP));
		else
			CHECK(response->flags == (request->reason == ACCESS ? PAUSED | EMULATE : PAUSED));
		CHECK(response->more == (by_loop || request->reason != 0 ? ~response->number : 0));
		if (request != xen.injecting)	/* else the guard waited long enough for it */
			CHECK((request->injections != 0) == (request->reason == TRAP));
		request->by_loop = (uint8_t)by_loop;
		xen.waits_for[request->vcpu_id] = 0;
		if (waited > xen.longest_ns)
			xen.longest_ns = waited;
		xen.done++;
	}
	pthread_mutex_unlock(&xen.lock);
	return 0;
}

/* xc_hvm_inject_trap: at most one trap is pending. */
static int inject(void *handle, uint64_t domid, uint64_t vcpu_id, uint64_t vector, uint64_t type,
		  uint64_t error_code, uint64_t insn_length, uint64_t extra)
{
	struct request *request;
	int by_loop = handle == (void *)&xen.injecting;

	CHECK((by_loop || handle == (void *)&xen.lock) && domid == 5 && vector == 3 && type == 6);
	CHECK(error_code == 0xffffffff && insn_length == 1 && extra == 0);
	if (by_loop && xen.call_ns != 0)
		stall(xen.call_ns);
	pthread_mutex_lock(&xen.lock);
	CHECK(vcpu_id < xen.front.nr_slots);
	request = by_loop ? xen.injecting : &xen.requests[xen.waits_for[vcpu_id] - 1];
	CHECK(by_loop || (xen.waits_for[vcpu_id] != 0 && request->responses == 0));
	CHECK(request->reason == TRAP && request->vcpu_id == vcpu_id && request->injections++ == 0);
	pthread_mutex_unlock(&xen.lock);
	return 0;
}

/* Every vCPU that runs makes a request, as long as there are some to make. */
static void *run_vcpus(void *unused)
{
	uint8_t bytes[XI_GUARD_SLOT] = { 0 };
	unsigned int seed = 1;
	int more = 1;

	while (more) {
		pthread_mutex_lock(&xen.lock);
		for (uint32_t vcpu_id = 0; vcpu_id < xen.front.nr_slots; vcpu_id++) {
			struct slot slot = { 7, PAUSED, 0, vcpu_id, xen.posted, ~xen.posted };

			if (xen.waits_for[vcpu_id] != 0 || xen.posted == xen.total || rand_r(&seed) % 3 == 0)
				continue;
			slot.reason = (uint32_t)rand_r(&seed) % NR_REASONS;
			xen.requests[xen.posted] = (struct request){
				.posted_ns = now_ns(), .vcpu_id = vcpu_id, .reason = slot.reason
			};
			memcpy(bytes, &slot, sizeof(slot));
			CHECK(xi_front_put(&xen.front, bytes));
			xen.waits_for[vcpu_id] = ++xen.posted;
			if (rand_r(&seed) % 4 != 0)
				xi_front_publish(&xen.front);
		}
		xi_front_publish(&xen.front);
		more = xen.done != xen.total;
		pthread_mutex_unlock(&xen.lock);
		sched_yield();
	}
	return unused;
}

struct monitor {
	struct xi_ring ring;
	struct xi_guard guard;
	uint64_t beat;
	uint64_t outstanding[XI_RING_MAX_SLOTS];	/* numbers of requests taken, oldest first */
	uint32_t nr_outstanding;
	unsigned int seed;
	uint64_t answered, late;
	int stalled_long;
};

static void collect_missed(struct monitor *m)
{
	struct xi_missed missed;
	struct slot slot;

	while (xi_guard_missed(&m->guard, &missed)) {
		memcpy(&slot, missed.request, sizeof(slot));
		CHECK(xen.requests[slot.number].missed++ == 0);
		CHECK(missed.since_ns <= missed.answered_ns);
	}
}

/* Now and then too long, once much too long. */
static void maybe_stall(struct monitor *m)
{
	if (rand_r(&m->seed) % 400 == 0)
		stall(STALL);
	if (!m->stalled_long && m->answered > xen.total / 8) {
		m->stalled_long = 1;
		stall(LONG_STALL);
	}
}

static int take_one(struct monitor *m)
{
	union {
		struct slot slot;
		uint8_t bytes[XI_GUARD_SLOT];
	} taken;
	int outcome = xi_ring_take(&m->ring, &taken);

	CHECK(outcome >= 0);
	if (outcome == XI_RING_TAKEN_AFTER_MISSED)
		collect_missed(m);
	if (outcome == 0)
		return 0;
	CHECK(taken.slot.version == 7 && taken.slot.more == ~taken.slot.number);
	m->outstanding[m->nr_outstanding++] = taken.slot.number;
	return 1;
}

static void answer_one(struct monitor *m, uint64_t number)
{
	uint8_t bytes[XI_GUARD_SLOT] = { 0 };
	struct request *request = &xen.requests[number];
	struct slot slot = { 7, PAUSED | BY_LOOP, request->reason, request->vcpu_id, number, ~number };
	int outcome;

	pthread_mutex_lock(&xen.lock);
	xen.injecting = request->reason == TRAP ? request : NULL;
	xen.call_ns = rand_r(&m->seed) % 400 == 0 ? STALL : 0;
	pthread_mutex_unlock(&xen.lock);

	maybe_stall(m);
	if (request->reason == TRAP)
		CHECK(xi_guard_inject(&m->guard, (uintptr_t)inject, (uintptr_t)&xen.injecting, NULL, now_ns()) == 0);
	else
		xi_ring_claim(&m->ring);
	pthread_mutex_lock(&xen.lock);
	xen.injecting = NULL;
	pthread_mutex_unlock(&xen.lock);
	maybe_stall(m);
	memcpy(bytes, &slot, sizeof(slot));
	outcome = xi_ring_put(&m->ring, bytes);
	CHECK(outcome == XI_RING_PUT || outcome == XI_RING_LATE);
	request->put = outcome == XI_RING_PUT;
	request->late = outcome == XI_RING_LATE;
	m->late += request->late;
	m->answered++;
}

static int all_done(void)
{
	int done;

	pthread_mutex_lock(&xen.lock);
	done = xen.done == xen.total;
	pthread_mutex_unlock(&xen.lock);
	return done;
}

static void run_loop(struct monitor *m)
{
	while (!all_done()) {
		uint32_t wanted = (uint32_t)rand_r(&m->seed) % m->ring.nr_slots + 1;

		maybe_stall(m);
		m->nr_outstanding = 0;
		while (m->nr_outstanding < wanted && take_one(m))
			;
		for (uint32_t i = 0; i < m->nr_outstanding; i++)
			answer_one(m, m->outstanding[i]);
		maybe_stall(m);
		xi_ring_publish(&m->ring);
		maybe_stall(m);
		notify(&xen, 7);
		if (m->nr_outstanding == 0)
			sched_yield();
	}
}

static struct xi_answers answers(void)
{
	return (struct xi_answers){
		.version = { 0, 4, 7 },
		.flags = { 4, 4, 0 },
		.reason = { 8, 4, 0 },
		.vcpu_id = { 12, 4, 0 },
		/* The number is part of the header here: every response carries it. */
		.echoed = { { 0, 4 }, { 8, 16 } },
		.payload = { 24, 8 },
		.rules = {
			[ACCESS] = { .known = 1, .flags = EMULATE },
			[TRAP] = { .known = 1, .vector = 3, .type = { .fixed = 6 }, .insn_length = { .fixed = 1 } },
		},
	};
}

static void check_requests(const struct monitor *m)
{
	uint64_t by_guard = 0, missed = 0;

	for (uint64_t number = 0; number < xen.total; number++) {
		const struct request *request = &xen.requests[number];

		CHECK(request->responses == 1);
		CHECK(request->by_loop == request->put);
		CHECK(!(request->put && request->late));
		CHECK(request->missed <= !request->by_loop);
		by_guard += !request->by_loop;
		missed += request->missed;
	}
	CHECK(by_guard == m->guard.answered && by_guard != 0);
	CHECK(missed + m->guard.lost == by_guard && missed >= XI_GUARD_LOG / 8);
	CHECK(m->late == m->ring.dropped && m->late != 0 && m->late < by_guard);
	CHECK(m->ring.late == 0);
	CHECK(xen.longest_ns < TOO_LONG && m->stalled_long);
}

/* A child's copy of the lock may be held by a thread that it does not have. */
static void check_fork(struct xi_guard *guard)
{
	int status = -1;
	pid_t child;

	pthread_mutex_lock(&guard->lock);
	child = fork();
	if (child == 0) {
		alarm(20);
		xi_guard_stop(guard);
		_exit(0);
	}
	pthread_mutex_unlock(&guard->lock);
	CHECK(waitpid(child, &status, 0) == child && status == 0);
}

static void test_guard(uint32_t slot_size, uint32_t nr_slots, uint64_t requests)
{
	struct monitor *m = calloc(1, sizeof(*m));
	void *page = aligned_alloc(XI_RING_PAGE_SIZE, XI_RING_PAGE_SIZE);
	/* The indices wrap in the middle. */
	uint32_t start = 0u - (uint32_t)requests / 2;
	uint64_t before, after;
	pthread_t vcpus;

	CHECK(m != NULL && page != NULL);
	xen.posted = xen.done = xen.longest_ns = 0;
	xen.total = requests;
	xen.requests = calloc(requests, sizeof(*xen.requests));
	CHECK(xen.requests != NULL);
	xi_front_init(&xen.front, page, slot_size, nr_slots, start);
	CHECK(xi_ring_attach(&m->ring, page, slot_size, nr_slots, start, start) == 0);
	m->seed = slot_size;
	m->guard.answers = answers();
	m->guard.deadline_ns = DEADLINE;
	m->guard.calls = (struct xi_calls){
		(uintptr_t)notify, (uintptr_t)&xen, 7, (uintptr_t)inject, (uintptr_t)&xen.lock, 5
	};
	before = now_ns();
	CHECK(xi_guard_init(&m->guard, &m->ring, &m->beat, before) == 0);
	CHECK(xi_guard_start(&m->guard) == 0);
	CHECK(pthread_create(&vcpus, NULL, run_vcpus, NULL) == 0);
	run_loop(m);
	CHECK(pthread_join(vcpus, NULL) == 0);
	after = now_ns();
	while (__atomic_load_n(&m->beat, __ATOMIC_RELAXED) < after)
		sched_yield();	/* it beats with nothing to do, too */
	check_fork(&m->guard);
	xi_guard_stop(&m->guard);
	xi_guard_stop(&m->guard);
	collect_missed(m);
	check_requests(m);
	printf("slots of %u bytes: %llu by the guard, %llu late, longest %llu ms\n", slot_size,
	       (unsigned long long)m->guard.answered, (unsigned long long)m->late,
	       (unsigned long long)(xen.longest_ns / MS));
	free(xen.requests);
	free(page);
	free(m);
}

int main(int argc, char **argv)
{
	uint64_t requests = argc == 2 ? strtoull(argv[1], NULL, 10) : 0;

	CHECK(requests > 0);
	test_guard(40, 64, requests);
	test_guard(400, 8, requests);
	puts("guard: ok");
	return 0;
}
