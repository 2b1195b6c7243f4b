//! What this machine is made of, as a process on it can see: the pilot's part of a [`Fingerprint`].
//!
//! CPUID is asked directly, because that is what programs and their libraries do: /proc/cpuinfo shows what the kernel thinks
//! of a CPU, lacks what an old kernel has no name for, and keeps what a hypervisor hid from programs. Of instructions that
//! need registers saved (AVX, AVX-512, AMX) only those count whose registers the kernel saves, as every program checks too.

mod features;
mod state;

use std::collections::BTreeSet;
use std::fs;
use std::io::{self, Read};

use crate::fingerprint::{BadVersion, Fingerprint, Kernel, Version};

/// What could not be found out.
#[derive(Debug, thiserror::Error)]
pub enum HostError {
    /// A file of /proc could not be read.
    #[error("cannot read {path}")]
    Read {
        /// Which.
        path: &'static str,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The kernel has a version that cannot be coded.
    #[error("cannot make sense of the kernel's version")]
    Kernel(#[from] BadVersion),
    /// Images of this kind of CPU are not handled.
    #[error("this CPU is no x86-64")]
    Architecture,
}

/// A CPU.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cpu {
    /// Its maker, as CPUID spells it.
    pub vendor: String,
    /// What code may use of it.
    pub features: BTreeSet<String>,
    /// The state components that the kernel switched on.
    pub xcr0: u64,
    /// The bytes that they take in the standard layout, by CPUID leaf 0xD.
    pub xsave_size: u32,
}

/// This machine's fingerprint, given what only a trial can tell.
pub fn fingerprint(criu: Version, abilities: BTreeSet<String>) -> Result<Fingerprint, HostError> {
    let Cpu {
        vendor: cpu_vendor,
        features: cpu_features,
        xcr0,
        xsave_size,
    } = cpu()?;
    Ok(Fingerprint {
        cpu_vendor,
        cpu_features,
        xcr0,
        xsave_size,
        kernel: kernel()?,
        criu,
        abilities,
    })
}

/// The kernel that runs.
pub fn kernel() -> Result<Kernel, HostError> {
    let path = "/proc/sys/kernel/osrelease";
    let release = fs::read_to_string(path).map_err(|source| HostError::Read { path, source })?;
    Ok(release.trim().parse()?)
}

/// As much of /proc/cpuinfo as is read: the first CPU and more.
#[cfg(target_arch = "x86_64")]
const CPUINFO: u64 = 64 << 10;

/// The CPU that this thread runs on.
#[cfg(target_arch = "x86_64")]
pub fn cpu() -> Result<Cpu, HostError> {
    let path = "/proc/cpuinfo";
    let mut cpuinfo = Vec::new();
    let read = fs::File::open(path).and_then(|file| file.take(CPUINFO).read_to_end(&mut cpuinfo));
    read.map_err(|source| HostError::Read { path, source })?;
    let cpuinfo = String::from_utf8_lossy(&cpuinfo);
    let flags = cpuinfo
        .lines()
        .find_map(|line| line.strip_prefix("flags")?.split_once(':'))
        .map(|(_, flags)| flags);
    Ok(look(&raw_cpuid::native_cpuid::cpuid_count, flags))
}

/// The CPU that this thread runs on.
#[cfg(not(target_arch = "x86_64"))]
pub fn cpu() -> Result<Cpu, HostError> {
    Err(HostError::Architecture)
}

/// The CPUID instruction: leaf and subleaf to four registers.
type Cpuid<'a> = &'a dyn Fn(u32, u32) -> raw_cpuid::CpuIdResult;

/// What a CPU is by its answers, with the kernel's list of its flags.
fn look(cpuid: Cpuid<'_>, flags: Option<&str>) -> Cpu {
    let flags = flags.map(|flags| flags.split_whitespace().collect());
    let (xcr0, xsave_size) = state::enabled(cpuid, flags.as_ref());
    Cpu {
        vendor: vendor(cpuid),
        features: features::of(cpuid, xcr0),
        xcr0,
        xsave_size,
    }
}

fn vendor(cpuid: Cpuid<'_>) -> String {
    let leaf = cpuid(0, 0);
    let bytes = [leaf.ebx, leaf.edx, leaf.ecx]
        .map(u32::to_le_bytes)
        .concat();
    String::from_utf8_lossy(&bytes)
        .trim_matches('\0')
        .to_owned()
}

#[cfg(all(test, target_arch = "x86_64"))]
mod tests {
    use super::*;

    #[test]
    fn this_machine_has_a_fingerprint_that_admits_itself() {
        let slot = fingerprint(Version::new(4, 2, 0), BTreeSet::new()).unwrap();
        assert_eq!(slot.cpu_vendor.len(), 12, "{slot:?}");
        assert!(slot.kernel > Kernel(20_000), "{slot:?}");
        assert_eq!(slot.admits(&slot), Ok(()));
    }

    #[test]
    fn what_the_kernel_lists_and_programs_use_is_found() {
        let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap();
        let flags = cpuinfo
            .lines()
            .find(|line| line.starts_with("flags"))
            .unwrap();
        let cpu = cpu().unwrap();
        for flag in flags
            .split_whitespace()
            .filter(|flag| features::is_known(flag))
        {
            assert!(
                cpu.features.contains(flag),
                "{flag} is in /proc/cpuinfo only"
            );
        }
    }

    #[test]
    fn the_standard_area_is_as_large_as_its_components_need() {
        let cpu = cpu().unwrap();
        let cpuid = raw_cpuid::native_cpuid::cpuid_count;
        assert_eq!(state::size(&cpuid, cpu.xcr0), cpu.xsave_size, "{cpu:?}");
    }
}
