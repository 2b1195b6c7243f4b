//! What a slot offers, what an image needs, and whether one admits the other.
//!
//! One pure type stands for both: a slot's fingerprint is what was probed there, an image's is what the job *may have used*,
//! which is all that it could see on the slots where it ran. The negotiator decides by [`requirements`], the supervisor asks
//! [`Fingerprint::admits`] once more before it restores; tests hold the two together.
//!
//! A slot admits an image when it has at least what the image needs. Not equality: a job started with `LD_BIND_NOW` and
//! moved to a richer slot is right (the supervisor sees to `LD_BIND_NOW`).

mod ads;
mod baseline;
mod version;

pub use ads::{AdError, requirements};
pub use baseline::Baseline;
pub use version::{BadVersion, Kernel, Version};

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

/// From this CRIU on, an image taken under another kernel can be restored: 4.1.1 fails on 6.18 because it does not understand
/// a vDSO that it has not dumped itself.
pub const CRIU_MOVES_BETWEEN_KERNELS: Version = Version::new(4, 2, 0);

/// The state components that all makers lay out alike: the x87 and SSE registers, and the upper halves of AVX at 576.
pub const SAME_EVERYWHERE: u64 = 0b111;

/// What a slot offers, or what an image needs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fingerprint {
    /// The CPU's maker as CPUID spells it, `GenuineIntel`.
    pub cpu_vendor: String,
    /// What code may use of the CPU, named as in /proc/cpuinfo.
    pub cpu_features: BTreeSet<String>,
    /// The state components that the kernel switched on.
    pub xcr0: u64,
    /// The bytes that they take in the standard layout.
    pub xsave_size: u32,
    /// The kernel.
    pub kernel: Kernel,
    /// The CRIU that took the image, or that would restore it.
    pub criu: Version,
    /// What else the image needs and a slot was seen to do.
    pub abilities: BTreeSet<String>,
}

/// One reason why a slot cannot go on with an image.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Mismatch {
    /// Code that the job has chosen would die of an illegal instruction here.
    #[error("this slot lacks {}, which the job may have used", .0.join(", "))]
    Features(Vec<String>),
    /// Registers in the image have no place here.
    #[error("this slot lacks the register state {0:#x}, which the image may hold")]
    Xcr0(u64),
    /// The image's register area is larger than this slot's.
    #[error("this slot saves {slot} bytes of registers, the image holds {image}")]
    XsaveSize {
        /// Bytes on the slot.
        slot: u32,
        /// Bytes in the image.
        image: u32,
    },
    /// Another maker lays the register area out in another way.
    #[error("this slot's CPU is of {slot:?}, the image's registers are laid out for {image:?}")]
    Vendor {
        /// The slot's maker.
        slot: String,
        /// The image's.
        image: String,
    },
    /// An older CRIU does not know the image's format.
    #[error("this slot has CRIU {slot}, the image was taken by {image}")]
    Criu {
        /// The slot's version.
        slot: Version,
        /// The image's.
        image: Version,
    },
    /// This CRIU restores only what was dumped under the same kernel.
    #[error(
        "this slot runs kernel {slot}, the image was taken under {image}, and CRIU {criu} cannot move between kernels \
         ({CRIU_MOVES_BETWEEN_KERNELS} can)"
    )]
    Kernel {
        /// The slot's kernel.
        slot: Kernel,
        /// The image's.
        image: Kernel,
        /// The slot's CRIU.
        criu: Version,
    },
    /// Something that the image needs was not seen to work here.
    #[error("this slot cannot do {}, which the image needs", .0.join(", "))]
    Abilities(Vec<String>),
}

impl Fingerprint {
    /// Whether this slot can go on with that image; every reason why not.
    pub fn admits(&self, image: &Fingerprint) -> Result<(), Vec<Mismatch>> {
        let mut no = Vec::new();
        let missing = |have: &BTreeSet<String>, need: &BTreeSet<String>| {
            let missing: Vec<String> = need.difference(have).cloned().collect();
            (!missing.is_empty()).then_some(missing)
        };
        no.extend(missing(&self.cpu_features, &image.cpu_features).map(Mismatch::Features));
        let lacking = image.xcr0 & !self.xcr0;
        if lacking != 0 {
            no.push(Mismatch::Xcr0(lacking));
        }
        if self.xsave_size < image.xsave_size {
            no.push(Mismatch::XsaveSize {
                slot: self.xsave_size,
                image: image.xsave_size,
            });
        }
        // The frame of a signal that the job has not returned from lies in its memory as the CPU laid it out, and beyond AVX
        // the makers differ (AVX-512 is at 1088 on Intel, at 832 on AMD's first). CRIU does not know of such frames.
        if image.xcr0 & !SAME_EVERYWHERE != 0 && self.cpu_vendor != image.cpu_vendor {
            no.push(Mismatch::Vendor {
                slot: self.cpu_vendor.clone(),
                image: image.cpu_vendor.clone(),
            });
        }
        if self.criu < image.criu {
            no.push(Mismatch::Criu {
                slot: self.criu,
                image: image.criu,
            });
        }
        if self.kernel != image.kernel && self.criu < CRIU_MOVES_BETWEEN_KERNELS {
            no.push(Mismatch::Kernel {
                slot: self.kernel,
                image: image.kernel,
                criu: self.criu,
            });
        }
        no.extend(missing(&self.abilities, &image.abilities).map(Mismatch::Abilities));
        if no.is_empty() { Ok(()) } else { Err(no) }
    }

