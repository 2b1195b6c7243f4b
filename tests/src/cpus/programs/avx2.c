/* AVX2 where the CPU shows it, with a register that lives across the freeze. */
#include "beat.h"
#include <string.h>

int main(void)
{
	static unsigned char before[32], after[32];
	unsigned char round = 0;

	if (!__builtin_cpu_supports("avx2"))
		return LACKS;
	do {
		memset(before, ++round, sizeof before);
		ACROSS_A_SLEEP("vmovdqu (%3), %%ymm15", "vmovdqu %%ymm15, (%4)", before, after);
		if (memcmp(before, after, sizeof before))
			return WRONG;
		asm volatile("vmovdqu %0, %%ymm0; vpaddb %%ymm0, %%ymm0, %%ymm0; vmovdqu %%ymm0, %0; vzeroupper"
			     : "+m"(after));
		if (after[25] != (unsigned char)(2 * round))
			return WRONG;
	} while (beat());
	return RIGHT;
}
