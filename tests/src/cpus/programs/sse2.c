/* Nothing but what every x86-64 has: SSE2, with a register that lives across the freeze. */
#include "beat.h"
#include <string.h>

int main(void)
{
	static unsigned char before[16], after[16];
	unsigned char round = 0;

	do {
		memset(before, ++round, sizeof before);
		ACROSS_A_SLEEP("movdqu (%3), %%xmm15", "movdqu %%xmm15, (%4)", before, after);
		if (memcmp(before, after, sizeof before))
			return WRONG;
		asm volatile("movdqu %0, %%xmm0; paddb %%xmm0, %%xmm0; movdqu %%xmm0, %0" : "+m"(after) : : "xmm0");
		if (after[5] != (unsigned char)(2 * round))
			return WRONG;
	} while (beat());
	return RIGHT;
}
