//! What a thawed job's environment does not tell it: where things are on this slot.
//!
//! Its environment is memory, and as it was at its first start. A file in its directory has what may have changed, new
//! at every start, in words that a shell reads: `. /srv/.criu/environment`.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// Beside the job's standard streams.
const FILE: &str = "environment";

/// What the starter sets for a slot. Others are the user's, and some of them secrets that no file is to hold.
const PREFIXES: [&str; 3] = ["_CONDOR_", "_CHIRP_", "CONDOR_"];
const NAMES: [&str; 10] = [
    "TMPDIR",
    "TMP",
    "TEMP",
    "BATCH_SYSTEM",
    "OMP_NUM_THREADS",
    "CUBACORES",
    "GOMAXPROCS",
    "CUDA_VISIBLE_DEVICES",
    "X509_USER_PROXY",
    "BEARER_TOKEN_FILE",
];

/// Writes the file into the directory of the job's streams.
pub(crate) fn write<'a>(
    dir: &Path,
    environment: impl Iterator<Item = &'a (OsString, OsString)>,
) -> io::Result<()> {
    let mut text = Vec::new();
    for (name, value) in environment.filter(|(name, _)| belongs(name)) {
        text.extend([b"export ", name.as_bytes(), b"="].concat());
        quote(value.as_bytes(), &mut text);
        text.push(b'\n');
    }
    let path = dir.join(FILE);
    // A job that reads it now has the old one or the new one.
    let fresh = dir.join("environment.new");
    let mut file = fs::File::create(&fresh)?;
    file.write_all(&text)?;
    fs::rename(fresh, path)
}

fn belongs(name: &OsStr) -> bool {
    let word = |byte: &u8| byte.is_ascii_alphanumeric() || *byte == b'_';
    let begins = |prefix: &str| name.as_bytes().starts_with(prefix.as_bytes());
    // The shell would take a name with other signs in it for a command.
    name.as_bytes().iter().all(word)
        && (PREFIXES.iter().any(|prefix| begins(prefix)) || NAMES.iter().any(|own| name == *own))
}

fn quote(value: &[u8], text: &mut Vec<u8>) {
    text.push(b'\'');
    for byte in value {
        match byte {
            b'\'' => text.extend(b"'\\''"),
            byte => text.push(*byte),
        }
    }
    text.push(b'\'');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shell_reads_it_and_finds_no_secrets() {
        let dir = tempfile::tempdir().unwrap();
        let pair = |name: &str, value: &str| (OsString::from(name), OsString::from(value));
        let environment = [
            pair("_CONDOR_SLOT", "slot1_1"),
            pair("TMPDIR", "/srv/it's $HOME\nhere"),
            pair("_CONDOR_$(reboot)", "x"),
            pair("BEARER_TOKEN", "secret"),
            pair("HOME", "/home/alice"),
        ];
        write(dir.path(), environment.iter()).unwrap();
        let text = fs::read_to_string(dir.path().join(FILE)).unwrap();
        assert!(!text.contains("secret") && !text.contains("reboot") && !text.contains("alice"));
        let output = std::process::Command::new("sh")
            .args(["-c", ". ./environment; printf %s \"$_CONDOR_SLOT|$TMPDIR\""])
            .current_dir(dir.path())
            .output()
            .unwrap();
        assert_eq!(output.stdout, b"slot1_1|/srv/it's $HOME\nhere");
    }
}
