/* The least that the kernel can be asked for where a phase of a quiesce or a resume asks it for something: bare
 * system calls with prepared bytes, nothing looked at but what says that it worked.
 *
 *   floor CGROUP   for each line "N" of standard input does all steps N times, prints each one's median in ns,
 *                  then "done"
 *
 * Run in the network namespace, and with the cgroup of services, of the worker that it is compared with. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/inet_diag.h>
#include <linux/netfilter.h>
#include <linux/netfilter/nf_tables.h>
#include <linux/netfilter/nfnetlink.h>
#include <linux/netlink.h>
#include <linux/sock_diag.h>
#include <linux/unix_diag.h>
#include <net/ethernet.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

static int nft, diag, freezer, events;

static void fail(const char *what)
{
	perror(what);
	exit(1);
}

/* One batch of messages, as netlink wants them: lengths are filled in when something ends. */
static char batch[4096];
static int used, message, nest;

static void begin(int type, int flags, int family)
{
	struct nlmsghdr h = {.nlmsg_type = type, .nlmsg_flags = NLM_F_REQUEST | flags};
	struct nfgenmsg g = {.nfgen_family = family, .res_id = htons(type < NLMSG_MIN_TYPE + 2 ? NFNL_SUBSYS_NFTABLES : 0)};
	message = used;
	memcpy(batch + used, &h, sizeof h);
	memcpy(batch + used + sizeof h, &g, sizeof g);
	used += sizeof h + sizeof g;
	((struct nlmsghdr *)(batch + message))->nlmsg_len = used - message;
}

static void attribute(int type, const void *value, int length)
{
	struct nlattr a = {.nla_len = NLA_HDRLEN + length, .nla_type = type};
	memcpy(batch + used, &a, sizeof a);
	memset(batch + used + NLA_HDRLEN, 0, NLA_ALIGN(length));
	memcpy(batch + used + NLA_HDRLEN, value, length);
	used += NLA_HDRLEN + NLA_ALIGN(length);
	((struct nlmsghdr *)(batch + message))->nlmsg_len = used - message;
}

static void string(int type, const char *s) { attribute(type, s, strlen(s) + 1); }

static void be32(int type, uint32_t v)
{
	v = htonl(v);
	attribute(type, &v, 4);
}

static int nft_type(int type) { return NFNL_SUBSYS_NFTABLES << 8 | type; }

static void table(int type, int flags)
{
	begin(nft_type(type), flags, NFPROTO_INET);
	string(NFTA_TABLE_NAME, "floor");
}

static void chain(const char *name, int hook)
{
	begin(nft_type(NFT_MSG_NEWCHAIN), NLM_F_CREATE, NFPROTO_INET);
	string(NFTA_CHAIN_TABLE, "floor");
	string(NFTA_CHAIN_NAME, name);
	nest = used;
	attribute(NFTA_CHAIN_HOOK | NLA_F_NESTED, "", 0);
	be32(NFTA_HOOK_HOOKNUM, hook);
	be32(NFTA_HOOK_PRIORITY, 0);
	((struct nlattr *)(batch + nest))->nla_len = used - nest;
	be32(NFTA_CHAIN_POLICY, NF_DROP);
	string(NFTA_CHAIN_TYPE, "filter");
}

/* The last message but the end asks for an answer, which is there when send returns. */
static void commit(void)
{
	char answer[4096];
	struct nlmsghdr *h = (struct nlmsghdr *)answer;
	((struct nlmsghdr *)(batch + message))->nlmsg_flags |= NLM_F_ACK;
	begin(NFNL_MSG_BATCH_END, 0, AF_UNSPEC);
	if (send(nft, batch, used, 0) != used || recv(nft, answer, sizeof answer, 0) < (int)sizeof *h)
		fail("netfilter");
	if (h->nlmsg_type != NLMSG_ERROR || ((struct nlmsgerr *)NLMSG_DATA(h))->error) {
		errno = -((struct nlmsgerr *)NLMSG_DATA(h))->error;
		fail("nftables batch");
	}
}

/* A table for IPv4 and IPv6 whose chains drop: loopback too, which nothing here uses meanwhile. */
static void shut(void)
{
	used = 0;
	begin(NFNL_MSG_BATCH_BEGIN, 0, AF_UNSPEC);
	table(NFT_MSG_NEWTABLE, NLM_F_CREATE);
	chain("i", NF_INET_LOCAL_IN);
	chain("o", NF_INET_LOCAL_OUT);
	chain("f", NF_INET_FORWARD);
	commit();
}

