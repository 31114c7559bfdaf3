// SPDX-License-Identifier: MIT
#include "front.h"

#include <string.h>

enum { REQ_PROD = 0, REQ_EVENT = 4, RSP_PROD = 8, RSP_EVENT = 12, SLOT0 = 64 };

static uint32_t *word(const struct xi_front *front, int offset)
{
	return (uint32_t *)(void *)(front->page + offset);
}

static void *slot_at(const struct xi_front *front, uint32_t index)
{
	return front->page + SLOT0 + index % front->nr_slots * front->slot_size;
}

void xi_front_init(struct xi_front *front, void *page, uint32_t slot_size, uint32_t nr_slots,
		   uint32_t start)
{
	*front = (struct xi_front){ page, slot_size, nr_slots, start, start };
	memset(front->page, 0, SLOT0);
	*word(front, REQ_PROD) = *word(front, RSP_PROD) = start;
	*word(front, REQ_EVENT) = *word(front, RSP_EVENT) = start + 1;
}

uint32_t xi_front_free(const struct xi_front *front)
{
	return front->nr_slots - (front->req_prod_pvt - front->rsp_cons);
}

bool xi_front_put(struct xi_front *front, const void *request)
{
	if (xi_front_free(front) == 0)
		return false;
	memcpy(slot_at(front, front->req_prod_pvt), request, front->slot_size);
	front->req_prod_pvt++;
	return true;
}

void xi_front_publish(struct xi_front *front)
{
	__atomic_store_n(word(front, REQ_PROD), front->req_prod_pvt, __ATOMIC_RELEASE);
}

bool xi_front_take(struct xi_front *front, void *response)
{
	if (__atomic_load_n(word(front, RSP_PROD), __ATOMIC_ACQUIRE) == front->rsp_cons)
		return false;
	memcpy(response, slot_at(front, front->rsp_cons), front->slot_size);
	front->rsp_cons++;
	__atomic_store_n(word(front, RSP_EVENT), front->rsp_cons + 1, __ATOMIC_RELAXED);
	return true;
}