    /// The job has now also run on `slot`, so that what it may have used grows.
    ///
    /// Kernel, CRIU and maker are those of the slot where the next image will be taken; abilities are the image's own.
    pub fn absorb(&mut self, slot: &Fingerprint) {
        self.cpu_features.extend(slot.cpu_features.iter().cloned());
        self.xcr0 |= slot.xcr0;
        self.xsave_size = self.xsave_size.max(slot.xsave_size);
        self.cpu_vendor.clone_from(&slot.cpu_vendor);
        self.kernel = slot.kernel;
        self.criu = self.criu.max(slot.criu);
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn words(text: &str) -> BTreeSet<String> {
        text.split(',')
            .filter(|word| !word.is_empty())
            .map(str::to_owned)
            .collect()
    }

    pub(crate) fn haswell() -> Fingerprint {
        Fingerprint {
            cpu_vendor: "GenuineIntel".into(),
            cpu_features: words("avx,avx2,fma,sse4_2,xsave"),
            xcr0: 0x7,
            xsave_size: 832,
            kernel: "6.8.0".parse().unwrap(),
            criu: Version::new(4, 2, 1),
            abilities: words("timens"),
        }
    }

    pub(crate) fn sapphire_rapids() -> Fingerprint {
        let mut slot = haswell();
        slot.cpu_features.extend(words("avx512f,avx512vl"));
        slot.xcr0 = 0xe7;
        slot.xsave_size = 2688;
        slot
    }

    fn reasons(slot: &Fingerprint, image: &Fingerprint) -> String {
        slot.admits(image)
            .unwrap_err()
            .iter()
            .map(ToString::to_string)
            .collect::<Vec<_>>()
            .join("\n")
    }

    #[test]
    fn a_slot_admits_its_own_image_and_a_richer_slot_admits_it_too() {
        assert_eq!(haswell().admits(&haswell()), Ok(()));
        assert_eq!(sapphire_rapids().admits(&haswell()), Ok(()));
    }

    #[test]
    fn slot_without_avx512_is_refused() {
        assert_eq!(
            reasons(&haswell(), &sapphire_rapids()),
            "this slot lacks avx512f, avx512vl, which the job may have used\n\
             this slot lacks the register state 0xe0, which the image may hold\n\
             this slot saves 832 bytes of registers, the image holds 2688"
        );
    }

    #[test]
    fn another_kernel_needs_a_criu_that_knows_how() {
        let image = Fingerprint {
            criu: Version::new(4, 1, 0),
            ..haswell()
        };
        let slot = Fingerprint {
            kernel: "6.18.44".parse().unwrap(),
            criu: Version::new(4, 1, 1),
            ..haswell()
        };
        assert_eq!(
            reasons(&slot, &image),
            "this slot runs kernel 6.18.44, the image was taken under 6.8.0, and CRIU 4.1.1 cannot move between kernels \
             (4.2.0 can)"
        );
        let slot = Fingerprint {
            criu: Version::new(4, 2, 0),
            ..slot
        };
        assert_eq!(slot.admits(&image), Ok(()));
    }

    #[test]
    fn another_maker_is_refused_from_avx512_on() {
        let of_amd = |slot| Fingerprint {
            cpu_vendor: "AuthenticAMD".into(),
            ..slot
        };
        assert_eq!(
            reasons(&of_amd(sapphire_rapids()), &sapphire_rapids()),
            "this slot's CPU is of \"AuthenticAMD\", the image's registers are laid out for \"GenuineIntel\""
        );
        assert_eq!(of_amd(sapphire_rapids()).admits(&haswell()), Ok(()));
        assert_eq!(of_amd(haswell()).admits(&haswell()), Ok(()));
    }

    #[test]
    fn an_older_criu_and_a_missing_ability_are_refused() {
        let slot = Fingerprint {
            criu: Version::new(4, 2, 0),
            abilities: words(""),
            ..haswell()
        };
        assert_eq!(
            reasons(&slot, &haswell()),
            "this slot has CRIU 4.2.0, the image was taken by 4.2.1\nthis slot cannot do timens, which the image needs"
        );
    }

    #[test]
    fn what_a_job_may_have_used_only_grows() {
        let mut image = haswell();
        image.absorb(&sapphire_rapids());
        assert!(haswell().admits(&image).is_err());
        image.absorb(&haswell());
        assert!(haswell().admits(&image).is_err());
        assert_eq!(sapphire_rapids().admits(&image), Ok(()));
    }
}