static void open_gate(void)
{
	used = 0;
	begin(NFNL_MSG_BATCH_BEGIN, 0, AF_UNSPEC);
	table(NFT_MSG_DELTABLE, 0);
	commit();
}

static void dump(const void *request, int length)
{
	static char answer[65536];
	struct {
		struct nlmsghdr h;
		char body[128];
	} m = {.h = {.nlmsg_len = NLMSG_HDRLEN + length, .nlmsg_type = SOCK_DIAG_BY_FAMILY, .nlmsg_flags = NLM_F_REQUEST | NLM_F_DUMP}};
	memcpy(m.body, request, length);
	if (send(diag, &m, m.h.nlmsg_len, 0) < 0)
		fail("sock_diag");
	for (;;) {
		int n = recv(diag, answer, sizeof answer, 0);
		if (n <= 0)
			fail("sock_diag");
		for (struct nlmsghdr *h = (struct nlmsghdr *)answer; NLMSG_OK(h, (unsigned)n); h = NLMSG_NEXT(h, n)) {
			if (h->nlmsg_type == NLMSG_DONE)
				return;
			if (h->nlmsg_type == NLMSG_ERROR)
				fail("sock_diag answer");
		}
	}
}

/* TCP and unix sockets in all states that can hold something: not in TIME_WAIT, not closed. */
static void look(void)
{
	struct inet_diag_req_v2 tcp = {.sdiag_family = AF_INET, .sdiag_protocol = IPPROTO_TCP, .idiag_states = 0xfff & ~(1 << 6 | 1 << 7)};
	struct unix_diag_req un = {.sdiag_family = AF_UNIX, .udiag_states = -1, .udiag_show = UDIAG_SHOW_RQLEN};
	dump(&tcp, sizeof tcp);
	dump(&un, sizeof un);
}

static void barrier(void)
{
	int fd = socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC, htons(ETH_P_ALL));
	if (fd < 0 || close(fd))
		fail("packet socket");
}

static void frozen(const char *value, const char *want)
{
	char text[256];
	struct pollfd p = {.fd = events, .events = POLLPRI};
	struct timespec soon = {.tv_nsec = 20000};
	if (pwrite(freezer, value, 1, 0) != 1)
		fail("cgroup.freeze");
	for (;;) {
		int n = pread(events, text, sizeof text - 1, 0);
		if (n < 0)
			fail("cgroup.events");
		text[n] = 0;
		if (strstr(text, want))
			return;
		ppoll(&p, 1, &soon, NULL);
	}
}

static void freeze(void) { frozen("1", "frozen 1"); }
static void thaw(void) { frozen("0", "frozen 0"); }

static const struct {
	const char *name;
	void (*does)(void);
} steps[] = {
	{"drain", look}, {"shut", shut}, {"barrier", barrier}, {"freeze", freeze}, {"sever", look}, {"thaw", thaw}, {"open", open_gate},
};
enum { STEPS = sizeof steps / sizeof *steps };

static long long now(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1000000000LL + t.tv_nsec;
}

static int compare(const void *a, const void *b)
{
	long long x = *(const long long *)a, y = *(const long long *)b;
	return (x > y) - (x < y);
}

static int netlink(int protocol)
{
	int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, protocol);
	if (fd < 0)
		fail("netlink");
	return fd;
}

static int file(const char *dir, const char *name, int flags)
{
	char path[4096];
	snprintf(path, sizeof path, "%s/%s", dir, name);
	int fd = open(path, flags | O_CLOEXEC);
	if (fd < 0)
		fail(path);
	return fd;
}

int main(int argc, char **argv)
{
	char line[32];
	if (argc != 2)
		return 2;
	freezer = file(argv[1], "cgroup.freeze", O_RDWR);
	events = file(argv[1], "cgroup.events", O_RDONLY);
	nft = netlink(NETLINK_NETFILTER);
	diag = netlink(NETLINK_SOCK_DIAG);
	while (fgets(line, sizeof line, stdin)) {
		int n = atoi(line);
		long long *took = calloc(n * STEPS, sizeof *took);
		for (int i = 0; i < n; i++)
			for (int s = 0; s < STEPS; s++) {
				long long began = now();
				steps[s].does();
				took[s * n + i] = now() - began;
			}
		for (int s = 0; s < STEPS; s++) {
			qsort(took + s * n, n, sizeof *took, compare);
			printf("%s\t%lld\n", steps[s].name, took[s * n + n / 2]);
		}
		free(took);
		printf("done\n");
		fflush(stdout);
	}
	return 0;
}
