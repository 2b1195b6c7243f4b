//! The names of the ad attributes that this project defines, each in one place.
//!
//! Slot attributes are written by the pilot. Job attributes begin with `Chirp`, because a starter passes delayed updates of
//! such names on to the job's ad without any opt-in.

// --- the slot's ad -----------------------------------------------------------------------------------------------------

/// Whether a job was really frozen and thawed on this slot.
pub const HAS_CRIU: &str = "HasCRIU";
/// Why it was not.
pub const REASON: &str = "CRIUReason";
/// CRIU's version, always three numbers: `versionGE("4.2", "4.2.0")` is false.
pub const VERSION: &str = "CRIUVersion";
/// The pilot's own version.
pub const PILOT_VERSION: &str = "CRIUPilotVersion";
/// The version of the file-transfer plugin, from the plugin itself: that a startd has it is the proof that it is registered.
pub const TRANSFER_VERSION: &str = "CRIUTransferVersion";
/// What code may use of this CPU, sorted and comma separated, named as in /proc/cpuinfo.
pub const CPU_FEATURES: &str = "CRIUCpuFeatures";
/// The CPU's maker, as CPUID spells it.
pub const CPU_VENDOR: &str = "CRIUCpuVendor";
/// The state components that the kernel switched on.
pub const XCR0: &str = "CRIUXcr0";
/// The bytes that those components take in the standard layout.
pub const XSAVE_SIZE: &str = "CRIUXsaveSize";
/// The kernel, 60118 for 6.1.18.
pub const KERNEL: &str = "CRIUKernel";
/// What else was tried and works here, sorted and comma separated.
pub const ABILITIES: &str = "CRIUAbilities";
/// When the slot was probed, in seconds since 1970.
pub const PROBE_TIME: &str = "CRIUProbeTime";

// --- the job's ad, as its owner or the access point writes it -----------------------------------------------------------

/// The store that its images go to, `criu://HOST[:PORT]`.
pub const STORE: &str = "CRIUStore";

// --- the job's ad, from its first image on -----------------------------------------------------------------------------

/// The CPU features that the job may have used.
pub const JOB_CPU_FEATURES: &str = "ChirpCRIUCpuFeatures";
/// The maker of the CPUs that it ran on.
pub const JOB_CPU_VENDOR: &str = "ChirpCRIUCpuVendor";
/// The state components that it may hold.
pub const JOB_XCR0: &str = "ChirpCRIUXcr0";
/// The largest state area that it saw.
pub const JOB_XSAVE_SIZE: &str = "ChirpCRIUXsaveSize";
/// The kernel that its image was taken on.
pub const JOB_KERNEL: &str = "ChirpCRIUKernel";
/// The CRIU that took its image.
pub const JOB_VERSION: &str = "ChirpCRIUVersion";
/// The abilities that its image needs.
pub const JOB_ABILITIES: &str = "ChirpCRIUAbilities";

// --- the job's ad, for people: in Requirements each value would be an autocluster of its own ----------------------------

/// How many images there have been.
pub const JOB_GENERATION: &str = "ChirpCRIUGeneration";
/// The size of the newest.
pub const JOB_BYTES: &str = "ChirpCRIUBytes";
/// When it was taken, in seconds since 1970.
pub const JOB_TIME: &str = "ChirpCRIUTime";
/// The digest of its manifest, which commits to all of it.
pub const JOB_DIGEST: &str = "ChirpCRIUDigest";
/// Digests of images that the access point may have instead: an upload can fail after the newest was announced.
pub const JOB_DIGEST_BEFORE: &str = "ChirpCRIUDigestBefore";
/// How the newest went home: `spool` or `store`.
pub const JOB_LANE: &str = "ChirpCRIULane";
/// How often the job had been started when it was taken.
pub const JOB_STARTS: &str = "ChirpCRIUStarts";
/// Seconds for which images kept the job from running on its present slot.
pub const JOB_FROZEN_SECONDS: &str = "ChirpCRIUFrozenSeconds";
/// What would prevent an image if one were taken now.
pub const JOB_BLOCKERS: &str = "ChirpCRIUBlockers";
/// How long the newest took to dump, in seconds.
pub const JOB_DUMP_SECONDS: &str = "ChirpCRIUDumpSeconds";
/// How long it took to pack.
pub const JOB_PACK_SECONDS: &str = "ChirpCRIUPackSeconds";
/// Why the last attempt to freeze or to thaw failed, or did not use the store; undefined after one that worked.
pub const JOB_REASON: &str = "ChirpCRIUReason";
