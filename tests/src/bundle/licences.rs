//! Whose work the bundle is made of, and where its source is.
//!
//! CRIU is under the GPL and some of its libraries are under the LGPL: whoever passes their programs on says under which terms
//! and offers the source. The crates that our programs are linked from ask for their notices.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use serde::Deserialize;

use crate::binaries;
use crate::roots::{self, HtCondor};

const README: &str = "\
Whose work this is
==================

criu-pilot, criu-starter and criu-transfer are under the Apache License 2.0:
../LICENSE. They are linked from crates with licences of their own, all in
crates.txt, and with musl, whose licence is in musl/copyright.

criu-bundle/ is CRIU, a program of its own under the GNU General Public License
version 2, with the libraries that it needs and their loader, all as Debian built
them, unchanged. criu-starter starts it and is not linked with it. Each package's
terms are in PACKAGE/copyright, and the licences that those name in common/.

The source
----------

The complete source of each package, with all that is needed to build it, is kept
by Debian for good at the address beside it. Whoever gives you this bundle also
owes you that source: ask for it where you got this, within three years, and you
get it on a medium of exchange for no more than the cost of the copy.

";

/// Files for the directory `licences`.
pub(super) fn collect(sources: &Path) -> Result<BTreeMap<String, Vec<u8>>> {
    let root = roots::get(HtCondor::V25)?;
    let mut files = BTreeMap::new();
    let mut readme = README.to_owned();
    let mut common = BTreeSet::new();
    for package in packages(&root)? {
        let (name, source) = (&package.name, &package.source);
        let version = &package.source_version;
        let _ = writeln!(
            readme,
            "{name} {}\n    https://snapshot.debian.org/package/{source}/{version}/",
            package.version
        );
        let text = read(&root.join("usr/share/doc").join(name).join("copyright"))?;
        common.extend(named(&text));
        files.insert(format!("{name}/copyright"), text);
    }
    let musl = read(Path::new("/usr/share/doc/musl-dev/copyright"))?;
    files.insert("musl/copyright".into(), musl);
    for name in common {
        // A link, as GPL to the newest one, is followed.
        let text = read(&root.join("usr/share/common-licenses").join(&name))?;
        files.insert(format!("common/{name}"), text);
    }
    files.insert("README".into(), readme.into());
    files.insert("crates.txt".into(), crates(sources)?.into());
    Ok(files)
}

/// A package of Debian's that something of the bundle comes from.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Package {
    name: String,
    version: String,
    source: String,
    source_version: String,
}

fn packages(root: &Path) -> Result<BTreeSet<Package>> {
    let database = root.join("var/lib/dpkg");
    let query = |args: &[&str]| {
        let admindir = format!("--admindir={}", database.display());
        output(Command::new("dpkg-query").arg(admindir).args(args))
    };
    let mut packages = BTreeSet::new();
    for path in binaries::parts_of_criu(root)? {
        // ldd names the loader by the link to /usr that programs know.
        let path = match path.strip_prefix("/usr") {
            Some(_) => path,
            None => format!("/usr{path}"),
        };
        let found = query(&["--search", &path])?;
        // Diversions are told of in lines of their own.
        let owner = found
            .lines()
            .filter(|line| !line.starts_with("diversion "))
            .find_map(|line| line.split([':', ',']).next())
            .with_context(|| format!("{path} is no package's"))?;
        let format = "--showformat=${Package}\\t${Version}\\t${source:Package}\\t${source:Version}";
        let facts = query(&["--show", format, owner])?;
        let [name, version, source, source_version] = facts
            .split('\t')
            .map(str::to_owned)
            .collect::<Vec<_>>()
            .try_into()
            .ok()
            .with_context(|| format!("dpkg-query says {facts:?}"))?;
        packages.insert(Package {
            name,
            version,
            source,
            source_version,
        });
    }
    Ok(packages)
}

