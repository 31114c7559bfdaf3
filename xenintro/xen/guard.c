// SPDX-License-Identifier: MIT
/* See guard.h. */
#define _GNU_SOURCE	/* pthread_setname_np */
#include "guard.h"

#include <errno.h>
#include <signal.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define VCPU_PAUSED 1u
#define NO_ERROR_CODE 0xffffffffu
#define TICKS_PER_DEADLINE 8
#define LONGEST_TICK_NS 250000000u /* the beat is looked at too, whatever the deadline */

typedef int notify_call(void *handle, uint32_t port);
/* Releases differ in the widths of these arguments only; all travel as 64-bit words. */
typedef int inject_call(void *handle, uint64_t domid, uint64_t vcpu_id, uint64_t vector, uint64_t type,
			uint64_t error_code, uint64_t insn_length, uint64_t extra);

static uint64_t read_field(const struct xi_field *field, const uint8_t *slot)
{
	uint64_t value = 0;

	if (field->size == 0)
		return field->fixed;
	memcpy(&value, slot + field->offset, field->size);
	return value;
}

static void write_field(const struct xi_field *field, uint8_t *slot, uint64_t value)
{
	memcpy(slot + field->offset, &value, field->size);
}

static void echo(const struct xi_range *range, const uint8_t *request, uint8_t *response)
{
	memcpy(response + range->offset, request + range->offset, range->size);
}

static int is_paused(const struct xi_guard *guard, const uint8_t *request)
{
	return (read_field(&guard->answers.flags, request) & VCPU_PAUSED) != 0;
}

/* NULL: a reason or a version that the table does not know. */
static const struct xi_rule *rule_of(const struct xi_guard *guard, const uint8_t *request)
{
	const struct xi_answers *answers = &guard->answers;
	uint64_t reason = read_field(&answers->reason, request);

	if (read_field(&answers->version, request) != answers->version.fixed)
		return NULL;
	if (reason >= XI_GUARD_REASONS || !answers->rules[reason].known)
		return NULL;
	return &answers->rules[reason];
}

void xi_guard_response(const struct xi_guard *guard, const void *request, void *response)
{
	const struct xi_answers *answers = &guard->answers;
	const struct xi_rule *rule = rule_of(guard, request);
	uint64_t flags = is_paused(guard, request) ? VCPU_PAUSED : 0;

	memset(response, 0, guard->ring->slot_size);
	for (int i = 0; i < XI_GUARD_ECHOED; i++)
		echo(&answers->echoed[i], request, response);
	if (rule != NULL) {
		echo(&answers->payload, request, response);
		if (rule->counter.size != 0) {
			echo(&answers->registers, request, response);
			write_field(&rule->counter, response,
				    read_field(&rule->counter, request) + read_field(&rule->length, request));
		}
		if (flags != 0 || rule->always)
			flags |= rule->flags;
	}
	write_field(&answers->flags, response, flags);
}

static void log_missed(struct xi_guard *guard, const uint8_t *request, uint32_t index, uint64_t now)
{
	struct xi_ring *ring = guard->ring;
	uint64_t since = ring->since[index & (ring->nr_slots - 1)];
	const uint32_t outstanding = ring->req_cons - index;	/* taken by the loop, the last ones it took */
	struct xi_missed *entry;

	guard->answered++;
	if (now - since > guard->longest_ns)
		guard->longest_ns = now - since;
	if (ring->missed == XI_GUARD_LOG) {
		guard->lost++;
		return;
	}
	entry = &guard->log[(guard->oldest + ring->missed++) % XI_GUARD_LOG];
	entry->since_ns = since;
	entry->answered_ns = now;
	entry->before = ring->takes - outstanding;
	entry->taken = outstanding != 0;
	entry->claimed = (uint8_t)xi_ring_is_claimed(ring, index);
	memcpy(entry->request, request, ring->slot_size);
}

int xi_guard_missed(struct xi_guard *guard, struct xi_missed *missed)
{
	struct xi_ring *ring = guard->ring;
	int found;

	pthread_mutex_lock(&ring->lock);
	found = ring->missed != 0;
	if (found) {
		*missed = guard->log[guard->oldest];
		guard->oldest = (guard->oldest + 1) % XI_GUARD_LOG;
		ring->missed--;
	} else if (ring->record != NULL) {
		ring->record->told = ring->record->put;
	}
	pthread_mutex_unlock(&ring->lock);
	return found;
}

static void notify(const struct xi_guard *guard)
{
	const struct xi_calls *calls = &guard->calls;

	if (calls->notify != 0)
		((notify_call *)calls->notify)((void *)calls->notify_handle, calls->port);
}

