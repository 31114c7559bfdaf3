/* SPDX-License-Identifier: MIT */
/*
 * What a program that talks to Xen finds instead of libxenctrl, libxenevtchn and
 * their companions when it runs on the simulator: the same symbols, each call one
 * packet to the simulated hypervisor.
 *
 * Arguments travel as raw 64-bit registers. libxc has no stable ABI, so what they mean
 * depends on the release that the caller was built for; only the simulator knows which
 * one it plays, and it also cuts bools and short integers to size (the System V ABI
 * leaves their upper bits undefined).
 */
#define _GNU_SOURCE
#include <errno.h>
#include <pthread.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#define EXPORT __attribute__((visibility("default")))
#define PAGE 4096
#define HYPERVISOR_DOMCTL 36	/* __HYPERVISOR_domctl, public/xen.h */
#define DOMCTL_BYTES 144	/* sizeof(struct xen_domctl) */

/* xenintro/sim/wire.py has the same two layouts. */
struct request {
	char name[36];
	int32_t pid;
	uint64_t args[8];
};

struct reply {
	int64_t value;
	int32_t error;
	uint32_t length;
};

/* One xc_interface, xenevtchn_handle, ...: each is a connection of its own. */
struct handle {
	pthread_mutex_t lock;
	int socket;
	int events;		/* what /dev/xen/evtchn would be, else -1 */
	uint32_t asks;		/* before local calls too: a fault may wait for one */
	char data[262144];	/* more than a reply can be */
};

#define ARGS(...) ((const uint64_t[8]){ __VA_ARGS__ })

static int take_fd(struct msghdr *message)
{
	struct cmsghdr *control = CMSG_FIRSTHDR(message);
	int fd = -1;

	if (control && control->cmsg_level == SOL_SOCKET && control->cmsg_type == SCM_RIGHTS)
		memcpy(&fd, CMSG_DATA(control), sizeof(fd));
	return fd;
}

static int64_t exchange(struct handle *handle, const struct request *request,
			const void *in, size_t in_length, void *out, int *fd)
{
	union {
		struct cmsghdr align;
		char bytes[CMSG_SPACE(sizeof(int))];
	} control;
	struct reply reply;
	struct iovec to[] = {
		{ (void *)request, sizeof(*request) }, { (void *)in, in_length }
	};
	struct iovec from[] = {
		{ &reply, sizeof(reply) }, { handle->data, sizeof(handle->data) }
	};
	struct msghdr sent = { .msg_iov = to, .msg_iovlen = 2 };
	struct msghdr received = { .msg_iov = from, .msg_iovlen = 2 };
	ssize_t length;
	int passed;

	do
		length = sendmsg(handle->socket, &sent, MSG_NOSIGNAL);
	while (length < 0 && errno == EINTR);
	if (length < 0)
		return -1;
	do {
		received.msg_control = control.bytes;
		received.msg_controllen = sizeof(control.bytes);
		length = recvmsg(handle->socket, &received, MSG_CMSG_CLOEXEC);
	} while (length < 0 && errno == EINTR);
	if (length < (ssize_t)sizeof(reply)) {
		if (length >= 0)
			errno = EPIPE;	/* the simulator is gone */
		return -1;
	}
	passed = take_fd(&received);
	if (fd)
		*fd = passed;
	else if (passed >= 0)
		close(passed);
	if (reply.length > (size_t)length - sizeof(reply)) {
		errno = EMSGSIZE;
		return -1;
	}
	if (out)
		memcpy(out, handle->data, reply.length);
	if (reply.error) {
		errno = reply.error;
		return -1;
	}
	return reply.value;
}

static int64_t call(struct handle *handle, const char *name, const uint64_t *args,
		    const void *in, size_t in_length, void *out, int *fd)
{
	struct request request = { .pid = getpid() };
	int64_t value;

	if (!handle) {
		errno = EBADF;
		return -1;
	}
	strncpy(request.name, name, sizeof(request.name) - 1);
	if (args)
		memcpy(request.args, args, sizeof(request.args));
	pthread_mutex_lock(&handle->lock);
	value = exchange(handle, &request, in, in_length, out, fd);
	pthread_mutex_unlock(&handle->lock);
	return value;
}

/* What a call that is none of the hypervisor's meets there all the same. */
static int local(struct handle *handle, const char *name)
{
	return handle->asks ? call(handle, name, NULL, NULL, 0, NULL, NULL) : 0;
}

static int close_handle(struct handle *handle, const char *name)
{
	int64_t value;

	if (!handle)
		return 0;
	value = call(handle, name, NULL, NULL, 0, NULL, NULL);
	close(handle->socket);
	if (handle->events >= 0)
		close(handle->events);
	free(handle);
	return value;
}

