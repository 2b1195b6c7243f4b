//! What an image asks of a slot when its job was to see less of the CPU.

use std::collections::BTreeSet;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use tests::binaries;
use tests::require;
use tests::roots::HtCondor;

use super::run::{self, Stop};
use super::table::{Outcome, Row, TABLE};

const V3: &[&str] = &["--baseline", "x86-64-v3"];

/// AVX-512 and AMX: what lies above level 3 in XCR0 and code can have written.
const ABOVE: u64 = 0x600e0;

/// An image's fingerprint.
struct Asked {
    features: BTreeSet<String>,
    xcr0: u64,
}

fn asked(row: &Row, stop: Stop<'_>) -> Result<Asked> {
    let image = run::freeze(row, stop)?;
    let inspect = binaries::dir()?.join("criu-transfer");
    let output = Command::new(inspect)
        .args(["inspect", "--json"])
        .arg(&image)
        .output()?;
    ensure!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let manifest: Value = serde_json::from_slice(&output.stdout)?;
    let print = &manifest["head"]["fingerprint"];
    let words = print["cpu_features"].as_array().context("features")?;
    let words = words.iter().filter_map(Value::as_str);
    Ok(Asked {
        features: words.map(str::to_owned).collect(),
        xcr0: print["xcr0"].as_u64().context("xcr0")?,
    })
}

fn row(name: &str) -> &'static Row {
    let row = TABLE.iter().find(|row| row.name() == name);
    row.expect("a row of the table")
}

fn host() -> Stop<'static> {
    match super::shared(HtCondor::V25, "runtimes") {
        Ok(stop) => stop,
        Err(error) => panic!("{error}"),
    }
}

fn try_all(names: &[&str], check: impl Fn(&Row, Asked, Asked) -> Result<()>) {
    let stop = host();
    let hidden = Stop {
        options: V3,
        ..stop
    };
    let mut failures = Vec::new();
    for name in names {
        let row = row(name);
        let tried = asked(row, stop)
            .and_then(|all| check(row, all, asked(row, hidden)?))
            // And it runs, on the level that it was told.
            .and_then(|()| run::check(row, Outcome::GoesOn, &[hidden; 2], ""));
        if let Err(error) = tried {
            failures.push(format!("{name}: {error:#}"));
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n\n"));
}

#[test]
fn a_hidden_cpu_is_not_asked_for_where_nothing_shows_that_it_was_used() {
    require!(root, namespaces, roots);
    let names = ["numpy-threads.py", "openmp", "go.elv"];
    try_all(&names, |_, all, less| {
        ensure!(less.features.is_subset(&all.features));
        ensure!(less.xcr0 == all.xcr0 & 0x7, "{:#x}", less.xcr0);
        let above = |word: &&String| word.starts_with("avx512") || word.starts_with("amx");
        let above = less.features.iter().find(above);
        ensure!(above.is_none(), "{above:?}");
        Ok(())
    });
}

#[test]
fn what_was_used_or_chosen_by_itself_is_asked_for_all_the_same() {
    require!(root, namespaces, roots);
    // A JVM and R's libdeflate look at the CPU themselves; a program that empties its environment is told nothing.
    try_all(&["jvm.js", "r.R", "unhidden.sh"], |row, all, less| {
        // Where the CPU has no more than that level, there is nothing to use.
        if all.xcr0 & ABOVE != 0 || row.name() == "jvm.js" {
            ensure!(less.features == all.features, "{:?}", less.features);
            ensure!(less.xcr0 == all.xcr0, "{:#x}", less.xcr0);
        }
        Ok(())
    });
}
