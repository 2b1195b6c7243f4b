//! Where a job is on its way from slot to slot, as far as `criu-starter`'s log and HTCondor's events tell it.

use std::fmt;
use std::fs;
use std::path::Path;

/// The image as it travels; while it is written, what is there of it has a longer name beside this one.
pub const ARCHIVE: &str = "checkpoint.criu";

/// What happens to the job now; in the order in which it does, over and over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// In the queue, never started.
    Idle,
    /// Its files, and an image if there is one, are on their way to a host.
    Coming,
    /// On the host, and `criu-starter` has not begun.
    Starting,
    /// The image is verified and unpacked.
    Unpacking,
    /// CRIU makes processes of the image.
    Thawing,
    /// It computes.
    Running,
    /// It stands still, and CRIU writes down what it is.
    Freezing,
    /// The image becomes one file.
    Packing,
    /// That file goes home.
    Leaving,
    /// In the queue, with an image.
    Waiting,
    /// Over.
    Ended,
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Idle => "idle",
            Self::Coming => "travelling to the host",
            Self::Starting => "starting",
            Self::Unpacking => "unpacking",
            Self::Thawing => "thawing",
            Self::Running => "running",
            Self::Freezing => "freezing",
            Self::Packing => "packing",
            Self::Leaving => "travelling to the access point",
            Self::Waiting => "waiting for a match",
            Self::Ended => "ended",
        })
    }
}

/// What the log of one start of `criu-starter` has said so far.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Told {
    /// The last stage that it named, in its own word.
    last: String,
    /// Size of the packed image.
    pub bytes: Option<u64>,
    /// From the signal to CRIU's end.
    pub freeze_seconds: Option<f64>,
    /// From then to the packed image.
    pub pack_seconds: Option<f64>,
    /// Whether the job was begun from an image here.
    pub from_image: bool,
}

impl Told {
    /// Reads a log, in which the job's own lines may stand too.
    pub fn read(log: &str) -> Self {
        let mut told = Self::default();
        for line in log.lines() {
            let Some(stage) = field(line, "stage") else {
                continue;
            };
            let seconds = field(line, "seconds").and_then(|seconds| seconds.parse().ok());
            match stage {
                "dumped" => told.freeze_seconds = seconds,
                "packed" => {
                    told.pack_seconds = seconds;
                    told.bytes = field(line, "bytes").and_then(|bytes| bytes.parse().ok());
                }
                "running" => told.from_image = field(line, "from") == Some("image"),
                _ => {}
            }
            stage.clone_into(&mut told.last);
        }
        told
    }

    /// Where that is.
    pub fn stage(&self) -> Stage {
        match self.last.as_str() {
            "begin" => Stage::Unpacking,
            "unpacked" => Stage::Thawing,
            "running" => Stage::Running,
            "vacating" => Stage::Freezing,
            "dumped" => Stage::Packing,
            "packed" => Stage::Leaving,
            _ => Stage::Starting,
        }
    }

    /// Where the job is when the log is gone: removed with the work directory at an end and after a freeze, not there yet before.
    pub fn stage_without_log(&self) -> Stage {
        match self.stage() {
            Stage::Freezing | Stage::Packing | Stage::Leaving => Stage::Leaving,
            Stage::Running => Stage::Ended,
            _ => Stage::Starting,
        }
    }
}

/// How much of an archive that is being written in the scratch directory is there.
pub fn unfinished_archive(scratch: &Path) -> Option<u64> {
    let twin = fs::read_dir(scratch).ok()?.flatten().find(|entry| {
        let name = entry.file_name();
        name != ARCHIVE && name.to_string_lossy().contains(ARCHIVE)
    })?;
    Some(twin.metadata().ok()?.len())
}

/// `name=value` or `name="value"` in a line of the log.
fn field<'a>(line: &'a str, name: &str) -> Option<&'a str> {
    let value = line
        .split(' ')
        .find_map(|word| word.strip_prefix(name)?.strip_prefix('='))?;
    Some(value.trim_matches('"'))
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOG: &str = "\
2026-01-02T03:04:05.000001Z  INFO stage=\"begin\" scratch=/x criu=\"4.2.1\" kernel=60118
2026-01-02T03:04:05.000001Z  INFO stage=\"unpacked\" generation=1 seconds=0.1
2026-01-02T03:04:05.000001Z  INFO stage=\"running\" from=\"image\" generation=1 seconds=0.2
a line of the job's
2026-01-02T03:04:06.000001Z  INFO stage=\"vacating\"
2026-01-02T03:04:07.000001Z  INFO stage=\"dumped\" seconds=0.75
2026-01-02T03:04:08.000001Z  INFO stage=\"packed\" bytes=1000 raw_bytes=3000 seconds=0.5
";

    #[test]
    fn a_log_tells_the_stage_at_every_line() {
        let stages: Vec<Stage> = (0..=7)
            .map(|lines| {
                let log: String = LOG.split_inclusive('\n').take(lines).collect();
                Told::read(&log).stage()
            })
            .collect();
        let expected = [
            Stage::Starting,
            Stage::Unpacking,
            Stage::Thawing,
            Stage::Running,
            Stage::Running,
            Stage::Freezing,
            Stage::Packing,
            Stage::Leaving,
        ];
        assert_eq!(stages, expected);
    }

    #[test]
    fn a_log_tells_what_the_freeze_cost() {
        let told = Told::read(LOG);
        assert_eq!(told.bytes, Some(1000));
        assert_eq!(told.freeze_seconds, Some(0.75));
        assert_eq!(told.pack_seconds, Some(0.5));
        assert!(told.from_image);
    }
}
