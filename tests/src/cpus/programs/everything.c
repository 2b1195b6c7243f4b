/* Each instruction that the CPU of the start shows, once a beat: what a job could have used.
 *
 * The list is written from the manuals and knows nothing of the fingerprint's; names are those of /proc/cpuinfo. Called with
 * "list" it prints the names. Hints are used on every CPU, for they do nothing where they are unknown. */
#include "beat.h"
#include <cpuid.h>
#include <string.h>

__attribute__((aligned(64), used)) unsigned char scratch[16384];

/* State that must be on, as bits of XCR0. */
enum { NONE = 0, XSAVE = 3, AVX = 7, AVX512 = 0xe7, PKU = 1 << 9, AMX = 3 << 17 };
enum { EAX, EBX, ECX, EDX };

#define FEATURES(F)                                                                                                 \
	F(pni, 1, 0, ECX, 0, NONE, "haddps %xmm0, %xmm0")                                                           \
	F(pclmulqdq, 1, 0, ECX, 1, NONE, "pclmulqdq $0, %xmm0, %xmm1")                                              \
	F(ssse3, 1, 0, ECX, 9, NONE, "pabsb %xmm0, %xmm1")                                                          \
	F(fma, 1, 0, ECX, 12, AVX, "vfmadd231ps %ymm0, %ymm1, %ymm2")                                               \
	F(cx16, 1, 0, ECX, 13, NONE, "push %rbx; lock cmpxchg16b scratch(%rip); pop %rbx")                          \
	F(sse4_1, 1, 0, ECX, 19, NONE, "pmulld %xmm0, %xmm1")                                                       \
	F(sse4_2, 1, 0, ECX, 20, NONE, "pcmpgtq %xmm0, %xmm1")                                                      \
	F(movbe, 1, 0, ECX, 22, NONE, "movbe scratch(%rip), %eax")                                                  \
	F(popcnt, 1, 0, ECX, 23, NONE, "popcnt %rax, %rax")                                                         \
	F(aes, 1, 0, ECX, 25, NONE, "aesenc %xmm0, %xmm1")                                                          \
	F(xsave, 1, 0, ECX, 27, XSAVE, "xor %ecx, %ecx; xgetbv")                                                    \
	F(avx, 1, 0, ECX, 28, AVX, "vaddps %ymm0, %ymm1, %ymm2")                                                    \
	F(f16c, 1, 0, ECX, 29, AVX, "vcvtph2ps %xmm0, %ymm1")                                                       \
	F(rdrand, 1, 0, ECX, 30, NONE, "rdrand %rax")                                                               \
	F(bmi1, 7, 0, EBX, 3, NONE, "andn %rax, %rcx, %rdx; xor %eax, %eax; tzcnt %rax, %rax; cmp $64, %rax; jne wrong")   \
	F(avx2, 7, 0, EBX, 5, AVX, "vpaddb %ymm0, %ymm1, %ymm2")                                                    \
	F(bmi2, 7, 0, EBX, 8, NONE, "pdep %rax, %rcx, %rdx")                                                        \
	F(rtm, 7, 0, EBX, 11, NONE, "xtest")                                                                        \
	F(avx512f, 7, 0, EBX, 16, AVX512, "vpaddd %zmm16, %zmm17, %zmm18")                                          \
	F(avx512dq, 7, 0, EBX, 17, AVX512, "vpmullq %zmm16, %zmm17, %zmm18")                                        \
	F(rdseed, 7, 0, EBX, 18, NONE, "rdseed %rax")                                                               \
	F(adx, 7, 0, EBX, 19, NONE, "adcx %rax, %rcx")                                                              \
	F(avx512ifma, 7, 0, EBX, 21, AVX512, "vpmadd52luq %zmm16, %zmm17, %zmm18")                                  \
	F(clflushopt, 7, 0, EBX, 23, NONE, "clflushopt scratch(%rip)")                                              \
	F(clwb, 7, 0, EBX, 24, NONE, "clwb scratch(%rip)")                                                          \
	F(avx512cd, 7, 0, EBX, 28, AVX512, "vpconflictd %zmm16, %zmm17")                                            \
	F(sha_ni, 7, 0, EBX, 29, NONE, "sha1msg1 %xmm0, %xmm1")                                                     \
	F(avx512bw, 7, 0, EBX, 30, AVX512, "vpaddb %zmm16, %zmm17, %zmm18")                                         \
	F(avx512vl, 7, 0, EBX, 31, AVX512, "vpaddd %ymm16, %ymm17, %ymm18")                                         \
	F(avx512vbmi, 7, 0, ECX, 1, AVX512, "vpermb %zmm16, %zmm17, %zmm18")                                        \
	F(pku, 7, 0, ECX, 4, PKU, "xor %ecx, %ecx; rdpkru")                                                         \
	F(avx512_vbmi2, 7, 0, ECX, 6, AVX512, "vpcompressb %zmm16, %zmm17")                                         \
	F(gfni, 7, 0, ECX, 8, NONE, "gf2p8mulb %xmm0, %xmm1")                                                       \
	F(vaes, 7, 0, ECX, 9, AVX, "vaesenc %ymm0, %ymm1, %ymm2")                                                   \
	F(vpclmulqdq, 7, 0, ECX, 10, AVX, "vpclmulqdq $0, %ymm0, %ymm1, %ymm2")                                     \
	F(avx512_vnni, 7, 0, ECX, 11, AVX512, "vpdpbusd %zmm16, %zmm17, %zmm18")                                    \
	F(avx512_bitalg, 7, 0, ECX, 12, AVX512, "vpopcntb %zmm16, %zmm17")                                          \
	F(avx512_vpopcntdq, 7, 0, ECX, 14, AVX512, "vpopcntd %zmm16, %zmm17")                                       \
	F(rdpid, 7, 0, ECX, 22, NONE, "rdpid %rax")                                                                 \
	F(movdiri, 7, 0, ECX, 27, NONE, "movdiri %rax, scratch(%rip)")                                              \
	F(movdir64b, 7, 0, ECX, 28, NONE, "lea scratch(%rip), %rax; movdir64b 64+scratch(%rip), %rax")              \
	F(serialize, 7, 0, EDX, 14, NONE, "serialize")                                                              \
	F(avx512_fp16, 7, 0, EDX, 23, AVX512, "vaddph %zmm16, %zmm17, %zmm18")                                      \
	F(amx_tile, 7, 0, EDX, 24, AMX, "tilerelease")                                                              \
	F(avx_vnni, 7, 1, EAX, 4, AVX, "{vex} vpdpbusd %ymm0, %ymm1, %ymm2")                                        \
	F(avx512_bf16, 7, 1, EAX, 5, AVX512, "vcvtneps2bf16 %zmm16, %ymm17")                                        \
	F(xsaveopt, 0xd, 1, EAX, 0, XSAVE, "mov $1, %eax; xor %edx, %edx; xsaveopt scratch(%rip)")                  \
	F(xsavec, 0xd, 1, EAX, 1, XSAVE, "mov $1, %eax; xor %edx, %edx; xsavec scratch(%rip)")                      \
	F(xgetbv1, 0xd, 1, EAX, 2, XSAVE, "mov $1, %ecx; xgetbv")                                                   \
	F(lahf_lm, 0x80000001, 0, ECX, 0, NONE, "lahf")                                                             \
	F(abm, 0x80000001, 0, ECX, 5, NONE, "xor %eax, %eax; lzcnt %rax, %rax; cmp $64, %rax; jne wrong")           \
	F(sse4a, 0x80000001, 0, ECX, 6, NONE, "extrq $4, $4, %xmm0")                                                \
	F(rdtscp, 0x80000001, 0, EDX, 27, NONE, "rdtscp")                                                           \
	F(3dnowext, 0x80000001, 0, EDX, 30, NONE, "pswapd %mm0, %mm1; emms")                                        \
	F(3dnow, 0x80000001, 0, EDX, 31, NONE, "pfadd %mm0, %mm1; femms")

