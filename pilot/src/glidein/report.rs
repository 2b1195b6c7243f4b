//! `otrb_output.xml`: what glideinWMS's `error_gen.sh -ok` would write, with
//! values escaped, which that does not do.

use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};

use super::config;

const FILE: &str = "otrb_output.xml";

/// A result that is always OK: a node without CRIU is no bad node.
pub(crate) struct Report {
    id: String,
    time: String,
    metrics: String,
}

impl Report {
    pub(crate) fn new(id: &str) -> Report {
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |since| since.as_secs());
        Report {
            id: escaped(id),
            time: timestamp(now),
            metrics: String::new(),
        }
    }

    pub(crate) fn metric(&mut self, name: &str, value: &str) {
        self.metrics += &format!(
            "    <metric name=\"{}\" ts=\"{}\" uri=\"local\">{}</metric>\n",
            escaped(name),
            self.time,
            escaped(value)
        );
    }

    pub(crate) fn write(&self, dir: &Path) -> Result<()> {
        config::replace(&dir.join(FILE), self.xml().as_bytes())
            .with_context(|| format!("cannot write {FILE}"))
    }

    fn xml(&self) -> String {
        format!(
            "<?xml version=\"1.0\"?>\n\
             <OSGTestResult id=\"{}\" version=\"4.3.1\">\n  \
             <result>\n    <status>OK</status>\n{}  </result>\n\
             </OSGTestResult>\n",
            self.id, self.metrics
        )
    }
}

/// For text and attributes; what XML 1.0 cannot hold becomes a space.
fn escaped(text: &str) -> String {
    let mut out = String::new();
    for letter in text.chars() {
        match letter {
            '&' => out += "&amp;",
            '<' => out += "&lt;",
            '>' => out += "&gt;",
            '"' => out += "&quot;",
            '\'' => out += "&apos;",
            '\u{fffe}' | '\u{ffff}' => out.push(' '),
            letter if letter.is_control() => out.push(' '),
            letter => out.push(letter),
        }
    }
    out
}

/// `2026-09-01T15:00:00+00:00`
fn timestamp(seconds: u64) -> String {
    let (days, rest) = (seconds / 86_400, seconds % 86_400);
    // Howard Hinnant's civil_from_days, for days after 1970: years begin in March.
    let days = days + 719_468;
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 {
        shifted + 3
    } else {
        shifted - 9
    };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    let (hour, minute, second) = (rest / 3600, rest / 60 % 60, rest % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}+00:00")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_as_date_prints_them() {
        assert_eq!(timestamp(0), "1970-01-01T00:00:00+00:00");
        assert_eq!(timestamp(951_827_696), "2000-02-29T12:34:56+00:00");
        assert_eq!(timestamp(1_788_254_400), "2026-09-01T09:20:00+00:00");
    }

    #[test]
    fn what_a_value_holds_does_not_end_it() {
        let mut report = Report::new("a<b");
        report.metric("CRIUReason", "</metric> & \"so\" on\u{1}");
        let xml = report.xml();
        assert!(xml.contains("id=\"a&lt;b\""), "{xml}");
        assert!(
            xml.contains(">&lt;/metric&gt; &amp; &quot;so&quot; on </metric>"),
            "{xml}"
        );
    }
}
