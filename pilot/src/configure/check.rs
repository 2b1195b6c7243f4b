//! What of a live configuration would defeat a checkpoint, and why.
//!
//! The expressions are not compared with ours but evaluated, for a job that wants
//! CRIU on a slot that has it, as the startd would at the moments that matter.

use std::collections::HashMap;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail};
use classad::{ClassAd, Expr, Scope, Value};

/// Images of ordinary jobs take seconds, and their way may take minutes.
const ENOUGH_SECONDS: i64 = 600;

/// Macros in macros; HTCondor itself gives up on circles.
const DEPTH: u32 = 32;

/// A file in the style of `condor_config_val -dump`, or this node's own startd.
pub(crate) fn read_configuration(file: Option<&Path>) -> Result<String> {
    if let Some(file) = file {
        return fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()));
    }
    let output = Command::new("condor_config_val")
        .args(["-subsystem", "STARTD", "-dump"])
        .stdin(Stdio::null())
        .output()
        .context("cannot run condor_config_val; give --check a file with what it dumps")?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        bail!(
            "condor_config_val ended with {}: {}",
            output.status,
            said.trim()
        );
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// One sentence for each setting that defeats a checkpoint.
pub(crate) fn check(dump: &str) -> Vec<String> {
    let slot = Slot::of(Settings::parse(dump));
    [
        slot.probe(),
        slot.start(),
        slot.retirement(),
        slot.vacate_time(),
        slot.soft_kill(),
        slot.kill(),
        slot.end(),
        slot.shutdown(),
        slot.chirp(),
    ]
    .into_iter()
    .flatten()
    .collect()
}

struct Settings(HashMap<String, String>);

impl Settings {
    fn parse(dump: &str) -> Settings {
        let lines = dump
            .lines()
            .filter(|line| !line.trim_start().starts_with('#'));
        Settings(
            lines
                .filter_map(|line| line.split_once('='))
                .map(|(name, value)| (name.trim().to_lowercase(), value.trim().to_owned()))
                .collect(),
        )
    }

    fn raw(&self, name: &str) -> Option<&str> {
        self.0
            .get(&name.to_lowercase())
            .map(String::as_str)
            .filter(|value| !value.is_empty())
    }

    fn get(&self, name: &str) -> Option<String> {
        self.raw(name).map(|value| self.expanded(value, DEPTH))
    }

    /// With `$(NAME)` and `$(NAME:default)` replaced.
    fn expanded(&self, text: &str, depth: u32) -> String {
        let Some((before, rest)) = text.split_once("$(") else {
            return text.to_owned();
        };
        let Some((macro_, after)) = rest.split_once(')') else {
            return text.to_owned();
        };
        let (name, default) = macro_.split_once(':').unwrap_or((macro_, ""));
        let value = match self.raw(name).unwrap_or(default) {
            value if depth > 0 => self.expanded(value, depth - 1),
            _ => String::new(),
        };
        format!("{before}{value}{}", self.expanded(after, depth))
    }
}

/// A slot of this configuration, and the job.
struct Slot {
    settings: Settings,
    job: ClassAd,
    now: i64,
}

