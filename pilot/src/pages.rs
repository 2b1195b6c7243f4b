//! Manual pages and completions, made from the command line itself, so that neither can say something else.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use clap::Command;
use clap_complete::Shell;
use clap_mangen::Man;

/// The program's page, as roff.
pub(crate) fn manual(command: Command) -> Result<String> {
    let mut page = Vec::new();
    Man::new(command).render(&mut page)?;
    Ok(String::from_utf8(page)?)
}

/// A page for the program and one for each subcommand.
pub(crate) fn manuals(command: Command, dir: &Path) -> Result<()> {
    fs::create_dir_all(dir).with_context(|| format!("cannot make {}", dir.display()))?;
    clap_mangen::generate_to(command, dir)
        .with_context(|| format!("cannot write manual pages into {}", dir.display()))
}

/// A script for a shell.
pub(crate) fn completions(mut command: Command, shell: Shell) -> Result<String> {
    let name = command.get_name().to_owned();
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut command, name, &mut script);
    Ok(String::from_utf8(script)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn program() -> Command {
        Command::new("demo")
            .about("What it is")
            .subcommand(Command::new("sub").about("A part"))
            .subcommand(Command::new("secret").hide(true))
    }

    #[test]
    fn each_subcommand_has_a_page() {
        let dir = tempfile::tempdir().unwrap();
        manuals(program(), dir.path()).unwrap();
        let mut pages: Vec<_> = fs::read_dir(dir.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        pages.sort();
        assert_eq!(pages, ["demo-sub.1", "demo.1"]);
        assert!(manual(program()).unwrap().contains("What it is"));
    }

    #[test]
    fn shells_learn_the_subcommands() {
        for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
            let script = completions(program(), shell).unwrap();
            assert!(script.contains("sub"), "{shell}");
        }
    }
}
