//! `/`: what is in the store, for a person with a browser.
//!
//! One page of HTML, nothing loaded, no script. It shows the caller's own images; an operator sees whose the others are and
//! how large, but gets none of them.

use std::fmt::{self, Write};
use std::sync::Arc;

use axum::extract::State;
use axum::http::header;
use axum::response::{Html, IntoResponse, Response};

use super::super::auth::Caller;
use super::super::error::StoreError;
use super::super::index::Sums;
use super::super::keep::now;
use super::super::owner::Owner;
use super::{Service, Visitor};
use crate::protocol::Image;

/// Rows of the table; who has more asks the API.
const ROWS: usize = 1000;

const STYLE: &str = "\
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 70rem; padding: 0 1rem; color: #222 }
h1 { font-size: 1.4rem } table { border-collapse: collapse; width: 100% }
th, td { text-align: left; padding: .25rem .75rem; border-bottom: 1px solid #ddd }
td.n, th.n { text-align: right; font-variant-numeric: tabular-nums } code { font-size: .9em }
dl { display: flex; flex-wrap: wrap; gap: 0 2.5rem } dt { color: #666 } dd { margin: 0; font-size: 1.3rem }
@media (prefers-color-scheme: dark) { body { background: #181818; color: #ddd } th, td { border-color: #444 } dt { color: #999 } }";

pub(super) async fn page(
    State(service): State<Arc<Service>>,
    Visitor(caller): Visitor,
) -> Result<Response, StoreError> {
    if !caller.read.anywhere() {
        return Err(StoreError::Forbidden);
    }
    let rows = service.store.rows(&caller, ROWS);
    let of = (!caller.operator).then_some(&caller.owner);
    let page = Page {
        caller: &caller,
        sums: service.store.sums(of),
        rows,
        now: now(),
    };
    let headers = [
        (
            header::CONTENT_SECURITY_POLICY,
            "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'",
        ),
        (header::CACHE_CONTROL, "no-store"),
        (header::REFERRER_POLICY, "no-referrer"),
    ];
    Ok((headers, Html(page.to_string())).into_response())
}

struct Page<'a> {
    caller: &'a Caller,
    sums: Sums,
    rows: Vec<(Owner, Image)>,
    now: i64,
}

impl fmt::Display for Page<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sums = &self.sums;
        write!(
            f,
            "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><meta name=\"viewport\" content=\"width=device-width\">\
             <meta http-equiv=\"refresh\" content=\"30\"><title>Images of frozen jobs</title><style>{STYLE}</style></head>\n<body>\
             <h1>Images of frozen jobs</h1><p>You are <b id=\"owner\">{}</b>.</p>\n<dl>",
            Text(self.caller.owner.as_str())
        )?;
        let packed = saved(sums.raw_bytes, sums.image_bytes);
        let shared = saved(sums.image_bytes, sums.bytes.min(sums.image_bytes));
        for (id, name, value) in [
            ("images", "Images", sums.images.to_string()),
            ("jobs", "Jobs", sums.jobs.to_string()),
            ("raw", "Memory and files", Bytes(sums.raw_bytes).to_string()),
            ("kept", "Kept here", Bytes(sums.bytes).to_string()),
            ("compression", "Saved by compression", packed),
            ("sharing", "Saved by sharing chunks", shared),
        ] {
            write!(f, "<div><dt>{name}</dt><dd id=\"{id}\">{value}</dd></div>")?;
        }
        f.write_str("</dl>\n")?;
        if self.rows.is_empty() {
            f.write_str("<p id=\"empty\">There is no image yet.</p>")?;
        } else {
            self.table(f)?;
        }
        if self.rows.len() == ROWS {
            write!(f, "<p>The newest {ROWS} are shown.</p>")?;
        }
        f.write_str("</body></html>\n")
    }
}

impl Page<'_> {
    fn table(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("<table><thead><tr>")?;
        if self.caller.operator {
            f.write_str("<th>Owner</th>")?;
        }
        f.write_str(
            "<th>Job</th><th class=\"n\">Generation</th><th class=\"n\">Size</th><th class=\"n\">Before compression</th>\
             <th class=\"n\">Taken</th><th class=\"n\">Arrived</th><th>Digest</th></tr></thead><tbody>\n",
        )?;
        for (owner, image) in &self.rows {
            f.write_str("<tr>")?;
            if self.caller.operator {
                write!(f, "<td>{}</td>", Text(owner.as_str()))?;
            }
            let digest = image.digest.to_string();
            writeln!(
                f,
                "<td>{}</td><td class=\"n\">{}</td><td class=\"n\">{}</td><td class=\"n\">{}</td><td class=\"n\">{}</td>\
                 <td class=\"n\">{}</td><td><code title=\"{digest}\">{}</code></td></tr>",
                Text(image.job.as_str()),
                image.generation,
                Bytes(image.bytes),
                Bytes(image.raw_bytes),
                Ago(self.now.saturating_sub(image.created)),
                Ago(self.now.saturating_sub(image.committed)),
                &digest[..12],
            )?;
        }
        f.write_str("</tbody></table>")
    }
}

/// What part of it is not there any more.
fn saved(before: u64, after: u64) -> String {
    if before == 0 {
        return "–".into();
    }
    let part = 1.0 - after as f64 / before as f64;
    format!("{:.0} %", 100.0 * part.max(0.0))
}

/// Text that means itself.
struct Text<'a>(&'a str);

impl fmt::Display for Text<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for char in self.0.chars() {
            match char {
                '&' => f.write_str("&amp;")?,
                '<' => f.write_str("&lt;")?,
                '>' => f.write_str("&gt;")?,
                '"' => f.write_str("&quot;")?,
                '\'' => f.write_str("&#39;")?,
                char => f.write_char(char)?,
            }
        }
        Ok(())
    }
}

struct Bytes(u64);

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let units = ["kB", "MB", "GB", "TB"];
        let (mut value, mut unit) = (self.0 as f64, "B");
        for next in units {
            if value < 1000.0 {
                break;
            }
            (value, unit) = (value / 1000.0, next);
        }
        let digits = usize::from(unit != "B" && value < 100.0);
        write!(f, "{value:.digits$} {unit}")
    }
}

/// A number of seconds, as much of it as one wants to know.
struct Ago(i64);

impl fmt::Display for Ago {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            // The clock of a slot may be ahead.
            ..60 => f.write_str("now"),
            60..5400 => write!(f, "{} min ago", self.0 / 60),
            5400..172_800 => write!(f, "{} h ago", self.0 / 3600),
            _ => write!(f, "{} d ago", self.0 / 86_400),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_is_html_is_shown_as_text() {
        let text = Text("<script>alert('&\"')</script>").to_string();
        assert_eq!(
            text,
            "&lt;script&gt;alert(&#39;&amp;&quot;&#39;)&lt;/script&gt;"
        );
    }

    #[test]
    fn sizes_and_ages_are_short() {
        assert_eq!(Bytes(999).to_string(), "999 B");
        assert_eq!(Bytes(1_234_567).to_string(), "1.2 MB");
        assert_eq!(Bytes(123_456_789_000).to_string(), "123 GB");
        assert_eq!(Ago(-5).to_string(), "now");
        assert_eq!(Ago(7200).to_string(), "2 h ago");
        assert_eq!(saved(0, 0), "–");
        assert_eq!(saved(200, 50), "75 %");
    }
}