impl Slot {
    fn of(settings: Settings) -> Slot {
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |since| since.as_secs() as i64);
        let mut job = ClassAd::new();
        job.insert("WantCRIU", true);
        job.insert("JobUniverse", 5_i64);
        Slot { settings, job, now }
    }

    /// A setting's value for the job, `seconds` after the slot's state changed and
    /// `left` before the pilot's end.
    fn value(&self, name: &str, has_criu: bool, seconds: i64, left: i64) -> Option<Value> {
        let text = self.settings.get(name)?;
        let Ok(expr) = Expr::parse(&text) else {
            return Some(Value::Error);
        };
        let mut slot = ClassAd::new();
        for name in self
            .settings
            .get("STARTD_ATTRS")
            .unwrap_or_default()
            .split([' ', ','])
        {
            if let Some(value) = self.settings.get(name) {
                // What cannot be read is a matter of the startd's, and no attribute here.
                let _ = slot.insert_parsed(name, &value);
            }
        }
        slot.insert("HasCRIU", has_criu);
        slot.insert("CurrentTime", self.now);
        slot.insert("EnteredCurrentActivity", self.now - seconds);
        slot.insert("EnteredCurrentState", self.now - seconds);
        if self.settings.raw("GLIDEIN_ToDie").is_some() {
            slot.insert("GLIDEIN_ToDie", self.now + left);
            slot.insert("GLIDEIN_ToRetire", self.now + left);
        }
        Some(Scope::new(&slot).target(&self.job).evaluate_expr(&expr))
    }

    fn seconds(&self, name: &str, default: i64) -> i64 {
        let value = self.value(name, true, 0, 100_000);
        value.map_or(default, |value| value.as_int().unwrap_or(default))
    }

    fn probe(&self) -> Option<String> {
        let asks = self.settings.0.iter().any(|(name, value)| {
            name.starts_with("startd_cron_")
                && name.ends_with("_executable")
                && value.contains("criu-pilot")
        });
        let says = self.settings.raw("HasCRIU").is_some();
        (!asks && !says).then(|| {
            "nothing tells HasCRIU of the slots, so no job with WantCRIU matches: add what \
             `criu-pilot configure ep` prints"
                .to_owned()
        })
    }

    fn start(&self) -> Option<String> {
        let value = self.value("START", false, 0, 100_000)?;
        (value.truth() == Some(true)).then(|| {
            "START lets a job with WantCRIU begin on a slot where the probe failed: such a job \
             runs there unprotected, if its own requirements are weak"
                .to_owned()
        })
    }

    fn retirement(&self) -> Option<String> {
        let seconds = self.seconds("MaxJobRetirementTime", 0);
        (seconds > 0).then(|| {
            format!(
                "MaxJobRetirementTime is {seconds} s for a job with WantCRIU: so long nobody asks \
                 it to leave, and at the end of the slot it is killed; make it 0 for such jobs"
            )
        })
    }

    fn vacate_time(&self) -> Option<String> {
        let seconds = self.seconds("MachineMaxVacateTime", 600);
        (seconds < ENOUGH_SECONDS).then(|| {
            format!(
                "MachineMaxVacateTime leaves {seconds} s for freezing, packing and sending: give \
                 jobs with WantCRIU at least {ENOUGH_SECONDS}"
            )
        })
    }

    fn soft_kill(&self) -> Option<String> {
        let value = self.value("WANT_VACATE", true, 0, 100_000)?;
        (value.truth() == Some(false)).then(|| {
            "WANT_VACATE is false: a preempted job is killed without a signal; make it true for \
             jobs with WantCRIU"
                .to_owned()
        })
    }

    fn kill(&self) -> Option<String> {
        let pledged = self.seconds("MachineMaxVacateTime", 600);
        let killed = |seconds| {
            let value = self.value("KILL", true, seconds, 100_000)?;
            (value.truth() == Some(true)).then_some(seconds)
        };
        // A minute's steps tell as much as anybody can use.
        let seconds = (0..pledged).step_by(60).find_map(killed)?;
        Some(format!(
            "KILL ends a job that is being frozen after {seconds} s at most, though \
             MachineMaxVacateTime pledges {pledged}: make it wait as long for jobs with WantCRIU"
        ))
    }

    fn end(&self) -> Option<String> {
        self.settings.raw("GLIDEIN_ToDie")?;
        let preempted = self
            .value("PREEMPT", true, 0, ENOUGH_SECONDS)
            .is_some_and(|value| value.truth() == Some(true));
        (!preempted).then(|| {
            format!(
                "{ENOUGH_SECONDS} s before GLIDEIN_ToDie, PREEMPT asks no job with WantCRIU to \
                 leave, and after it there is no time: add what `criu-pilot configure glidein` prints"
            )
        })
    }

    fn shutdown(&self) -> Option<String> {
        let seconds = self.seconds("SHUTDOWN_GRACEFUL_TIMEOUT", 1800);
        let pledged = self.seconds("MachineMaxVacateTime", 600);
        (seconds < pledged).then(|| {
            format!(
                "SHUTDOWN_GRACEFUL_TIMEOUT is {seconds} s: a shutdown, and 23.9's starter at any \
                 eviction, kills a job before the {pledged} s of MachineMaxVacateTime are over"
            )
        })
    }

    fn chirp(&self) -> Option<String> {
        let off = self
            .settings
            .get("ENABLE_CHIRP_DELAYED")
            .is_some_and(|value| value.eq_ignore_ascii_case("false"));
        let prefixes = self.settings.get("CHIRP_DELAYED_UPDATE_PREFIX");
        let refused = prefixes.is_some_and(|list| {
            !list
                .split([' ', ','])
                .any(|prefix| "chirpcriu*".starts_with(prefix.to_lowercase().trim_end_matches('*')))
        });
        (off || refused).then(|| {
            "chirp's delayed updates are refused (ENABLE_CHIRP_DELAYED, CHIRP_DELAYED_UPDATE_PREFIX): \
             the access point never learns what an image needs, and the job may match a slot that \
             cannot run it; allow names that begin with Chirp"
                .to_owned()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GLIDEINWMS: &str = "\
# glideinWMS's defaults
GLIDEIN_ToDie = 1795190000
STARTD_ATTRS = GLIDEIN_Site GLIDEIN_ToDie
PREEMPT_GRACE_TIME = 10000000
MaxJobRetirementTime = $(PREEMPT_GRACE_TIME)
MachineMaxVacateTime = $(MaxVacateTime:600)
PREEMPT = $(HOLD_CONDITION:False) || False
START = time() < GLIDEIN_ToRetire
KILL = (CurrentTime - EnteredCurrentActivity) > 300
WANT_VACATE = True
SHUTDOWN_GRACEFUL_TIMEOUT = 120
";

    #[test]
    fn the_defaults_of_glideinwms_defeat_a_checkpoint_in_five_ways() {
        let found = check(GLIDEINWMS);
        for word in [
            "nothing tells HasCRIU",
            "START lets",
            "MaxJobRetirementTime is 10000000 s",
            "KILL ends",
            "PREEMPT asks no job",
            "SHUTDOWN_GRACEFUL_TIMEOUT is 120 s",
        ] {
            assert!(
                found
                    .iter()
                    .any(|found| found.starts_with(word) || found.contains(word)),
                "{word}: {found:#?}"
            );
        }
        assert_eq!(found.len(), 6, "{found:#?}");
    }

    #[test]
    fn what_we_print_defeats_nothing() {
        // As HTCondor reads it: a name in its own value is the value before.
        let ours = super::super::glidein(Path::new("/opt/criu-pilot")).replace("\\\n", "");
        let mut dump = Settings::parse(GLIDEINWMS).0;
        for line in ours.lines().filter(|line| !line.starts_with('#')) {
            let Some((name, value)) = line.split_once(" = ") else {
                continue;
            };
            let old = dump.get(&name.to_lowercase()).cloned();
            let mut value = value.to_owned();
            for form in [format!("$({name})"), format!("$({name}:")] {
                while let Some(start) = value.find(&form) {
                    let end = start + value[start..].find(')').unwrap();
                    let default = value[start..end]
                        .split_once(':')
                        .map_or("", |(_, text)| text);
                    let text = old.clone().unwrap_or_else(|| default.to_owned());
                    value.replace_range(start..=end, &text);
                }
            }
            dump.insert(name.to_lowercase(), value);
        }
        let dump: String = dump
            .iter()
            .map(|(name, value)| format!("{name} = {value}\n"))
            .collect();
        assert_eq!(check(&dump), Vec::<String>::new(), "{dump}");
    }

    #[test]
    fn chirp_that_refuses_our_names_is_found() {
        let found = |line: &str| {
            let found = check(line);
            found.iter().any(|found| found.starts_with("chirp's"))
        };
        assert!(found("CHIRP_DELAYED_UPDATE_PREFIX = Mine*"));
        assert!(found("enable_chirp_delayed = false"));
        assert!(!found("CHIRP_DELAYED_UPDATE_PREFIX = Chirp*, Mine*"));
        assert!(!found(""));
    }
}
