//! Which register state the kernel saves.
//!
//! The instruction that reads XCR0, `xgetbv`, cannot be had without unsafe code. CPUID tells as much, in parts:
//!
//! - leaf 1, ECX bit 27 (OSXSAVE): whether the kernel switched anything on at all;
//! - leaf 0xD subleaf 0, EAX and EDX: the components that *could* be switched on;
//! - leaf 0xD subleaf i, EAX and EBX: size and offset of component i in the standard layout;
//! - leaf 0xD subleaf 0, EBX: the end of the last component that *is* on.
//!
//! So what lies beyond that end is off. What lies before it is on unless it was left out in the middle, as AVX-512 is with
//! `clearcpuid=avx512f` while protection keys behind it stay. Linux enables a component exactly when it knows the feature that
//! the component belongs to (`xsave_cpuid_features` in arch/x86/kernel/fpu/xstate.c) and has not cleared it, and it lists
//! such features in /proc/cpuinfo. The answer from there is taken if it ends where EBX says.

use std::collections::HashSet;

use super::Cpuid;

/// The x87 and SSE registers and the header: 512 + 64 bytes, always there and always on.
const LEGACY: (u64, u32) = (0b11, 576);

/// The feature in /proc/cpuinfo that each component belongs to.
const OWNER: [(u32, &str); 10] = [
    (2, "avx"),
    (3, "mpx"),
    (4, "mpx"),
    (5, "avx512f"),
    (6, "avx512f"),
    (7, "avx512f"),
    (9, "pku"),
    (17, "amx_tile"),
    (18, "amx_tile"),
    (19, "apx"),
];

/// XCR0, and the size of the area that it stands for.
pub(super) fn enabled(cpuid: Cpuid<'_>, flags: Option<&HashSet<&str>>) -> (u64, u32) {
    if cpuid(0, 0).eax < 0xd || cpuid(1, 0).ecx & 1 << 27 == 0 {
        return (0, 0);
    }
    let leaf = cpuid(0xd, 0);
    let supported = u64::from(leaf.edx) << 32 | u64::from(leaf.eax);
    let within = components(supported)
        .filter(|index| end(cpuid, *index) <= leaf.ebx)
        .fold(LEGACY.0, with);
    let listed = |index: &u32| {
        let owner = OWNER.iter().find(|(component, _)| component == index);
        owner.is_some_and(|(_, flag)| flags.is_some_and(|flags| flags.contains(flag)))
    };
    let known = components(within).filter(listed).fold(LEGACY.0, with);
    let xcr0 = if size(cpuid, known) == leaf.ebx {
        known
    } else {
        within
    };
    (xcr0, leaf.ebx)
}

/// The end of the last of some components in the standard layout.
pub(super) fn size(cpuid: Cpuid<'_>, xcr0: u64) -> u32 {
    if xcr0 == 0 {
        return 0;
    }
    components(xcr0)
        .map(|index| end(cpuid, index))
        .fold(LEGACY.1, u32::max)
}

fn components(mask: u64) -> impl Iterator<Item = u32> {
    (2..63).filter(move |index| mask & 1 << index != 0)
}

fn with(mask: u64, index: u32) -> u64 {
    mask | 1 << index
}

fn end(cpuid: Cpuid<'_>, index: u32) -> u32 {
    let leaf = cpuid(0xd, index);
    leaf.eax.saturating_add(leaf.ebx)
}

#[cfg(test)]
mod tests {
    use raw_cpuid::CpuIdResult;

    use super::*;

    const ZEN4: &[(u32, u32, u32)] = &[
        (2, 256, 576),
        (5, 64, 832),
        (6, 512, 896),
        (7, 1024, 1408),
        (9, 8, 2432),
    ];
    const SAPPHIRE_RAPIDS: &[(u32, u32, u32)] = &[
        (2, 256, 576),
        (5, 64, 1088),
        (6, 512, 1152),
        (7, 1024, 1664),
        (9, 8, 2688),
        (17, 64, 2752),
        (18, 8192, 2816),
    ];

    /// XCR0 by a CPU with these components, of which those up to `size` and in `flags` are on.
    fn xcr0(components: &[(u32, u32, u32)], size: u32, flags: &str) -> u64 {
        let cpuid = |leaf, sub| {
            let mut answer = CpuIdResult {
                eax: 0,
                ebx: 0,
                ecx: 0,
                edx: 0,
            };
            match (leaf, sub) {
                (0, _) => answer.eax = 0x20,
                (1, _) => answer.ecx = 1 << 27,
                (0xd, 0) => {
                    answer.eax = components
                        .iter()
                        .fold(3, |mask, (index, ..)| mask | 1 << index);
                    answer.ebx = size;
                }
                (0xd, _) => {
                    if let Some((_, size, offset)) =
                        components.iter().find(|(index, ..)| *index == sub)
                    {
                        (answer.eax, answer.ebx) = (*size, *offset);
                    }
                }
                _ => {}
            }
            answer
        };
        let flags = flags.split(' ').collect();
        let (xcr0, found) = enabled(&cpuid, Some(&flags));
        assert_eq!(found, size);
        xcr0
    }

    #[test]
    fn known_cpus_give_their_known_xcr0() {
        assert_eq!(xcr0(&SAPPHIRE_RAPIDS[..1], 832, "avx avx2"), 0x7);
        assert_eq!(xcr0(&ZEN4[..4], 2432, "avx avx512f"), 0xe7);
        assert_eq!(xcr0(ZEN4, 2440, "avx avx512f pku"), 0x2e7);
        assert_eq!(
            xcr0(SAPPHIRE_RAPIDS, 11008, "avx avx512f pku amx_tile"),
            0x602e7
        );
    }

    #[test]
    fn what_an_older_kernel_does_not_switch_on_is_off() {
        assert_eq!(xcr0(SAPPHIRE_RAPIDS, 2696, "avx avx512f pku"), 0x2e7);
        assert_eq!(xcr0(SAPPHIRE_RAPIDS, 2688, "avx avx512f"), 0xe7);
        assert_eq!(xcr0(SAPPHIRE_RAPIDS, 576, "sse"), 0x3);
    }

    #[test]
    fn what_was_left_out_in_the_middle_is_off() {
        assert_eq!(xcr0(SAPPHIRE_RAPIDS, 2696, "avx pku"), 0x207);
    }

    #[test]
    fn a_list_that_cannot_be_right_is_not_followed() {
        assert_eq!(xcr0(SAPPHIRE_RAPIDS, 2696, "nothing to see"), 0x2e7);
    }
}
