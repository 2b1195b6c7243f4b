//! The instructions that programs choose by CPUID.
//!
//! Only what code can use and may be lacking elsewhere: not what every x86-64 has, nor what is the kernel's business. Names
//! are those of /proc/cpuinfo. All of them together fit into one delayed update of a job's ad (990 bytes).
//!
//! Hints are no features here: code that uses `erms`, `fsrm` and their like, `hle`, `cldemote` or `3dnowprefetch` is right on
//! every CPU, for it is `rep movsb`, a prefix that is ignored, an instruction that does nothing. A first Zen lacks `erms`, and
//! goes on with what a Haswell began: tests/cpus.json.

use std::collections::BTreeSet;

use super::Cpuid;

/// A register of CPUID's answer.
#[derive(Clone, Copy)]
enum Register {
    Eax,
    Ebx,
    Ecx,
    Edx,
}

use Register::{Eax, Ebx, Ecx, Edx};

/// The state components that must be on before instructions may be used.
const NONE: u64 = 0;
const ANY: u64 = 0b11;
const AVX: u64 = 0b110;
const AVX512: u64 = 0b1110_0110;
const PKRU: u64 = 1 << 9;
const AMX: u64 = 0b11 << 17;
const APX: u64 = 1 << 19;

/// Features of one register: bit, name, needed state.
type Group = (u32, u32, Register, &'static [(u32, &'static str, u64)]);

const FEATURES: &[Group] = &[
    (
        1,
        0,
        Ecx,
        &[
            (0, "pni", NONE),
            (1, "pclmulqdq", NONE),
            (9, "ssse3", NONE),
            (12, "fma", AVX),
            (13, "cx16", NONE),
            (19, "sse4_1", NONE),
            (20, "sse4_2", NONE),
            (22, "movbe", NONE),
            (23, "popcnt", NONE),
            (25, "aes", NONE),
            (26, "xsave", ANY),
            (28, "avx", AVX),
            (29, "f16c", AVX),
            (30, "rdrand", NONE),
        ],
    ),
    (
        7,
        0,
        Ebx,
        &[
            (3, "bmi1", NONE),
            (5, "avx2", AVX),
            (8, "bmi2", NONE),
            (11, "rtm", NONE),
            (16, "avx512f", AVX512),
            (17, "avx512dq", AVX512),
            (18, "rdseed", NONE),
            (19, "adx", NONE),
            (21, "avx512ifma", AVX512),
            (23, "clflushopt", NONE),
            (24, "clwb", NONE),
            (26, "avx512pf", AVX512),
            (27, "avx512er", AVX512),
            (28, "avx512cd", AVX512),
            (29, "sha_ni", NONE),
            (30, "avx512bw", AVX512),
            (31, "avx512vl", AVX512),
        ],
    ),
    (
        7,
        0,
        Ecx,
        &[
            (1, "avx512vbmi", AVX512),
            (3, "pku", PKRU),
            (5, "waitpkg", NONE),
            (6, "avx512_vbmi2", AVX512),
            (8, "gfni", NONE),
            (9, "vaes", AVX),
            (10, "vpclmulqdq", AVX),
            (11, "avx512_vnni", AVX512),
            (12, "avx512_bitalg", AVX512),
            (14, "avx512_vpopcntdq", AVX512),
            (22, "rdpid", NONE),
            (27, "movdiri", NONE),
            (28, "movdir64b", NONE),
        ],
    ),
    (
        7,
        0,
        Edx,
        &[
            (2, "avx512_4vnniw", AVX512),
            (3, "avx512_4fmaps", AVX512),
            (8, "avx512_vp2intersect", AVX512),
            (14, "serialize", NONE),
            (16, "tsxldtrk", NONE),
            (22, "amx_bf16", AMX),
            (23, "avx512_fp16", AVX512),
            (24, "amx_tile", AMX),
            (25, "amx_int8", AMX),
        ],
    ),
    (
        7,
        1,
        Eax,
        &[
            (0, "sha512", AVX),
            (1, "sm3", AVX),
            (2, "sm4", AVX),
            (4, "avx_vnni", AVX),
            (5, "avx512_bf16", AVX512),
            (7, "cmpccxadd", NONE),
            (21, "amx_fp16", AMX),
            (23, "avx_ifma", AVX),
        ],
    ),
    (
        7,
        1,
        Edx,
        &[
            (4, "avx_vnni_int8", AVX),
            (5, "avx_ne_convert", AVX),
            (8, "amx_complex", AMX),
            (10, "avx_vnni_int16", AVX),
            (19, "avx10", AVX512),
            (21, "apx", APX),
        ],
    ),
    (
        0xd,
        1,
        Eax,
        &[
            (0, "xsaveopt", ANY),
            (1, "xsavec", ANY),
            (2, "xgetbv1", ANY),
        ],
    ),
    (
        0x8000_0001,
        0,
        Ecx,
        &[
            (0, "lahf_lm", NONE),
            (5, "abm", NONE),
            (6, "sse4a", NONE),
            (7, "misalignsse", NONE),
            (11, "xop", AVX),
            (16, "fma4", AVX),
            (21, "tbm", NONE),
            (29, "mwaitx", NONE),
        ],
    ),
    (
        0x8000_0001,
        0,
        Edx,
        &[
            (27, "rdtscp", NONE),
            (30, "3dnowext", NONE),
            (31, "3dnow", NONE),
        ],
    ),
    (
        0x8000_0008,
        0,
        Ebx,
        &[(0, "clzero", NONE), (4, "rdpru", NONE)],
    ),
];