/* Returns an errno. */
static int inject(const struct xi_guard *guard, uintptr_t function, uintptr_t handle, const uint8_t *request,
		  const struct xi_trap *trap)
{
	int result = ((inject_call *)function)((void *)handle, guard->calls.domid,
					       read_field(&guard->answers.vcpu_id, request), trap->vector,
					       trap->type, trap->error_code, trap->insn_length, trap->extra);

	return result < 0 ? errno : 0;
}

/* Whether a trap goes with the answer. */
static int has_trap(const struct xi_guard *guard, const uint8_t *request)
{
	const struct xi_rule *rule = rule_of(guard, request);

	return rule != NULL && rule->vector != 0 && is_paused(guard, request);
}

/* Of a request that has one. */
static struct xi_trap trap_of(const struct xi_guard *guard, const uint8_t *request)
{
	const struct xi_rule *rule = rule_of(guard, request);

	return (struct xi_trap){
		.vector = rule->vector,
		.type = read_field(&rule->type, request),
		.error_code = NO_ERROR_CODE,
		.insn_length = read_field(&rule->insn_length, request),
		.extra = read_field(&rule->extra, request),
	};
}

int xi_guard_inject(struct xi_guard *guard, uintptr_t function, uintptr_t handle,
		    const struct xi_trap *trap, uint64_t now)
{
	struct xi_ring *ring = guard->ring;
	uint8_t request[XI_GUARD_SLOT];
	struct xi_trap own;
	int error = 0, granted;

	pthread_mutex_lock(&ring->lock);
	granted = xi_ring_claim_locked(ring);
	if (granted) {
		memcpy(request, xi_ring_slot(ring, ring->rsp_prod_pvt), ring->slot_size);
		guard->injecting_vcpu = read_field(&guard->answers.vcpu_id, request);
		guard->injecting_ns = now;
		guard->injecting = 1;
	}
	pthread_mutex_unlock(&ring->lock);
	if (!granted)
		return 0;
	if (trap == NULL && has_trap(guard, request)) {
		own = trap_of(guard, request);
		trap = &own;
	}
	error = trap != NULL ? inject(guard, function, handle, request, trap) : EINVAL;
	pthread_mutex_lock(&ring->lock);
	guard->injecting = 0;
	pthread_mutex_unlock(&ring->lock);
	return error;
}

/* With the lock held: whether the loop has injected the trap of the oldest request, or may be about to. */
static int is_injected(const struct xi_guard *guard, const uint8_t *request)
{
	if (xi_ring_is_claimed(guard->ring, guard->ring->rsp_prod_pvt))
		return 1;
	/* A call that hung before, for an earlier request: it may still reach this vCPU. */
	return guard->injecting && read_field(&guard->answers.vcpu_id, request) == guard->injecting_vcpu;
}

/*
 * Answer the oldest request.  A trap is injected without the lock: until that is
 * done its response is on the ring but kept from Xen, and so are later ones.
 */
static void answer_oldest(struct xi_guard *guard, uint64_t now)
{
	struct xi_ring *ring = guard->ring;
	uint8_t request[XI_GUARD_SLOT], response[XI_GUARD_SLOT];
	const uint32_t index = ring->rsp_prod_pvt;
	struct xi_trap trap;
	int injects;

	memcpy(request, xi_ring_slot(ring, index), ring->slot_size);
	injects = guard->calls.inject != 0 && has_trap(guard, request) && !is_injected(guard, request);
	xi_guard_response(guard, request, response);
	log_missed(guard, request, index, now);
	xi_ring_answer(ring, response);
	if (!injects)
		return;
	ring->held = index;
	ring->holding = 1;
	xi_ring_publish_locked(ring);
	pthread_mutex_unlock(&ring->lock);
	notify(guard);
	/* An error can only mean that a trap is pending already, or that the domain is dead. */
	trap = trap_of(guard, request);
	inject(guard, guard->calls.inject, guard->calls.inject_handle, request, &trap);
	pthread_mutex_lock(&ring->lock);
	ring->holding = 0;
}

static uint64_t due_ns(const struct xi_guard *guard, uint32_t index)
{
	const struct xi_ring *ring = guard->ring;
	const uint64_t due = ring->since[index & (ring->nr_slots - 1)] + guard->deadline_ns;

	if (!guard->injecting || !xi_ring_is_claimed(ring, index))
		return due;
	if (guard->injecting_ns < due)
		return guard->injecting_ns + guard->deadline_ns;
	/* Begun after the last look, as those before it took so long: it has no deadline of its own. */
	return due + guard->deadline_ns - guard->tick_ns;
}

static int is_due(const struct xi_guard *guard, uint32_t index, uint64_t now)
{
	return due_ns(guard, index) <= now;
}