/* erms and fsrm, hle, cldemote, 3dnowprefetch: CPUID says that they are quick, not that they are there. */
#define HINTS                                                                                                       \
	"lea scratch(%rip), %rsi; lea 1024+scratch(%rip), %rdi; mov $1000, %ecx; rep movsb\n\t"                     \
	"xor %eax, %eax; xacquire lock incl scratch(%rip); xrelease lock decl scratch(%rip)\n\t"                    \
	"cldemote scratch(%rip); prefetchw scratch(%rip)"

/* In assembly, so that the compiler neither keeps nor needs any of the registers. */
#define CODE(name, leaf, sub, reg, bit, state, code) asm(".text\nuse_" #name ":\n\t" code "\n\tret");
FEATURES(CODE)
asm(".text\nuse_hints:\n\t" HINTS "\n\tret");
asm(".text\nwrong:\n\tud2");

#define DECLARE(name, ...) void use_##name(void);
FEATURES(DECLARE)
void use_hints(void);

struct feature {
	const char *name;
	unsigned leaf, sub, reg, bit, state;
	void (*use)(void);
};

#define ROW(name, leaf, sub, reg, bit, state, code) { #name, leaf, sub, reg, bit, state, use_##name },
static const struct feature FEATURE[] = { FEATURES(ROW) };
enum { COUNT = sizeof FEATURE / sizeof FEATURE[0] };

static unsigned xcr0(void)
{
	unsigned eax, ebx, ecx, edx;

	__cpuid(1, eax, ebx, ecx, edx);
	if (!(ecx & bit_OSXSAVE))
		return 0;
	asm volatile("xgetbv" : "=a"(eax), "=d"(edx) : "c"(0));
	return eax;
}

static int shown(const struct feature *f, unsigned on)
{
	unsigned r[4];

	return __get_cpuid_count(f->leaf, f->sub, &r[EAX], &r[EBX], &r[ECX], &r[EDX]) && r[f->reg] >> f->bit & 1 &&
	       (on & f->state) == f->state;
}

int main(int argc, char **argv)
{
	char use[COUNT];
	unsigned on = xcr0();

	(void)argv;
	for (int i = 0; i < COUNT; i++) {
		use[i] = shown(&FEATURE[i], on);
		if (argc > 1)
			puts(FEATURE[i].name);
	}
	if (argc > 1)
		return 0;
	do {
		for (int i = 0; i < COUNT; i++)
			if (use[i])
				FEATURE[i].use();
		use_hints();
		nanosleep(&PAUSE, 0);
	} while (beat());
	return RIGHT;
}
