//! Our own exit codes; the job's pass through untouched.

/// What `criu-starter` ends with when it is not the job's own end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum ExitCode {
    /// The job was frozen and its image is complete.
    Frozen = 85,
    /// The image cannot be restored on this slot; try another.
    NotHere = 87,
    /// The job ended by itself with the code that would make HTCondor start it again.
    Taken = 88,
    /// Something of ours failed before the job began.
    Failed = 125,
}

impl ExitCode {
    /// Whether a code says something of ours, or of the shell's.
    pub(crate) fn is_ours(code: i32) -> bool {
        [ExitCode::NotHere, ExitCode::Taken, ExitCode::Failed]
            .into_iter()
            .any(|own| own as i32 == code)
            || matches!(code, 126 | 127)
    }
}

/// The table for --help.
pub(crate) const HELP: &str = "\
Exit codes:
  the job's own   code for code; death by a signal is the same death
  85              frozen: checkpoint.criu is complete, run again to go on
  87              the image cannot be restored on this slot, but may be elsewhere
  88              the job itself ended with its checkpoint_exit_code, which HTCondor
                  would answer by starting it again for ever
  125             criu-starter failed before the job began
  126, 127        the command cannot be run, or does not exist";

impl From<ExitCode> for std::process::ExitCode {
    fn from(code: ExitCode) -> Self {
        (code as u8).into()
    }
}
