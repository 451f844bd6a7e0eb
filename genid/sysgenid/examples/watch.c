/* SPDX-License-Identifier: Apache-2.0 */
/* Watches /dev/sysgenid, or the path given: cc -I.. -o watch watch.c */
#include <stdio.h>

#include "sysgenid.h"

int main(int argc, char **argv)
{
	struct sysgenid s;
	uint32_t generation;

	if (sysgenid_open(&s, argc > 1 ? argv[1] : SYSGENID_PATH) || sysgenid_track(&s, 1)) {
		perror("sysgenid");
		return 1;
	}
	setvbuf(stdout, 0, _IOLBF, 0);
	printf("watching, generation %u\n", (unsigned)sysgenid_generation(&s));
	while (sysgenid_wait(&s, &generation) == 0) {
		/* here: new keys, new seeds, new identifiers */
		if (sysgenid_ack(&s, generation) == 0)
			printf("adjusted to generation %u\n", (unsigned)generation);
		else if (errno != EINVAL) /* EINVAL: again, with a newer one */
			break;
	}
	perror("sysgenid");
	return 1;
}
