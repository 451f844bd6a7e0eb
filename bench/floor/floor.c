/* The least that the kernel can be asked for where a phase of a quiesce or a resume asks it for something: bare
 * system calls with prepared bytes, nothing looked at but what says that it worked.
 *
 *   floor CGROUP   says "ready"; for each line "N" of standard input does all steps N times, prints each one's median in ns,
 *                  then "done"
 *
 * Run in the namespaces, and with the cgroup of services, of the worker that it is compared with. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/inet_diag.h>
#include <linux/netfilter.h>
#include <linux/netfilter_arp.h>
#include <linux/netfilter/nf_tables.h>
#include <linux/netfilter/nfnetlink.h>
#include <linux/netlink.h>
#include <linux/netlink_diag.h>
#include <linux/packet_diag.h>
#include <linux/rtnetlink.h>
#include <linux/sock_diag.h>
#include <linux/unix_diag.h>
#include <net/ethernet.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

static int nft, diag, route, softnet, freezer, events;

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

/* The gate covers IP, ARP and bridged traffic: where it drops is what it costs the kernel to put there and to
 * take away, for it patches its own code for each such place. */
static const struct {
	int family, hook;
	const char *name;
} chains[] = {
	{NFPROTO_INET, NF_INET_PRE_ROUTING, "i"}, {NFPROTO_INET, NF_INET_LOCAL_OUT, "o"}, {NFPROTO_INET, NF_INET_POST_ROUTING, "p"},
	{NFPROTO_ARP, NF_ARP_IN, "i"}, {NFPROTO_ARP, NF_ARP_OUT, "o"}, {NFPROTO_BRIDGE, NF_INET_FORWARD, "f"},
};
static const int families[] = {NFPROTO_INET, NFPROTO_ARP, NFPROTO_BRIDGE};
static int usable[256]; /* by family: whether the kernel has it */

static void table(int type, int flags, int family)
{
	begin(nft_type(type), flags, family);
	string(NFTA_TABLE_NAME, "floor");
}

static void tables(int type, int flags)
{
	for (unsigned i = 0; i < sizeof families / sizeof *families; i++)
		if (usable[families[i]])
			table(type, flags, families[i]);
}

static void chain(int family, const char *name, int hook, int policy, int new)
{
	begin(nft_type(NFT_MSG_NEWCHAIN), NLM_F_CREATE, family);
	string(NFTA_CHAIN_TABLE, "floor");
	string(NFTA_CHAIN_NAME, name);
	if (new) {
		nest = used;
		attribute(NFTA_CHAIN_HOOK | NLA_F_NESTED, "", 0);
		be32(NFTA_HOOK_HOOKNUM, hook);
		be32(NFTA_HOOK_PRIORITY, 0);
		((struct nlattr *)(batch + nest))->nla_len = used - nest;
		string(NFTA_CHAIN_TYPE, "filter");
	}
	be32(NFTA_CHAIN_POLICY, policy);
}

static void all_chains(int policy, int new)
{
	for (unsigned i = 0; i < sizeof chains / sizeof *chains; i++)
		if (usable[chains[i].family])
			chain(chains[i].family, chains[i].name, chains[i].hook, policy, new);
}

/* The last message but the end asks for an answer, which is there when send returns; it is the error. */
static int try(void)
{
	char answer[4096];
	struct nlmsghdr *h = (struct nlmsghdr *)answer;
	((struct nlmsghdr *)(batch + message))->nlmsg_flags |= NLM_F_ACK;
	begin(NFNL_MSG_BATCH_END, 0, AF_UNSPEC);
	if (send(nft, batch, used, 0) != used || recv(nft, answer, sizeof answer, 0) < (int)sizeof *h)
		fail("netfilter");
	errno = h->nlmsg_type == NLMSG_ERROR ? -((struct nlmsgerr *)NLMSG_DATA(h))->error : EPROTO;
	return errno;
}

static void commit(void)
{
	if (try())
		fail("nftables batch");
}

static void start(void)
{
	used = 0;
	begin(NFNL_MSG_BATCH_BEGIN, 0, AF_UNSPEC);
}

/* Tables whose chains drop: loopback too, which nothing here uses meanwhile. */
static void shut(void)
{
	start();
	tables(NFT_MSG_NEWTABLE, NLM_F_CREATE);
	all_chains(NF_DROP, 1);
	commit();
}