/* The earlier of two times: the one given, and when the request at this index is due if that is to come. */
static uint64_t sooner(const struct xi_guard *guard, uint64_t next, uint32_t index, uint64_t now)
{
	uint64_t due = due_ns(guard, index);

	return due > now && due < next ? due : next;
}

/* With the lock held; true if Xen must be told of responses. */
static int look(struct xi_guard *guard, uint64_t now, uint64_t *next)
{
	struct xi_ring *ring = guard->ring;
	const uint64_t since = now - guard->looked_ns > guard->tick_ns ? now - guard->tick_ns : guard->looked_ns;
	int waiting = xi_ring_waiting(ring), ring_it = 0;

	if (waiting < 0)	/* a damaged page: the loop says so, nothing here can be trusted */
		return 0;
	xi_ring_see(ring, ring->rsp_prod_pvt + (uint32_t)waiting, since);
	while ((waiting = xi_ring_waiting(ring)) > 0 && is_due(guard, ring->rsp_prod_pvt, now)) {
		if (ring->rsp_prod_pvt == ring->seen)	/* came while a trap was injected */
			break;
		answer_oldest(guard, now);
		ring_it = 1;
	}
	/* Put by the loop, and not published, or published and never told. */
	if (xi_ring_unconsumed(ring) != ring->rsp_prod_pvt) {
		if (is_due(guard, xi_ring_unconsumed(ring), now))
			ring_it = 1;
		*next = sooner(guard, *next, xi_ring_unconsumed(ring), now);
	}
	if (waiting > 0)
		*next = sooner(guard, *next, ring->rsp_prod_pvt, now);
	if (ring_it) {
		xi_ring_publish_locked(ring);
		if (ring->unpublished != 0)
			ring->published_ns = now;
		ring->unpublished = 0;
	}
	return ring_it;
}

uint64_t xi_guard_look(struct xi_guard *guard, uint64_t now)
{
	uint64_t next = now + guard->tick_ns;
	int ring_it;

	pthread_mutex_lock(&guard->ring->lock);
	ring_it = look(guard, now, &next);
	pthread_mutex_unlock(&guard->ring->lock);
	if (ring_it)
		notify(guard);
	guard->looked_ns = now;
	if (guard->beat != NULL)
		__atomic_store_n(guard->beat, now, __ATOMIC_RELAXED);
	return next;
}

int xi_guard_init(struct xi_guard *guard, struct xi_ring *ring, uint64_t *beat, uint64_t now)
{
	if (ring->slot_size > XI_GUARD_SLOT)
		return XI_RING_BADGEOM;
	guard->ring = ring;
	guard->beat = beat;
	guard->tick_ns = guard->deadline_ns / TICKS_PER_DEADLINE;
	if (guard->tick_ns > LONGEST_TICK_NS)
		guard->tick_ns = LONGEST_TICK_NS;
	guard->looked_ns = now;
	return 0;
}

static uint64_t monotonic_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

static void *run(void *argument)
{
	struct xi_guard *guard = argument;

	pthread_setname_np(pthread_self(), "xenintro-guard");
	pthread_mutex_lock(&guard->lock);
	while (!guard->stopping) {
		struct timespec until;
		uint64_t next;

		pthread_mutex_unlock(&guard->lock);
		next = xi_guard_look(guard, monotonic_ns());
		until.tv_sec = (time_t)(next / 1000000000u);
		until.tv_nsec = (long)(next % 1000000000u);
		pthread_mutex_lock(&guard->lock);
		if (!guard->stopping)
			pthread_cond_timedwait(&guard->wake, &guard->lock, &until);
	}
	pthread_mutex_unlock(&guard->lock);
	return NULL;
}

int xi_guard_start(struct xi_guard *guard)
{
	pthread_condattr_t monotonic;
	sigset_t all, before;
	int error;

	pthread_mutex_init(&guard->lock, NULL);
	pthread_condattr_init(&monotonic);
	pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
	pthread_cond_init(&guard->wake, &monotonic);
	pthread_condattr_destroy(&monotonic);
	guard->stopping = 0;
	guard->pid = getpid();
	/* Signals are the loop's: the thread inherits a mask that has them all. */
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	error = pthread_create(&guard->thread, NULL, run, guard);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	guard->running = error == 0;
	return error;
}

void xi_guard_stop(struct xi_guard *guard)
{
	if (!guard->running)
		return;
	guard->running = 0;
	if (guard->pid != getpid())	/* a forked child's copy: its lock may be held for ever */
		return;
	pthread_mutex_lock(&guard->lock);
	guard->stopping = 1;
	pthread_cond_signal(&guard->wake);
	pthread_mutex_unlock(&guard->lock);
	pthread_join(guard->thread, NULL);
}
