//! What an image needs of a job that was held to a common level of instructions.
//!
//! The levels are those of the x86-64 psABI that compilers and glibc know: what distributions build for.

use super::Fingerprint;

/// A level that a job can be held to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Baseline {
    /// Nehalem and later: up to SSE4.2.
    V2,
    /// Haswell, Zen and later: up to AVX2.
    V3,
}

use Baseline::{V2, V3};

/// What the levels' definitions name, as /proc/cpuinfo calls it, and `xsave`, without which CRIU restores no such image.
const LEVEL_2: [&str; 8] = [
    "cx16", "lahf_lm", "pni", "popcnt", "sse4_1", "sse4_2", "ssse3", "xsave",
];

/// The definition's own, and what every such CPU has beside it: no variable hides it from everything.
const LEVEL_3: [&str; 13] = [
    "abm",
    "aes",
    "avx",
    "avx2",
    "bmi1",
    "bmi2",
    "f16c",
    "fma",
    "movbe",
    "pclmulqdq",
    "rdrand",
    "rdtscp",
    "xsaveopt",
];

impl Baseline {
    /// From the one with most slots to the one with most instructions.
    pub const ALL: [Self; 2] = [V2, V3];

    /// By its name in an ad or a manifest.
    pub fn named(text: &str) -> Option<Self> {
        match text.trim_start_matches("x86-64-") {
            "v2" => Some(V2),
            "v3" => Some(V3),
            _ => None,
        }
    }

    /// The level's name, as compilers spell it.
    pub fn name(self) -> &'static str {
        match self {
            V2 => "x86-64-v2",
            V3 => "x86-64-v3",
        }
    }

    /// Components of the register state and the bytes that they take, the same on all makes up to AVX.
    pub fn state(self) -> (u64, u32) {
        match self {
            V2 => (0b011, 576),
            V3 => (0b111, 832),
        }
    }

    /// Whether a slot has all of it.
    pub fn is_had_by(self, slot: &Fingerprint) -> bool {
        let has = |names: &[&str]| names.iter().all(|name| slot.cpu_features.contains(*name));
        has(&LEVEL_2) && (self == V2 || has(&LEVEL_3))
    }

    /// What an image needs of a job that saw no more than this of what `seen` has: a slot, or another image.
    pub fn of(self, seen: &Fingerprint) -> Fingerprint {
        let mut limited = seen.clone();
        limited.cpu_features.retain(|name| {
            LEVEL_2.contains(&name.as_str()) || (self == V3 && LEVEL_3.contains(&name.as_str()))
        });
        let (mask, size) = self.state();
        limited.xcr0 &= mask;
        limited.xsave_size = limited.xsave_size.min(size);
        limited
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::words;
    use super::*;
    use crate::fingerprint::{Kernel, Version};

    fn sapphire_rapids() -> Fingerprint {
        let all = [&LEVEL_2[..], &LEVEL_3, &["avx512f", "amx_tile", "sha_ni"]].concat();
        Fingerprint {
            cpu_vendor: "GenuineIntel".into(),
            cpu_features: words(&all.join(",")),
            xcr0: 0x602e7,
            xsave_size: 11_008,
            kernel: Kernel(60_118),
            criu: Version::new(4, 2, 1),
            abilities: Default::default(),
        }
    }

    #[test]
    fn an_image_asks_for_its_level_alone() {
        let slot = sapphire_rapids();
        let haswell = V3.of(&slot);
        assert!(haswell.admits(&slot).is_err());
        assert_eq!(haswell.admits(&V3.of(&slot)), Ok(()));
        assert_eq!(slot.admits(&V3.of(&slot)), Ok(()));
        assert!(V2.of(&slot).admits(&V3.of(&slot)).is_err());
        assert_eq!(haswell.xsave_size, 832);
        assert!(V3.is_had_by(&haswell) && !V3.is_had_by(&V2.of(&slot)));
    }

    #[test]
    fn a_name_is_read_back() {
        for level in Baseline::ALL {
            assert_eq!(Baseline::named(level.name()), Some(level));
        }
        assert_eq!(Baseline::named("x86-64-v4"), None);
    }
}