static struct handle *open_handle(const char *name)
{
	const char *path = getenv("XENINTRO_SIM_SOCKET");
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	struct handle *handle = calloc(1, sizeof(*handle));
	int saved;

	if (!handle)
		return NULL;
	pthread_mutex_init(&handle->lock, NULL);
	handle->events = -1;
	handle->socket = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
	errno = ENOENT;		/* as without /dev/xen/privcmd */
	if (handle->socket < 0 || !path || strlen(path) >= sizeof(address.sun_path))
		goto fail;
	strcpy(address.sun_path, path);
	if (connect(handle->socket, (struct sockaddr *)&address, sizeof(address)) < 0)
		goto fail;
	if (call(handle, name, NULL, NULL, 0, &handle->asks, &handle->events) < 0)
		goto fail;
	return handle;
fail:
	saved = errno;
	if (handle->socket >= 0)
		close(handle->socket);
	free(handle);
	errno = saved;
	return NULL;
}

/* Parameters and arguments after the handle, by number. */
#define P0
#define P1 , uint64_t a
#define P2 P1, uint64_t b
#define P3 P2, uint64_t c
#define P4 P3, uint64_t d
#define P6 P4, uint64_t e, uint64_t f
#define P7 P6, uint64_t g
#define A0 0
#define A1 a
#define A2 A1, b
#define A3 A2, c
#define A4 A3, d
#define A6 A4, e, f
#define A7 A6, g

