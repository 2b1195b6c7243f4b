//! The pilot as a glideinWMS custom script.
//!
//! | run | reads | writes |
//! |---|---|---|
//! | at the glidein's start | glidein_config, the site's exceptions | glidein_config, condor_vars.lst, condor_config.d, stdout, XML |
//! | periodically, by the startd | the same | stdout, which is the slot's ad, and XML |
//!
//! Both run what both must: the probe. Whatever it finds, and whatever fails on
//! the way, the script ends with 0: a glidein that cannot freeze jobs is as good
//! as any other for all that do not ask.

mod config;
mod report;
mod vars;

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, Result};
use classad::{ClassAd, Value};
use file_transfer_plugin::attributes;

use crate::{advertise, configure, exceptions, probe};
use config::Config;
use report::Report;

/// OSPool's form of the name, beside ours.
const HAS_CRIU: &str = "HAS_CRIU";

/// Parsed after HTCondor's main configuration and OSPool's own files.
const POLICY_FILE: &str = "60-criu-pilot.conf";

/// From here on the startd has its configuration, and writing has no reader.
const SAVED: &str = "glidein_config.saved";

/// Publishes what this node can do; an error is for the log, not for the glidein.
pub(crate) fn run(path: &Path, id: &str, starter: Option<PathBuf>) -> Result<()> {
    let mut report = Report::new(&format!("criu-pilot {id}"));
    let published = probe_and_publish(path, starter, &mut report);
    if let Err(error) = &published {
        report.metric("CRIUWarning", &format!("{error:#}"));
    }
    report.write(Path::new("."))?;
    published
}

fn probe_and_publish(path: &Path, starter: Option<PathBuf>, report: &mut Report) -> Result<()> {
    let begun = Instant::now();
    let config = Config::read(path)?;
    let workspace = workspace(&config, path);
    let blocked = blocked(&config);
    let answer = match &blocked {
        Some(reason) => Err(reason.clone()),
        None => probe::probe(&probe::Options {
            starter,
            dir: Some(workspace.clone()),
            site: None,
        })?,
    };
    let mut ad = advertise::slot_ad(&answer);
    ad.insert(HAS_CRIU, answer.is_ok());
    for (name, value) in plain(&ad) {
        println!("{name} = {value}");
    }

    let has = Plain::Truth(answer.is_ok());
    report.metric(attributes::HAS_CRIU, &has.to_string());
    if let Err(reason) = &answer {
        report.metric(attributes::REASON, reason);
    }
    let seconds = begun.elapsed().as_secs_f64();
    report.metric("CRIUProbeSeconds", &format!("{seconds:.3}"));
    if is_periodic() || workspace.join(SAVED).exists() {
        return Ok(());
    }
    publish(&config, &ad, &workspace, blocked.is_some())
}

/// By the site's exceptions.
fn blocked(config: &Config) -> Option<String> {
    let dirs = [
        "GLIDECLIENT_GROUP_WORK_DIR",
        "GLIDECLIENT_WORK_DIR",
        "GLIDEIN_WORK_DIR",
    ];
    let dirs = dirs
        .iter()
        .filter_map(|key| config.get(key))
        .map(Into::into);
    let glidein = config
        .get("GLIDEIN_WORKSPACE_ORIG")
        .or_else(|| config.get("GLIDEIN_WORK_DIR"));
    let site = config.get("GLIDEIN_Site").unwrap_or_default();
    exceptions::blocked(site, glidein.unwrap_or_default(), dirs)
}

fn is_periodic() -> bool {
    env::var("GLIDEIN_PERIODIC_SCRIPT").is_ok_and(|value| value == "true")
}

/// The glidein's own directory, in which the startd will work.
fn workspace(config: &Config, path: &Path) -> PathBuf {
    let named = config.get("GLIDEIN_WORKSPACE_ORIG").map(PathBuf::from);
    let main = config.get("GLIDEIN_WORK_DIR").map(PathBuf::from);
    named
        .or_else(|| main?.parent().map(Path::to_owned))
        .filter(|dir| dir.is_dir())
        .or_else(|| path.canonicalize().ok()?.parent().map(Path::to_owned))
        .unwrap_or_else(env::temp_dir)
}

/// The startup run's files.
fn publish(config: &Config, ad: &ClassAd, workspace: &Path, blocked: bool) -> Result<()> {
    let vars = config
        .get("CONDOR_VARS_FILE")
        .context("glidein_config names no CONDOR_VARS_FILE, so the startd will not know of CRIU")?;
    let plain: Vec<_> = plain(ad).collect();
    config.add(
        plain
            .iter()
            .map(|(name, value)| (name.as_str(), value.in_config())),
    )?;
    vars::add(Path::new(vars), &plain)?;

    let dir = workspace.join("condor_config.d");
    let file = dir.join(POLICY_FILE);
    // Where it is switched off, nothing of the slots' policy is ours.
    if blocked {
        return match fs::remove_file(&file) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(error).with_context(|| format!("cannot remove {}", file.display()))
            }
            _ => Ok(()),
        };
    }
    fs::create_dir_all(&dir)
        .and_then(|()| config::replace(&file, configure::policy().as_bytes()))
        .with_context(|| format!("cannot write {}", file.display()))
}

/// A value that survives a shell, a line of configuration and an ad.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Plain {
    Text(String),
    Number(i64),
    Truth(bool),
}

impl Plain {
    /// As a value of glidein_config, to which condor_startup.sh adds the quotes.
    fn in_config(&self) -> String {
        match self {
            // An empty value would be a missing one there.
            Plain::Text(text) if text.is_empty() => "\"\"".to_owned(),
            Plain::Text(text) => text.clone(),
            other => other.to_string(),
        }
    }

    /// The type in condor_vars.lst: string with quotes added, integer, expression.
    fn kind(&self) -> char {
        match self {
            Plain::Text(text) if !text.is_empty() => 'S',
            Plain::Number(_) => 'I',
            _ => 'C',
        }
    }
}

impl std::fmt::Display for Plain {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Plain::Text(text) => write!(f, "\"{text}\""),
            Plain::Number(number) => write!(f, "{number}"),
            Plain::Truth(true) => f.write_str("True"),
            Plain::Truth(false) => f.write_str("False"),
        }
    }
}

fn plain(ad: &ClassAd) -> impl Iterator<Item = (String, Plain)> {
    ad.iter().filter_map(|(name, expr)| {
        let value = match expr.literal()? {
            Value::Bool(truth) => Plain::Truth(truth),
            Value::Int(number) => Plain::Number(number),
            Value::Str(text) => Plain::Text(harmless(&text.to_str())),
            _ => return None,
        };
        Some((name.into_owned(), value))
    })
}

/// condor_startup.sh runs `eval "NAME='VALUE'"`, and HTCondor expands `$(…)`.
fn harmless(text: &str) -> String {
    text.chars()
        .map(|letter| match letter {
            '\'' | '"' | '`' | '$' => ' ',
            '\\' => '/',
            letter if letter.is_ascii() && !letter.is_control() => letter,
            _ => '.',
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_value_gets_out_of_its_quotes() {
        assert_eq!(
            harmless("it's \"$(rm -rf)\" `x` \\ …\n"),
            "it s   (rm -rf)   x  / .."
        );
        let empty = Plain::Text(String::new());
        assert_eq!((empty.in_config().as_str(), empty.kind()), ("\"\"", 'C'));
        assert_eq!(Plain::Text("a b".into()).in_config(), "a b");
        assert_eq!(Plain::Truth(true).to_string(), "True");
    }
}
