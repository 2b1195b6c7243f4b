//! Other CPUs, emulated: what happens to a job that was frozen on one and goes on on another.
//!
//! Whether a slot admits an image is decided by a rule, and here the rule is confronted with what happens: programs are frozen
//! under a kernel of Debian's on each of some CPUs of QEMU's and on the machine itself, and each image is thawed on each of
//! them, whatever the rule says. QEMU translates; it is no silicon, but it refuses an instruction that its CPU does not show and
//! has a register area of the size that CPUID says, which is what the rule is about. It has no AVX-512, which the machine
//! itself may have.
//!
//! | module | takes -> gives |
//! |---|---|
//! | [`kernel`] | Debian -> a kernel and the modules that CRIU needs |
//! | [`programs`] | C sources -> programs that use one kind of instructions each |
//! | [`tree`] | our programs, CRIU's bundle, those -> a root for all CPUs |
//! | `qemu` | a CPU's name, a root, a plan -> a report |
//! | [`here`] | a root, a plan -> a report of this machine's own CPU |
//! | [`guest`] | inside: a plan -> a report |
//! | [`report`] | the words of plan and report |
//! | [`measure`] | CPUs -> [`matrix::Matrix`] |
//! | [`matrix`] | what was measured, and what the rule says to it |

pub mod kernel;

pub mod programs;

pub mod report;

pub mod tree;

pub mod guest;

mod qemu;

pub mod here;

pub mod measure;

pub mod matrix;