/// The common licences that a text names.
fn named(text: &[u8]) -> Vec<String> {
    let text = String::from_utf8_lossy(text);
    let after = text.split("/usr/share/common-licenses/").skip(1);
    after
        .map(|rest| {
            let end = rest.find(|c: char| !c.is_ascii_alphanumeric() && !"-.".contains(c));
            rest[..end.unwrap_or(rest.len())]
                .trim_end_matches('.')
                .to_owned()
        })
        .filter(|name| !name.is_empty())
        .collect()
}

#[derive(Deserialize)]
struct Metadata {
    packages: Vec<Crate>,
}

#[derive(Deserialize)]
struct Crate {
    name: String,
    version: String,
    license: Option<String>,
    source: Option<String>,
    manifest_path: PathBuf,
}

/// The notices of all crates that the programs are linked from.
fn crates(sources: &Path) -> Result<String> {
    let cargo = || {
        let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        cargo.current_dir(sources);
        cargo
    };
    let mut tree = cargo();
    tree.args(["tree", "--locked", "--edges", "normal", "--prefix", "none"])
        .args(["--format", "{p}", "--target", binaries::MUSL]);
    for package in ["starter-plugin", "pilot", "file-transfer-plugin"] {
        tree.args(["--package", package]);
    }
    // "name v1.2.3", and for what is ours its directory.
    let linked: BTreeSet<(String, String)> = output(&mut tree)?
        .lines()
        .filter_map(|line| {
            let (name, rest) = line.split_once(" v")?;
            let version = rest.split(' ').next()?;
            Some((name.to_owned(), version.to_owned()))
        })
        .collect();
    let metadata = output(cargo().args(["metadata", "--locked", "--format-version=1"]))?;
    let mut metadata: Metadata = serde_json::from_str(&metadata)?;
    metadata
        .packages
        .sort_by(|a, b| (&a.name, &a.version).cmp(&(&b.name, &b.version)));
    // Hundreds of crates share a few texts.
    let mut texts: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for package in metadata.packages {
        let key = (package.name.clone(), package.version.clone());
        if package.source.is_none() || !linked.contains(&key) {
            continue;
        }
        let licence = package.license.as_deref().unwrap_or("see below");
        let title = format!("{} {}: {licence}", package.name, package.version);
        let dir = package
            .manifest_path
            .parent()
            .context("a manifest's directory")?;
        let mut found = notices(dir)?;
        if found.is_empty() {
            // Its manifest alone names its terms.
            texts.entry(String::new()).or_default().push(title.clone());
        }
        for notice in found.drain(..) {
            let text = String::from_utf8_lossy(&read(&notice)?).trim().to_owned();
            texts.entry(text).or_default().push(title.clone());
        }
    }
    ensure!(!texts.is_empty(), "cargo names no crate that is linked");
    let mut sections: Vec<(String, String)> = texts
        .into_iter()
        .map(|(text, mut crates)| {
            crates.dedup();
            (crates.join("\n"), text)
        })
        .collect();
    sections.sort();
    let section = |(crates, text)| format!("==== For\n{crates}\n\n{text}\n\n");
    Ok(sections.into_iter().map(section).collect())
}

/// The files of a crate that state its terms, sorted.
fn notices(dir: &Path) -> Result<Vec<PathBuf>> {
    const BEGINNINGS: [&str; 4] = ["LICENSE", "LICENCE", "COPYING", "NOTICE"];
    let mut found = Vec::new();
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let upper = name.to_ascii_uppercase();
        if path.is_file() && BEGINNINGS.iter().any(|word| upper.starts_with(word)) {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

fn read(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).with_context(|| format!("cannot read {}", path.display()))
}

fn output(command: &mut Command) -> Result<String> {
    let output = command
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("cannot run {command:?}"))?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{command:?}: {}", said.trim());
    Ok(String::from_utf8(output.stdout)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn common_licences_are_found_by_their_names() {
        let text =
            b"is in `/usr/share/common-licenses/GPL-2'.\n/usr/share/common-licenses/LGPL-2.1.\n";
        assert_eq!(named(text), ["GPL-2", "LGPL-2.1"]);
    }
}
