//! Our own exit codes; the job's pass through untouched.

/// What `criu-starter` ends with when it is not the job's own end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum ExitCode {
    /// The job was frozen and its image is complete.
    Frozen = 85,
    /// The image cannot be restored on this slot; try another.
    NotHere = 87,
    /// Something of ours failed before the job began.
    Failed = 125,
}

/// The table for --help.
pub(crate) const HELP: &str = "\
Exit codes:
  the job's own   code for code; death by a signal is the same death
  85              frozen: checkpoint.criu is complete, run again to go on
  87              the image cannot be restored on this slot, but may be elsewhere
  125             criu-starter failed before the job began
  126, 127        the command cannot be run, or does not exist";

impl From<ExitCode> for std::process::ExitCode {
    fn from(code: ExitCode) -> Self {
        (code as u8).into()
    }
}
