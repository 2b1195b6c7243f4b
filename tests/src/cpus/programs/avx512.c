/* AVX-512 where the CPU shows it, with a register and a mask that live across the freeze. */
#include "beat.h"
#include <string.h>

int main(void)
{
	static unsigned char before[64], after[64];
	unsigned char round = 0;

	if (!__builtin_cpu_supports("avx512f"))
		return LACKS;
	do {
		memset(before, ++round, sizeof before);
		/* The mask lets all sixteen words through, unless it was lost. */
		ACROSS_A_SLEEP("vmovdqu32 (%3), %%zmm31; kxnorw %%k1, %%k1, %%k1", "vmovdqu32 %%zmm31, (%4)%{%%k1%}", before,
			       after);
		if (memcmp(before, after, sizeof before))
			return WRONG;
		asm volatile("vmovdqu32 %0, %%zmm16; vpaddd %%zmm16, %%zmm16, %%zmm16; vmovdqu32 %%zmm16, %0" : "+m"(after));
		if (after[48] != (unsigned char)(2 * round))
			return WRONG;
	} while (beat());
	return RIGHT;
}
