//! A job that sees less of its CPU, so that its images fit more slots.
//!
//! `+CRIUBaseline = "x86-64-v3"` (or `-v2`, or `auto`) hides newer instructions from the job at its start, and its images then
//! ask a slot for that level alone. Programs choose by three ways, and this is what each of them heeds:
//!
//! | chooses | by | heeds |
//! |---|---|---|
//! | glibc 2.26 and newer, static too: string functions, libm, glibc-hwcaps directories | ld.so's table | GLIBC_TUNABLES |
//! | OpenBLAS; MKL; BLIS | CPUID | OPENBLAS_CORETYPE; MKL_ENABLE_INSTRUCTIONS; BLIS_ARCH_TYPE |
//! | numpy 1.20 and newer | CPUID | NPY_DISABLE_CPU_FEATURES |
//! | OpenSSL, so python's hashlib and ssl | CPUID | OPENSSL_ia32cap |
//! | PyTorch; oneDNN; Arrow; simdjson; numba | CPUID | one variable each, below |
//! | musl, gcc's and rustc's output without `-march=native` | nothing newer | – |
//! | a JVM, node | CPUID, and they write code as they go | nothing that we would set for everyone |
//! | `__builtin_cpu_supports`, a program's own CPUID (R by its libdeflate) | CPUID | nothing |
//!
//! A job that has a JVM's or node's engine mapped when it is frozen gets an image that asks for all that its slots had, and
//! so does one whose registers show that something newer was used ([`exceeded`]). The last row is left to whoever
//! says `CRIUBaseline`.
//!
//! CPUID faulting would cover every row, but `exec` switches it off and the fault is a signal in the job itself: it needs a
//! handler and a loader of ours in every program. That is another job than the user's.
//!
//! `auto` is what most slots have: what the slot's ad says in `CRIUBaseline` (whoever runs the pool knows), else v3, which
//! every server since 2015 has (Haswell, Zen); never more than this slot has.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::path::Path;

use file_transfer_plugin::fingerprint::Baseline::{self, V2, V3};
use file_transfer_plugin::fingerprint::Fingerprint;

/// The attribute of a job's ad, and of a slot's.
pub(crate) const ATTRIBUTE: &str = "CRIUBaseline";

/// What both levels hide: (variable, its value at level 2, at level 3).
const KNOBS: [(&str, &str, &str); 10] = [
    ("OPENBLAS_CORETYPE", "Nehalem", "Haswell"),
    ("MKL_ENABLE_INSTRUCTIONS", "SSE4_2", "AVX2"),
    ("BLIS_ARCH_TYPE", "generic", "haswell"),
    // Names that a numpy does not know make a warning that python does not show. The V names came with 2.4.
    (
        "NPY_DISABLE_CPU_FEATURES",
        "AVX F16C FMA3 AVX2 X86_V3 XOP FMA4 AVX512F AVX512CD AVX512_KNL AVX512_KNM AVX512_SKX AVX512_CLX AVX512_CNL \
         AVX512_ICL AVX512_SPR X86_V4",
        "XOP FMA4 AVX512F AVX512CD AVX512_KNL AVX512_KNM AVX512_SKX AVX512_CLX AVX512_CNL AVX512_ICL AVX512_SPR X86_V4",
    ),
    // Bits of CPUID 1 EDX:ECX and of 7 EBX:ECX. At 3 SHA, AVX-512, GFNI, VAES, VPCLMULQDQ; at 2 also AES, PCLMULQDQ, FMA,
    // MOVBE, AVX, XOP, RDRAND, BMI, AVX2, ADX, RDSEED.
    (
        "OPENSSL_ia32cap",
        "~0x5240180200000000:~0x700f02f0128",
        "~0x80000000000:~0x700f0230000",
    ),
    ("ONEDNN_MAX_CPU_ISA", "SSE41", "AVX2"),
    ("ATEN_CPU_CAPABILITY", "default", "avx2"),
    ("ARROW_USER_SIMD_LEVEL", "SSE4_2", "AVX2"),
    ("SIMDJSON_FORCE_IMPLEMENTATION", "westmere", "haswell"),
    ("NUMBA_CPU_NAME", "nehalem", "haswell"),
];

