//! An inspection for people. Names come from the archive, so nothing of them reaches a terminal as it is.

use std::fmt::Write;

use super::Inspection;
use crate::manifest::Head;
use crate::unpack::Archive;

/// More lines of one kind than this are counted.
const LINES: usize = 40;

/// As a program reads it.
#[derive(serde::Serialize)]
struct Whole<'a> {
    digest: String,
    head: &'a Head,
    found: &'a Inspection,
}

impl Inspection {
    /// As JSON, with what the manifest says of the job and of the slot that it needs.
    pub fn json(&self, archive: &Archive) -> String {
        let whole = Whole {
            digest: archive.digest().to_string(),
            head: &archive.manifest().head,
            found: self,
        };
        serde_json::to_string_pretty(&whole).expect("numbers, strings and lists of them are JSON")
    }

    /// The text.
    pub fn text(&self, archive: &Archive) -> String {
        let manifest = archive.manifest();
        let (head, contents) = (&manifest.head, &manifest.contents);
        let print = &head.fingerprint;
        let features: Vec<&str> = print.cpu_features.iter().map(String::as_str).collect();
        let mut out = String::new();
        let mut line = |what: &str, text: String| {
            let _ = writeln!(out, "{what:<11} {text}");
        };
        line("digest", archive.digest().to_string());
        line("format", manifest.format.to_string());
        line("generation", head.generation.to_string());
        line("created", head.created.to_string());
        line("job", head.resume.argv.join(" ").escape_debug().to_string());
        line("starts", head.resume.job_starts.to_string());
        line("memory", format!("{} bytes", head.resume.memory_bytes));
        let (packed, raw) = self.size;
        line(
            "archive",
            format!(
                "{packed} bytes for {raw} in {} chunks ({:.1} to 1)",
                contents.frames.len(),
                raw as f64 / packed.max(1) as f64
            ),
        );
        line(
            "needs",
            format!(
                "CRIU {}, kernel {}, {}",
                print.criu, print.kernel, print.cpu_vendor
            ),
        );
        line(
            "",
            format!(
                "xcr0 {:#x}, {} bytes of registers",
                print.xcr0, print.xsave_size
            ),
        );
        line("", features.join(" "));
        for process in self.processes.iter().take(LINES) {
            line(
                "process",
                format!(
                    "{} {} (child of {}), {} threads, {} bytes",
                    process.pid,
                    process.name.escape_debug(),
                    process.parent,
                    process.threads,
                    process.bytes
                ),
            );
        }
        rest(&mut line, "process", self.processes.len());
        for (kind, bytes) in &self.memory {
            line("pages", format!("{kind}: {bytes} bytes"));
        }
        for (kind, count) in &self.descriptors {
            line("open", format!("{kind}: {count}"));
        }
        for (what, names) in [("file", &self.files), ("library", &self.libraries)] {
            for name in names.iter().take(LINES) {
                line(what, name.escape_debug().to_string());
            }
            rest(&mut line, what, names.len());
        }
        for (tree, (count, bytes)) in &self.trees {
            line("tree", format!("{tree}: {count} entries, {bytes} bytes"));
        }
        for left_out in &contents.left_out {
            line(
                "left out",
                format!("{}: {}", left_out.path, left_out.why.escape_debug()),
            );
        }
        out
    }
}

fn rest(line: &mut impl FnMut(&str, String), what: &str, count: usize) {
    if count > LINES {
        line(what, format!("and {} more", count - LINES));
    }
}
