/* Frozen inside of a signal handler, while the kernel's copy of the widest registers that the CPU shows lies on the stack: a copy
 * that CRIU does not know of, laid out and sized as this CPU wants it. */
#include "beat.h"
#include <signal.h>
#include <string.h>

static void handle(int signal)
{
	(void)signal;
	do
		nanosleep(&PAUSE, 0);
	while (beat());
}

#define ACROSS_A_SIGNAL(set, get)                                                                                   \
	do {                                                                                                        \
		long number = SYS_kill;                                                                             \
		asm volatile(set "\n\tsyscall\n\t" get                                                             \
			     : "+a"(number)                                                                         \
			     : "D"(getpid()), "S"(SIGUSR1), "r"(before), "r"(after)                                 \
			     : "rcx", "r11", "memory");                                                             \
	} while (0)

int main(void)
{
	static unsigned char before[64], after[64];
	size_t width = 16;

	memset(before, 0x5a, sizeof before);
	signal(SIGUSR1, handle);
	if (__builtin_cpu_supports("avx512f")) {
		width = 64;
		ACROSS_A_SIGNAL("vmovdqu32 (%3), %%zmm31", "vmovdqu32 %%zmm31, (%4)");
	} else if (__builtin_cpu_supports("avx")) {
		width = 32;
		ACROSS_A_SIGNAL("vmovdqu (%3), %%ymm15", "vmovdqu %%ymm15, (%4); vzeroupper");
	} else {
		ACROSS_A_SIGNAL("movdqu (%3), %%xmm15", "movdqu %%xmm15, (%4)");
	}
	return memcmp(before, after, width) ? WRONG : RIGHT;
}