/// glibc's names; those with `_Usable` are its older ones, and each version ignores the others'.
const TUNABLES_3: &str = "-AVX512F,-AVX512VL,-AVX512BW,-AVX512DQ,-AVX512CD,-AVX512ER,-AVX512PF,-RTM,\
                          -AVX512F_Usable,-AVX512DQ_Usable";
const TUNABLES_2: &str = ",-AVX2,-AVX,-BMI1,-BMI2,-FMA,-FMA4,-LZCNT,-MOVBE,-XOP,-XSAVEC,-AVX2_Usable,-AVX_Usable,\
                          -FMA_Usable,-FMA4_Usable,-XSAVEC_Usable";

/// Engines that write machine code for the CPU that they find.
const ENGINES: [&str; 4] = ["libjvm.so", "libnode.so", "libcoreclr.so", "libLLVM"];
const PROGRAMS: [&str; 3] = ["node", "nodejs", "julia"];

/// No level of ours.
#[derive(Debug, thiserror::Error)]
#[error("no baseline {0:?}, only x86-64-v2, x86-64-v3 and auto")]
pub(crate) struct UnknownBaseline(String);

/// The level that a user asks for on this slot, whose pool may have one of its own. None where the slot has less than any.
pub(crate) fn asked(
    text: &str,
    pools: Option<&str>,
    slot: &Fingerprint,
) -> Result<Option<Baseline>, UnknownBaseline> {
    let wanted = match text {
        "auto" => pools.and_then(Baseline::named).unwrap_or(V3),
        text => Baseline::named(text).ok_or_else(|| UnknownBaseline(text.to_owned()))?,
    };
    let had = |level: &Baseline| *level <= wanted && level.is_had_by(slot);
    Ok(Baseline::ALL.into_iter().rev().find(had))
}

/// Hides from a job, by its environment, what lies above.
pub(crate) fn hide(level: Baseline, environment: &mut Vec<(OsString, OsString)>) {
    for (name, at_2, at_3) in KNOBS {
        environment.retain(|(known, _)| known != name);
        let value = if level == V2 { at_2 } else { at_3 };
        environment.push((name.into(), value.into()));
    }
    let more = if level == V2 { TUNABLES_2 } else { "" };
    let hwcaps = format!("glibc.cpu.hwcaps={TUNABLES_3}{more}");
    tune(environment, &hwcaps);
}

/// Whether register state that was in use (XSTATE_BV) is more than the level has. Protection keys are always in use.
pub(crate) fn exceeded(level: Baseline, used: u64) -> bool {
    const PKRU: u64 = 1 << 9;
    let (mask, _) = level.state();
    used & !(mask | PKRU) != 0
}

/// Adds a setting to GLIBC_TUNABLES, in place of one of that name.
pub(crate) fn tune(environment: &mut Vec<(OsString, OsString)>, setting: &str) {
    let variable = "GLIBC_TUNABLES";
    let (name, _) = setting.split_once('=').unwrap_or((setting, ""));
    let old = environment.iter().position(|(known, _)| known == variable);
    let old = old.map(|index| environment.swap_remove(index).1);
    let old = old.unwrap_or_default().to_string_lossy().into_owned();
    let others = old.split(':').filter(|other| {
        !other.is_empty() && other.split_once('=').is_none_or(|(other, _)| other != name)
    });
    let all: Vec<&str> = [setting].into_iter().chain(others).collect();
    environment.push((variable.into(), all.join(":").into()));
}

