//! What an image would have needed had its job been held to a common level of instructions.
//!
//! The levels are those of the x86-64 psABI that compilers and glibc know: what distributions build for.

use super::Fingerprint;

/// A level of the psABI.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Baseline {
    /// Every x86-64: SSE2 only.
    V1,
    /// Nehalem and later.
    V2,
    /// Haswell, Zen and later: AVX2 and FMA.
    V3,
    /// Skylake-X, Zen 4 and later: AVX-512.
    V4,
}

const V2: [&str; 7] = [
    "cx16", "lahf_lm", "popcnt", "pni", "sse4_1", "sse4_2", "ssse3",
];
const V3: [&str; 8] = ["abm", "avx", "avx2", "bmi1", "bmi2", "f16c", "fma", "movbe"];
const V4: [&str; 5] = ["avx512bw", "avx512cd", "avx512dq", "avx512f", "avx512vl"];

impl Baseline {
    /// From the one with most slots to the one with most instructions.
    pub const ALL: [Self; 4] = [Self::V1, Self::V2, Self::V3, Self::V4];

    /// The level's name, as compilers spell it.
    pub fn name(self) -> &'static str {
        match self {
            Self::V1 => "x86-64-v1",
            Self::V2 => "x86-64-v2",
            Self::V3 => "x86-64-v3",
            Self::V4 => "x86-64-v4",
        }
    }

    fn has(self, feature: &str) -> bool {
        // No level hides how the kernel lays out registers, which is what this one stands for.
        feature == "xsave"
            || (self >= Self::V2 && V2.contains(&feature))
            || (self >= Self::V3 && V3.contains(&feature))
            || (self >= Self::V4 && V4.contains(&feature))
    }

    /// The state components of the level, and the bytes that they take in the standard layout of either maker.
    fn state(self) -> (u64, u32) {
        match self {
            Self::V1 | Self::V2 => (0x3, 576),
            Self::V3 => (0x7, 832),
            Self::V4 => (0xe7, 2696),
        }
    }

    /// The same image, of a job that saw no more than this level at its start.
    pub fn of(self, image: &Fingerprint) -> Fingerprint {
        let (xcr0, xsave_size) = self.state();
        let features = image.cpu_features.iter();
        Fingerprint {
            cpu_features: features.filter(|name| self.has(name)).cloned().collect(),
            xcr0: image.xcr0 & xcr0,
            xsave_size: image.xsave_size.min(xsave_size),
            ..image.clone()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{haswell, sapphire_rapids};
    use super::*;

    #[test]
    fn a_job_held_to_v3_moves_from_sapphire_rapids_to_haswell() {
        let image = sapphire_rapids();
        assert!(haswell().admits(&image).is_err());
        assert_eq!(haswell().admits(&Baseline::V3.of(&image)), Ok(()));
        assert!(haswell().admits(&Baseline::V4.of(&image)).is_err());
    }

    #[test]
    fn a_lower_level_never_needs_more() {
        let image = sapphire_rapids();
        for pair in Baseline::ALL.windows(2) {
            let (low, high) = (pair[0].of(&image), pair[1].of(&image));
            assert_eq!(high.admits(&low), Ok(()), "{pair:?}");
            assert_eq!(image.admits(&high), Ok(()), "{pair:?}");
        }
    }
}
