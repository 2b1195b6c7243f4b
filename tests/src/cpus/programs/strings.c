/* glibc's string functions, chosen by ld.so for the CPU of the start, and no instruction of our own choosing. */
#define _GNU_SOURCE
#include "beat.h"
#include <string.h>
#include <strings.h>
#include <wchar.h>

static char a[70000], b[70000];

static int works(size_t n)
{
	memset(a, 'x', n);
	a[n] = 0;
	memset(b, 0, n + 1);
	memcpy(b, a, n + 1);
	if (strlen(b) != n || strnlen(b, n + 9) != n || memcmp(a, b, n) || strcmp(a, b) || strncmp(a, b, n))
		return 0;
	if (strcasecmp(a, b) || (char *)rawmemchr(b, 0) != b + n || strchr(b, 'y') || strrchr(b, 'y'))
		return 0;
	if (n > 2) {
		b[n - 2] = 'y';
		if (memchr(b, 'y', n) != b + n - 2 || memrchr(b, 'y', n) != b + n - 2 || strchr(b, 'y') != b + n - 2)
			return 0;
		if (strpbrk(b, "zy") != b + n - 2 || strstr(b, "yx") != b + n - 2 || strcspn(b, "y") != n - 2)
			return 0;
		memmove(b + 1, b, n - 1);
		if (b[n - 1] != 'y' || wmemset((wchar_t *)b, L'w', n / sizeof(wchar_t))[0] != L'w')
			return 0;
	}
	strcpy(b, a);
	return !strcmp(stpcpy(b, a) - n, a);
}

int main(void)
{
	do {
		for (size_t n = 0; n < 300; n += 7)
			if (!works(n))
				return WRONG;
		if (!works(5000) || !works(sizeof a - 1))
			return WRONG;
		nanosleep(&PAUSE, 0);
	} while (beat());
	return RIGHT;
}