/// An engine that chose instructions by itself, in a process below `proc`.
pub(crate) fn engine(proc: &Path) -> Option<String> {
    let processes = fs::read_dir(proc).ok()?.flatten();
    processes
        .filter(|dir| {
            dir.file_name()
                .to_string_lossy()
                .parse()
                .is_ok_and(|pid: u32| pid != 1)
        })
        .find_map(|dir| {
            if let Ok(exe) = fs::read_link(dir.path().join("exe"))
                && let Some(name) = exe.file_name().and_then(|name| name.to_str())
                && PROGRAMS.contains(&name)
            {
                return Some(name.to_owned());
            }
            let maps = File::open(dir.path().join("maps")).ok()?;
            BufReader::new(maps)
                .lines()
                .map_while(Result::ok)
                .find_map(|line| {
                    let (_, name) = line.rsplit_once('/')?;
                    ENGINES
                        .iter()
                        .any(|engine| name.starts_with(engine))
                        .then(|| name.to_owned())
                })
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(features: &str) -> Fingerprint {
        Fingerprint {
            cpu_vendor: "GenuineIntel".into(),
            cpu_features: features.split(',').map(str::to_owned).collect(),
            xcr0: 0x602e7,
            xsave_size: 11_008,
            kernel: file_transfer_plugin::fingerprint::Kernel(60_118),
            criu: file_transfer_plugin::fingerprint::Version::new(4, 2, 1),
            abilities: Default::default(),
        }
    }

    fn sapphire_rapids() -> Fingerprint {
        with(
            "abm,aes,amx_tile,avx,avx2,avx512f,bmi1,bmi2,cx16,f16c,fma,lahf_lm,movbe,pclmulqdq,pni,popcnt,rdrand,rdtscp,\
             sha_ni,sse4_1,sse4_2,ssse3,xsave,xsaveopt",
        )
    }

    #[test]
    fn auto_is_what_the_pool_says_and_never_more_than_the_slot_has() {
        let asked = |text, pools, slot: &Fingerprint| super::asked(text, pools, slot).unwrap();
        let slot = sapphire_rapids();
        assert_eq!(asked("auto", None, &slot), Some(V3));
        assert_eq!(asked("auto", Some("x86-64-v2"), &slot), Some(V2));
        assert_eq!(asked("x86-64-v2", Some("x86-64-v3"), &slot), Some(V2));
        assert_eq!(asked("auto", None, &V2.of(&slot)), Some(V2));
        let mut bare = slot.clone();
        bare.cpu_features.clear();
        assert_eq!(asked("v3", None, &bare), None);
        let error = super::asked("v4", None, &slot).unwrap_err();
        assert!(error.to_string().contains("\"v4\""), "{error}");
    }

    #[test]
    fn knobs_replace_what_was_there_and_other_tunables_stay() {
        let mut environment: Vec<(OsString, OsString)> = vec![
            ("OPENBLAS_CORETYPE".into(), "SkylakeX".into()),
            (
                "GLIBC_TUNABLES".into(),
                "glibc.malloc.perturb=1:glibc.cpu.hwcaps=-RTM".into(),
            ),
        ];
        hide(V3, &mut environment);
        let value = |name: &str| {
            let found: Vec<_> = environment
                .iter()
                .filter(|(known, _)| known == name)
                .collect();
            assert_eq!(found.len(), 1, "{name}");
            found[0].1.to_str().unwrap().to_owned()
        };
        assert_eq!(value("OPENBLAS_CORETYPE"), "Haswell");
        let tunables = value("GLIBC_TUNABLES");
        assert!(
            tunables.starts_with("glibc.cpu.hwcaps=-AVX512F,"),
            "{tunables}"
        );
        assert!(tunables.ends_with(":glibc.malloc.perturb=1"), "{tunables}");
    }

    #[test]
    fn registers_in_use_above_the_level_are_seen() {
        assert!(!exceeded(V3, 0x207) && exceeded(V3, 0x2e7) && exceeded(V3, 0x20));
        assert!(exceeded(V2, 0x7) && !exceeded(V2, 0x3));
    }

    #[test]
    fn an_engine_is_found_where_it_is_mapped() {
        let dir = tempfile::tempdir().unwrap();
        let process = dir.path().join("7");
        fs::create_dir(&process).unwrap();
        fs::write(
            process.join("maps"),
            "7f-80 r-xp 0 fe:00 7 /usr/lib/jvm/lib/server/libjvm.so\n",
        )
        .unwrap();
        assert_eq!(engine(dir.path()).as_deref(), Some("libjvm.so"));
        fs::write(
            process.join("maps"),
            "7f-80 r-xp 0 fe:00 7 /usr/lib/libc.so.6\n",
        )
        .unwrap();
        assert_eq!(engine(dir.path()), None);
    }
}