/// The features of a CPU whose kernel saves the state in `xcr0`.
pub(super) fn of(cpuid: Cpuid<'_>, xcr0: u64) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for (leaf, sub, register, features) in FEATURES {
        // A CPU answers a leaf that it does not have with the last one that it has.
        let last = cpuid(leaf & 0x8000_0000, 0).eax;
        if *leaf > last || (*leaf == 7 && *sub > cpuid(7, 0).eax) {
            continue;
        }
        let answer = cpuid(*leaf, *sub);
        let bits = match register {
            Eax => answer.eax,
            Ebx => answer.ebx,
            Ecx => answer.ecx,
            Edx => answer.edx,
        };
        for (bit, name, state) in *features {
            if bits & 1 << bit != 0 && xcr0 & state == *state {
                found.insert((*name).to_owned());
            }
        }
    }
    found
}

/// Whether a name is one of ours.
#[cfg(test)]
pub(super) fn is_known(name: &str) -> bool {
    FEATURES
        .iter()
        .any(|(.., features)| features.iter().any(|(_, known, _)| *known == name))
}

#[cfg(test)]
mod tests {
    use raw_cpuid::CpuIdResult;

    use super::*;

    /// A CPU that says yes to everything.
    fn all(leaf: u32, _: u32) -> CpuIdResult {
        let eax = if leaf & 0x7fff_ffff == 0 {
            leaf | 0x20
        } else {
            u32::MAX
        };
        CpuIdResult {
            eax,
            ebx: u32::MAX,
            ecx: u32::MAX,
            edx: u32::MAX,
        }
    }

    #[test]
    fn instructions_whose_registers_are_not_saved_do_not_count() {
        let names = |xcr0| of(&all, xcr0);
        assert!(names(0xe7).contains("avx512vl") && !names(0xe7).contains("amx_tile"));
        assert!(names(0x7).contains("avx2") && !names(0x7).contains("avx512f"));
        assert!(names(0x3).contains("xsave") && !names(0x3).contains("avx"));
        assert!(names(0).contains("sse4_2") && !names(0).contains("xsave"));
    }

    #[test]
    fn all_features_fit_into_one_delayed_update() {
        let list: Vec<String> = of(&all, u64::MAX).into_iter().collect();
        assert!(list.join(",").len() < 900, "{}", list.join(",").len());
    }
}
