//! `condor_vars.lst`: which keys of `glidein_config` become slot attributes.
//!
//! ```text
//! # VarName  Type  Default  CondorName  Req.  ExportCondor  UserJobEnvName
//! ```

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

use super::{Plain, config};

/// Replaces or adds the lines of these attributes.
///
/// Not required (`N`), unlike other scripts' own: a missing value of a required
/// one ends the glidein, and CRIU is never worth that. No default, exported as a
/// slot attribute of the same name, not in a job's environment.
pub(crate) fn add(path: &Path, attributes: &[(String, Plain)]) -> Result<()> {
    let old = fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    let old = String::from_utf8_lossy(&old);
    let mut text: String = old
        .lines()
        .filter(|line| {
            let name = line.split_whitespace().next();
            !attributes.iter().any(|(ours, _)| name == Some(ours))
        })
        .map(|line| format!("{line}\n"))
        .collect();
    for (name, value) in attributes {
        text += &format!("{name} {} - + N Y -\n", value.kind());
    }
    if text == old {
        return Ok(());
    }
    config::replace(path, text.as_bytes())
        .with_context(|| format!("cannot write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_seven_columns_are_added_once() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("condor_vars.lst");
        fs::write(&path, "# comment\nSTART C - + N N -\nHasCRIU S - + Y Y -").unwrap();
        let attributes = [
            ("HasCRIU".to_owned(), Plain::Truth(true)),
            ("CRIUVersion".to_owned(), Plain::Text("4.2.1".into())),
            ("CRIUKernel".to_owned(), Plain::Number(60_118)),
        ];
        for _ in 0..2 {
            add(&path, &attributes).unwrap();
            let text = fs::read_to_string(&path).unwrap();
            assert_eq!(
                text,
                "# comment\nSTART C - + N N -\nHasCRIU C - + N Y -\n\
                 CRIUVersion S - + N Y -\nCRIUKernel I - + N Y -\n"
            );
        }
    }
}
