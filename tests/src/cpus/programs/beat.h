/* What the programs of the matrix have in common: a line for each beat, and an end some beats after there is a file /go. */
#include <stdio.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

/* Right to the end; its own result is wrong; this CPU has not what the program is about. */
enum { RIGHT = 7, WRONG = 8, LACKS = 9 };

static const struct timespec PAUSE = { .tv_nsec = 20 * 1000 * 1000 };

/* Says that one more piece of work was right; whether to go on. The first beats after the freeze may have begun before it. */
static int beat(void)
{
	static unsigned beats, left = 3;
	char line[32];
	int length = snprintf(line, sizeof line, "tick %u\n", ++beats);

	if (access("/go", F_OK) == 0 && !left--)
		return 0;
	return write(1, line, length) == length;
}

/* Does `set`, sleeps in the kernel with the registers as they are then, and does `get`: in one statement, so that nothing
 * comes between. Where the program is frozen, it is frozen there. */
#define ACROSS_A_SLEEP(set, get, from, into)                                                                        \
	do {                                                                                                        \
		long number = SYS_nanosleep;                                                                        \
		asm volatile(set "\n\tsyscall\n\t" get                                                             \
			     : "+a"(number)                                                                         \
			     : "D"(&PAUSE), "S"(0), "r"(from), "r"(into)                                            \
			     : "rcx", "r11", "memory");                                                             \
	} while (0)