/* From here all goes through. */
static void open_gate(void)
{
	start();
	all_chains(NF_ACCEPT, 0);
	commit();
}

/* Nothing is left. */
static void clear(void)
{
	start();
	tables(NFT_MSG_DELTABLE, 0);
	commit();
}

static void probe(int family)
{
	usable[family] = 1;
	start();
	table(NFT_MSG_NEWTABLE, NLM_F_CREATE, family);
	if (try() == 0) {
		start();
		table(NFT_MSG_DELTABLE, 0, family);
		commit();
	} else if (family == NFPROTO_INET) {
		fail("nftables");
	} else {
		usable[family] = 0;
	}
}

static void dump_from(int from, int type, const void *request, int length)
{
	static char answer[65536];
	struct {
		struct nlmsghdr h;
		char body[128];
	} m = {.h = {.nlmsg_len = NLMSG_HDRLEN + length, .nlmsg_type = type, .nlmsg_flags = NLM_F_REQUEST | NLM_F_DUMP}};
	memcpy(m.body, request, length);
	if (send(from, &m, m.h.nlmsg_len, 0) < 0)
		fail("sock_diag");
	for (;;) {
		int n = recv(from, answer, sizeof answer, 0);
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

static void dump(int type, const void *request, int length) { dump_from(diag, type, request, length); }

enum { ESTABLISHED = 1 << 1, TIME_WAIT = 1 << 6, CLOSE = 1 << 7, LISTEN = 1 << 10, STATES = 0x1fff };

/* The kernel's filter for far ends that are not loopback, of IPv4 and then of IPv6: a condition that leads to a jump
 * past the end, which rejects. */
static const struct filter {
	struct nlattr attribute;
	struct inet_diag_bc_op if4;
	struct inet_diag_hostcond on4;
	unsigned char net[4];
	struct inet_diag_bc_op out4, if6;
	struct inet_diag_hostcond on6;
	unsigned char host[16];
	struct inet_diag_bc_op out6;
} away = {
	{sizeof away, INET_DIAG_REQ_BYTECODE},
	{INET_DIAG_BC_D_COND, 16, 20}, {.family = AF_INET, .prefix_len = 8, .port = -1}, {127},
	{INET_DIAG_BC_JMP, 4, 40}, {INET_DIAG_BC_D_COND, 28, 32}, {.family = AF_INET6, .prefix_len = 128, .port = -1}, {[15] = 1},
	{INET_DIAG_BC_JMP, 4, 8},
};

/* TCP of both families. */
static void tcp(int states, const struct filter *f)
{
	struct {
		struct inet_diag_req r;
		struct filter f;
	} m = {.r = {.idiag_states = states}};
	if (f)
		m.f = *f;
	dump(TCPDIAG_GETSOCK, &m, f ? sizeof m : sizeof m.r);
}

static void udp(int family, int states, const struct filter *f)
{
	struct {
		struct inet_diag_req_v2 r;
		struct filter f;
	} m = {.r = {.sdiag_family = family, .sdiag_protocol = IPPROTO_UDP, .idiag_states = states}};
	if (f)
		m.f = *f;
	dump(SOCK_DIAG_BY_FAMILY, &m, f ? sizeof m : sizeof m.r);
}

/* All that can hold something: connections, datagrams, unix, packet and netlink sockets, devices' queues and
 * processors' backlogs. */
static void drain(void)
{
	char text[4096];
	struct tcmsg queues = {0};
	struct unix_diag_req un = {.sdiag_family = AF_UNIX, .udiag_states = -1, .udiag_show = UDIAG_SHOW_RQLEN};
	struct packet_diag_req packet = {.sdiag_family = AF_PACKET, .pdiag_show = PACKET_SHOW_MEMINFO};
	struct netlink_diag_req netlink = {.sdiag_family = AF_NETLINK, .sdiag_protocol = NDIAG_PROTO_ALL, .ndiag_show = NDIAG_SHOW_MEMINFO};
	dump_from(route, RTM_GETQDISC, &queues, sizeof queues);
	if (pread(softnet, text, sizeof text, 0) < 0)
		fail("softnet_stat");
	tcp(STATES & ~(TIME_WAIT | CLOSE), NULL);
	udp(AF_INET, ESTABLISHED | CLOSE, NULL);
	udp(AF_INET6, ESTABLISHED | CLOSE, NULL);
	dump(SOCK_DIAG_BY_FAMILY, &packet, sizeof packet);
	dump(SOCK_DIAG_BY_FAMILY, &netlink, sizeof netlink);
	dump(SOCK_DIAG_BY_FAMILY, &un, sizeof un);
}

/* Connections to elsewhere. */
static void sever(void)
{
	tcp(STATES & ~(LISTEN | CLOSE), &away);
	udp(AF_INET, ESTABLISHED, &away);
	udp(AF_INET6, ESTABLISHED, &away);
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

/* The proof that all were stopped where they slept: the place of each thread and how often it ran, before and after, and
 * in between that none has run; and a list of processes, among which no other of theirs may be. */
static struct thread {
	int tid, call, runs;
	char where[256], ran[64];
} threads[1024];
static int nthreads;
static char lists[1024][128];
static int nlists;

static void must(int ok, const char *what)
{
	if (!ok)
		fail(what);
}

static int text(int fd, char *p, int size)
{
	int n = pread(fd, p, size - 1, 0);
	must(n >= 0, "read");
	p[n] = 0;
	return n;
}

static int task(int tid, const char *file)
{
	char path[64];
	snprintf(path, sizeof path, "/proc/%d/%s", tid, file);
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	must(fd >= 0, path);
	return fd;
}

static void each_thread(void (*does)(int))
{
	char list[4096];
	for (int i = 0; i < nlists; i++) {
		int fd = open(lists[i], O_RDONLY | O_CLOEXEC);
		must(fd >= 0, lists[i]);
		text(fd, list, sizeof list);
		close(fd);
		for (char *p = list; *p; p = strchr(p, '\n') + 1)
			does(atoi(p));
	}
}

static void watch(int tid)
{
	struct thread *t = &threads[nthreads++];
	must(nthreads <= 1024, "threads");
	*t = (struct thread){.tid = tid, .call = task(tid, "syscall"), .runs = task(tid, "schedstat")};
	text(t->call, t->where, sizeof t->where);
	text(t->runs, t->ran, sizeof t->ran);
}

static void stopped(int tid)
{
	char where[256], ran[64];
	for (int i = 0; i < nthreads; i++)
		if (threads[i].tid == tid) {
			text(threads[i].call, where, sizeof where);
			text(threads[i].runs, ran, sizeof ran);
			must(!strcmp(where, threads[i].where), "another place");
			return;
		}
	must(0, "another thread");
}

static void processes(void)
{
	char names[32768];
	int fd = open("/proc", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	must(fd >= 0, "/proc");
	while (syscall(SYS_getdents64, fd, names, sizeof names) > 0)
		;
	close(fd);
}

static void freeze(void)
{
	char ran[64];
	nthreads = 0;
	each_thread(watch);
	for (int i = 0; i < nthreads; i++)
		text(threads[i].runs, ran, sizeof ran);
	frozen("1", "frozen 1");
	each_thread(stopped);
	for (int i = 0; i < nthreads; i++) {
		close(threads[i].call);
		close(threads[i].runs);
	}
	processes();
}

static void thaw(void) { frozen("0", "frozen 0"); }

static const struct {
	const char *name;
	void (*does)(void);
} steps[] = {
	{"drain", drain}, {"shut", shut}, {"barrier", barrier}, {"freeze", freeze}, {"sever", sever}, {"thaw", thaw}, {"open", open_gate},
	{"clear", clear},
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

static void find_services(const char *cgroup)
{
	struct dirent *e;
	DIR *d = opendir(cgroup);
	must(d != NULL, cgroup);
	while ((e = readdir(d)))
		if (e->d_type == DT_DIR && e->d_name[0] != '.' && nlists < 1024)
			snprintf(lists[nlists++], sizeof *lists, "%.60s/%.40s/cgroup.threads", cgroup, e->d_name);
	closedir(d);
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
	route = netlink(NETLINK_ROUTE);
	softnet = file("/proc/net", "softnet_stat", O_RDONLY);
	find_services(argv[1]);
	for (unsigned i = 0; i < sizeof families / sizeof *families; i++)
		probe(families[i]);
	printf("ready\n");
	fflush(stdout);
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
