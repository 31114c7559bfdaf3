/* SPDX-License-Identifier: MIT */
/*
 * The deadline: a thread that answers requests which the loop leaves unanswered
 * too long, whatever keeps the loop, so that no vCPU waits for it.
 *
 * It knows nothing of events: a table says per reason what lets one happen.  The
 * age of a request counts from the look before the one that first saw it, so no
 * request waits longer than the deadline and the delay of one wake-up.
 *
 * One exception: a request whose trap the loop is injecting waits for that, and
 * those behind it with it, until it is done, but not longer than one more
 * deadline.  Then it is answered without a trap, for there must never be two:
 * INT3 happens again, and a #DB comes as late as the call that hangs.
 */
#ifndef XI_GUARD_H
#define XI_GUARD_H

#include "ring.h"

#include <sys/types.h>

#define XI_GUARD_REASONS 32
#define XI_GUARD_ECHOED 4
#define XI_GUARD_SLOT 512	/* the longest that the log has room for */
#define XI_GUARD_LOG 1024

/* A little-endian number in a slot; size 0: it is not there, and fixed stands for it. */
struct xi_field {
	uint32_t offset;
	uint32_t size;
	uint64_t fixed;
};

struct xi_range {
	uint32_t offset;
	uint32_t size;
};

/* What lets the events of one reason happen. */
struct xi_rule {
	uint8_t known;		/* else the least response is sent */
	uint8_t always;		/* the flags go to a vCPU that does not wait, too */
	uint32_t flags;		/* of the response */
	struct xi_field counter;	/* the register that moves on by length; size 0: none */
	struct xi_field length;
	uint32_t vector;	/* of the trap to inject before the answer; 0: none */
	struct xi_field type;
	struct xi_field insn_length;
	struct xi_field extra;
};

/* How to answer any request of one interface. */
struct xi_answers {
	struct xi_field version;	/* fixed: the one the rules are for */
	struct xi_field reason;
	struct xi_field flags;
	struct xi_field vcpu_id;
	struct xi_range echoed[XI_GUARD_ECHOED];	/* of every request */
	struct xi_range payload;	/* echoed where the reason is known */
	struct xi_range registers;	/* echoed where the counter moves */
	struct xi_rule rules[XI_GUARD_REASONS];
};

/* Functions of libxc and libxenevtchn by address; 0: there is none. */
struct xi_calls {
	uintptr_t notify;	/* int xenevtchn_notify(handle, port) */
	uintptr_t notify_handle;
	uint32_t port;
	uintptr_t inject;	/* int xc_hvm_inject_trap(handle, domid, vcpu, vector, type, ...) */
	uintptr_t inject_handle;	/* the guard's own: libxc handles are not shared by threads */
	uint32_t domid;
};

/* A trap for the vCPU of a request; see xc_hvm_inject_trap. */
struct xi_trap {
	uint64_t vector;
	uint64_t type;
	uint64_t error_code;
	uint64_t insn_length;
	uint64_t extra;
};

/* A request that the guard has answered. */
struct xi_missed {
	uint64_t since_ns;
	uint64_t answered_ns;
	uint64_t before;	/* requests that the loop took before this one */
	uint8_t taken;		/* the loop has it, and its answer will be dropped */
	uint8_t claimed;	/* by the loop, before */
	uint8_t request[XI_GUARD_SLOT];
};

struct xi_guard {
	struct xi_ring *ring;
	struct xi_answers answers;
	struct xi_calls calls;
	uint64_t deadline_ns;
	uint64_t tick_ns;
	uint64_t looked_ns;
	uint64_t *beat;
	uint64_t answered;	/* this and what follows: under the ring's lock */
	uint64_t lost;		/* answered and not in the log: it was full */
	uint64_t longest_ns;
	uint32_t oldest;
	uint64_t injecting_ns;	/* with injecting: since when, and into which vCPU */
	uint64_t injecting_vcpu;
	struct xi_missed log[XI_GUARD_LOG];
	pthread_t thread;
	pthread_mutex_t lock;	/* over stopping */
	pthread_cond_t wake;
	uint8_t injecting;	/* the loop does; under the ring's lock */
	pid_t pid;		/* where the thread is: a forked child has none */
	uint8_t running;
	uint8_t stopping;
};

/*
 * answers, calls and deadline_ns are set before.  beat, where not NULL, gets the
 * time of every look (CLOCK_MONOTONIC).  Returns 0 or XI_RING_BADGEOM.
 */
int xi_guard_init(struct xi_guard *guard, struct xi_ring *ring, uint64_t *beat, uint64_t now);

/*
 * Answer what has waited as long as the deadline allows, and see to it that
 * responses which were put have reached Xen.  Returns when to look again.
 */
uint64_t xi_guard_look(struct xi_guard *guard, uint64_t now);

/* Take the oldest entry out of the log: 1, or 0 if there is none. */
int xi_guard_missed(struct xi_guard *guard, struct xi_missed *missed);

/*
 * The loop's way to inject a trap into the vCPU of the request that it answers next,
 * with its own handle: claimed and injected in one step as the guard sees it.  trap
 * NULL: the request's own.  Returns the errno of the call; 0 also if the guard has
 * answered, and nothing was injected.
 */
int xi_guard_inject(struct xi_guard *guard, uintptr_t function, uintptr_t handle,
		    const struct xi_trap *trap, uint64_t now);

/* The response to a request; used by the look, and by tests of the table. */
void xi_guard_response(const struct xi_guard *guard, const void *request, void *response);

/* Run the thread.  Returns 0 or an errno. */
int xi_guard_start(struct xi_guard *guard);

/* End the thread and wait for its end; nothing if it does not run in this process. */
void xi_guard_stop(struct xi_guard *guard);

#endif