#define OPEN(name) \
	EXPORT void *name(void) { return open_handle(#name); }
#define CLOSE(name) \
	EXPORT int name(void *handle) { return close_handle(handle, #name); }
/* int name(handle, integers...) */
#define CALL(n, name) \
	EXPORT int name(void *handle P##n) \
	{ return call(handle, #name, ARGS(A##n), NULL, 0, NULL, NULL); }
/* The same, where the last argument points to what the call fills in. */
#define FILL(n, name) \
	EXPORT int name(void *handle P##n, void *out) \
	{ return call(handle, #name, ARGS(A##n), NULL, 0, out, NULL); }
/* The same call under the name that Xen 4.6 gave it in libxenctrl. */
#define ALIAS(name, target) \
	EXPORT __typeof__(target) name __attribute__((alias(#target)))

OPEN(xc_interface_open)
CLOSE(xc_interface_close)
FILL(1, xc_version)
CALL(0, xc_vm_event_get_version)

CALL(1, xc_domain_pause)
CALL(1, xc_domain_unpause)
CALL(1, xc_domain_destroy)
CALL(2, xc_domain_shutdown)
FILL(2, xc_domain_getinfo)
FILL(2, xc_domain_getinfolist)
FILL(1, xc_domain_getinfo_single)
FILL(1, xc_domain_maximum_gpfn)
FILL(1, xc_domain_nr_gpfns)
CALL(2, xc_domain_set_access_required)
CALL(3, xc_domain_debug_control)
FILL(2, xc_vcpu_getinfo)
FILL(2, xc_hvm_param_get)
FILL(2, xc_get_hvm_param)
CALL(7, xc_hvm_inject_trap)

CALL(1, xc_monitor_disable)
CALL(1, xc_monitor_resume)
FILL(1, xc_monitor_get_capabilities)
CALL(6, xc_monitor_write_ctrlreg)
CALL(4, xc_monitor_mov_to_msr)
CALL(2, xc_monitor_singlestep)
CALL(2, xc_monitor_software_breakpoint)
CALL(2, xc_monitor_descriptor_access)
CALL(4, xc_monitor_guest_request)
CALL(2, xc_monitor_inguest_pagefault)
CALL(3, xc_monitor_debug_exceptions)
CALL(2, xc_monitor_cpuid)
CALL(2, xc_monitor_privileged_call)
CALL(2, xc_monitor_emul_unimplemented)
CALL(2, xc_monitor_emulate_each_rep)
CALL(3, xc_monitor_vmexit)
CALL(2, xc_monitor_io)

CALL(4, xc_set_mem_access)
FILL(2, xc_get_mem_access)
FILL(1, xc_altp2m_get_domain_state)
CALL(2, xc_altp2m_set_domain_state)
FILL(2, xc_altp2m_create_view)
CALL(2, xc_altp2m_destroy_view)
CALL(2, xc_altp2m_switch_to_view)
CALL(4, xc_altp2m_set_mem_access)
FILL(3, xc_altp2m_get_mem_access)
CALL(4, xc_altp2m_change_gfn)
FILL(2, xc_altp2m_get_vcpu_p2m_idx)
CALL(3, xc_altp2m_set_visibility)

OPEN(xenevtchn_open)
CLOSE(xenevtchn_close)
CALL(2, xenevtchn_bind_interdomain)
CALL(1, xenevtchn_unbind)
CALL(1, xenevtchn_notify)

OPEN(xendevicemodel_open)
CLOSE(xendevicemodel_close)
CALL(7, xendevicemodel_inject_event)

OPEN(xenforeignmemory_open)
CLOSE(xenforeignmemory_close)
OPEN(xencall_open)
CLOSE(xencall_close)

EXPORT int xenevtchn_fd(struct handle *handle)
{
	return handle->events;
}

/* read() and write() on the descriptor, as with /dev/xen/evtchn: programs do both. */
EXPORT int xenevtchn_pending(struct handle *handle)
{
	uint32_t port;

	if (local(handle, "xenevtchn_pending") < 0)
		return -1;
	return read(handle->events, &port, sizeof(port)) == sizeof(port) ? (int)port : -1;
}

EXPORT int xenevtchn_unmask(struct handle *handle, uint32_t port)
{
	if (local(handle, "xenevtchn_unmask") < 0)
		return -1;
	return write(handle->events, &port, sizeof(port)) == sizeof(port) ? 0 : -1;
}

ALIAS(xc_evtchn_open, xenevtchn_open);
ALIAS(xc_evtchn_close, xenevtchn_close);
ALIAS(xc_evtchn_fd, xenevtchn_fd);
ALIAS(xc_evtchn_bind_interdomain, xenevtchn_bind_interdomain);
ALIAS(xc_evtchn_unbind, xenevtchn_unbind);
ALIAS(xc_evtchn_notify, xenevtchn_notify);
ALIAS(xc_evtchn_pending, xenevtchn_pending);
ALIAS(xc_evtchn_unmask, xenevtchn_unmask);

/* A child does not inherit it: privcmd's mappings are VM_DONTCOPY. */
static void *map_frame(void *address, int prot, int flags, int fd, uint64_t frame)
{
	void *page = mmap(address, PAGE, prot, MAP_SHARED | flags, fd, frame * PAGE);

	if (page != MAP_FAILED)
		madvise(page, PAGE, MADV_DONTFORK);
	return page;
}

EXPORT void *xc_monitor_enable(void *handle, uint64_t domid, uint32_t *port)
{
	struct {
		uint64_t frame;
		uint32_t port;
	} made = { 0 };
	void *ring = MAP_FAILED;
	int64_t result;
	int fd = -1;

	if (!port) {
		errno = EINVAL;
		return NULL;
	}
	result = call(handle, "xc_monitor_enable", ARGS(domid), NULL, 0, &made, &fd);
	*port = made.port;	/* libxc can fail after Xen has made the ring */
	if (result < 0)
		return NULL;
	if (fd >= 0) {
		ring = map_frame(NULL, PROT_READ | PROT_WRITE, 0, fd, made.frame);
		close(fd);
	}
	return ring == MAP_FAILED ? NULL : ring;
}

#define MULTI_MOST 16384	/* what fits a packet */

/* args: the integer arguments but for the count, which comes last, as argument number n. */
static int set_multi(void *handle, const char *name, uint64_t *args, int n,
		     const uint8_t *access, const uint64_t *gfns, uint32_t count)
{
	char *in = malloc(MULTI_MOST * (sizeof(*gfns) + sizeof(*access)));
	int result = in ? 0 : -1;

	while (result == 0 && count) {
		uint32_t some = count < MULTI_MOST ? count : MULTI_MOST;

		memcpy(in, gfns, some * sizeof(*gfns));
		memcpy(in + some * sizeof(*gfns), access, some);
		args[n] = some;
		result = call(handle, name, args, in, some * (sizeof(*gfns) + sizeof(*access)),
			      NULL, NULL);
		gfns += some;
		access += some;
		count -= some;
	}
	free(in);
	return result;
}

EXPORT int xc_set_mem_access_multi(void *handle, uint64_t domid, uint8_t *access,
				   uint64_t *pages, uint32_t count)
{
	uint64_t args[8] = { domid };

	return set_multi(handle, "xc_set_mem_access_multi", args, 1, access, pages, count);
}

EXPORT int xc_altp2m_set_mem_access_multi(void *handle, uint64_t domid, uint64_t view,
					  uint8_t *access, uint64_t *gfns, uint32_t count)
{
	uint64_t args[8] = { domid, view };

	return set_multi(handle, "xc_altp2m_set_mem_access_multi", args, 2, access, gfns, count);
}

EXPORT int xc_domain_populate_physmap_exact(void *handle, uint32_t domid, unsigned long count,
					    unsigned int order, unsigned int flags,
					    uint64_t *gfns)
{
	return call(handle, "xc_domain_populate_physmap_exact", ARGS(domid, count, order, flags),
		    gfns, count * sizeof(*gfns), NULL, NULL);
}

/* Pages that cannot be mapped are told in errors; without errors, one spoils them all. */
EXPORT void *xenforeignmemory_map2(void *handle, uint32_t domid, void *address, int prot,
				   int flags, size_t pages, const uint64_t *gfns, int *errors)
{
	int64_t *frames = calloc(pages + 1, sizeof(*frames));
	char *area = MAP_FAILED;
	int fd = -1, saved;
	size_t i;

	(void)flags;
	if (!frames || call(handle, "xenforeignmemory_map", ARGS(domid, pages), gfns,
			    pages * sizeof(*gfns), frames, &fd) < 0)
		goto out;
	area = mmap(address, pages * PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	for (i = 0; area != MAP_FAILED && i < pages; i++) {
		int error = frames[i] < 0 ? -frames[i] : 0;

		if (!error && map_frame(area + i * PAGE, prot, MAP_FIXED, fd, frames[i]) == MAP_FAILED)
			error = errno;
		if (errors)
			errors[i] = -error;
		else if (error) {
			munmap(area, pages * PAGE);
			area = MAP_FAILED;
			errno = error;
		}
	}
out:
	saved = errno;
	if (fd >= 0)
		close(fd);
	free(frames);
	errno = saved;
	return area == MAP_FAILED ? NULL : area;
}

EXPORT void *xenforeignmemory_map(void *handle, uint32_t domid, int prot, size_t pages,
				  const uint64_t *gfns, int *errors)
{
	return xenforeignmemory_map2(handle, domid, NULL, prot, 0, pages, gfns, errors);
}

EXPORT int xenforeignmemory_unmap(void *handle, void *address, size_t pages)
{
	if (local(handle, "xenforeignmemory_unmap") < 0)
		return -1;
	return munmap(address, pages * PAGE);
}

EXPORT void *xc_map_foreign_pages(void *handle, uint32_t domid, int prot,
				  const uint64_t *gfns, int count)
{
	return xenforeignmemory_map2(handle, domid, NULL, prot, 0, count, gfns, NULL);
}

EXPORT void *xc_map_foreign_bulk(void *handle, uint32_t domid, int prot,
				 const uint64_t *gfns, int *errors, unsigned int count)
{
	return xenforeignmemory_map2(handle, domid, NULL, prot, 0, count, gfns, errors);
}

EXPORT void *xc_map_foreign_range(void *handle, uint32_t domid, int size, int prot,
				  unsigned long gfn)
{
	size_t i, pages = (size + PAGE - 1) / PAGE;
	uint64_t *gfns = calloc(pages + 1, sizeof(*gfns));
	void *area = NULL;

	if (gfns) {
		for (i = 0; i < pages; i++)
			gfns[i] = gfn + i;
		area = xc_map_foreign_pages(handle, domid, prot, gfns, pages);
		free(gfns);
	}
	return area;
}

EXPORT void *xencall_alloc_buffer(void *handle, size_t size)
{
	(void)handle;
	return calloc(1, size);
}

EXPORT void xencall_free_buffer(void *handle, void *buffer)
{
	(void)handle;
	free(buffer);
}

/* The one hypercall that a monitor needs and libxc does not wrap is a domctl. */
EXPORT int xencall1(void *handle, unsigned int op, uint64_t argument)
{
	void *buffer = (void *)(uintptr_t)argument;
	size_t length = op == HYPERVISOR_DOMCTL ? DOMCTL_BYTES : 0;

	return call(handle, "xencall1", ARGS(op, argument), buffer, length, buffer, NULL);
}

/* libxc's record of the last error; errno says it all here. */
static const struct xc_error {
	int code;
	char message[1024];
} no_error;

EXPORT const struct xc_error *xc_get_last_error(void *handle)
{
	(void)handle;
	return &no_error;
}

EXPORT void xc_clear_last_error(void *handle)
{
	(void)handle;
}

EXPORT const char *xc_error_code_to_desc(int code)
{
	(void)code;
	return "Error";
}

/* A logger is only ever handed back to xtl_logger_destroy: nothing here logs. */
EXPORT void *xtl_createlogger_stdiostream(void)
{
	return calloc(1, 64);
}

EXPORT void xtl_logger_destroy(void *logger)
{
	free(logger);
}
