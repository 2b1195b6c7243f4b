//! One HTML file: sums on top, tables by user and site, a bar for each job. No script, nothing to fetch.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::duration;
use super::timeline::{Doing, Span, Timeline};
use super::totals::{Sums, Totals};

/// More bars than this say less. Those of the jobs that lost most slots are shown.
const BARS: usize = 400;

/// The picture's width in its own units.
const WIDTH: f64 = 1000.0;

const STYLE: &str = "\
:root { color-scheme: light dark; --ink: #1d2530; --soft: #6b7684; --line: #d8dde3; --paper: #ffffff; --band: #f4f6f8;
  --waiting: #dfe3e8; --fetching: #9ec5e8; --finished: #2f7d4f; --saved: #63b67f; --lost: #d1443c; --unknown: #c9a227;
  --open: #86a5b8; --freezing: #8d5bd1; --shipping: #3f7fc4; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6eaef; --soft: #98a3b0; --line: #3a434e; --paper: #161b21;
  --band: #1d242c; --waiting: #38414b; } }
body { margin: 0 auto; padding: 2rem 1.25rem 4rem; max-width: 72rem; background: var(--paper); color: var(--ink);
  font: 15px/1.5 system-ui, sans-serif; }
h1 { font-size: 1.5rem; margin: 0 0 .25rem; } h2 { font-size: 1.05rem; margin: 2.25rem 0 .5rem; }
p { margin: .25rem 0; color: var(--soft); }
.sums { display: flex; flex-wrap: wrap; gap: .75rem; margin: 1.25rem 0 0; }
.sums div { flex: 1 1 10rem; padding: .75rem 1rem; background: var(--band); border-radius: 6px; }
.sums b { display: block; font-size: 1.4rem; font-weight: 600; } .sums span { color: var(--soft); font-size: .85rem; }
table { border-collapse: collapse; width: 100%; } th, td { text-align: right; padding: .3rem .6rem; }
th { color: var(--soft); font-weight: 500; border-bottom: 1px solid var(--line); } td { border-bottom: 1px solid var(--line); }
th:first-child, td:first-child { text-align: left; }
.scroll { overflow-x: auto; }
.key { display: flex; flex-wrap: wrap; gap: .35rem 1.1rem; font-size: .85rem; color: var(--soft); }
.key i { display: inline-block; width: .8rem; height: .8rem; margin-right: .35rem; border-radius: 2px; vertical-align: -1px; }
.job { display: grid; grid-template-columns: 9rem 1fr; align-items: center; gap: .75rem; padding: .2rem 0; }
.job small { color: var(--soft); overflow: hidden; text-overflow: ellipsis; white-space: nowrap; }
svg { width: 100%; height: 22px; display: block; }
.axis { color: var(--soft); font-size: .8rem; display: flex; justify-content: space-between; margin-left: 9.75rem; }
";

const KEY: [(Doing, &str); 9] = [
    (Doing::Finished, "computing, to its end"),
    (Doing::Saved, "computing, kept by an image"),
    (Doing::Lost, "computing, lost"),
    (Doing::Unknown, "computing, fate unknown"),
    (Doing::Open, "computing, still open"),
    (Doing::Freezing, "freezing"),
    (Doing::Shipping, "moving out"),
    (Doing::Fetching, "moving in"),
    (Doing::Waiting, "waiting"),
];

/// The whole file.
pub(crate) fn page(timelines: &[Timeline], totals: &Totals) -> String {
    let mut html = format!(
        "<!doctype html>\n<html lang=\"en\">\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <title>Jobs and their slots</title>\n<style>\n{STYLE}</style>\n"
    );
    html += "<h1>What became of the jobs' time</h1>\n";
    html += &format!("<p>{}.</p>\n", totals.in_short());
    html += "<div class=\"sums\">";
    for (value, words) in [
        (
            totals.all.of(Doing::Saved),
            "saved: computed on slots that were lost, and kept",
        ),
        (totals.all.of(Doing::Lost), "lost: to be computed again"),
        (totals.all.spent(), "spent on freezing and moving out"),
        (totals.all.of(Doing::Waiting), "waited for slots"),
    ] {
        html += &format!("<div><b>{}</b><span>{words}</span></div>", duration(value));
    }
    html += "</div>\n";
    html += &table("By user", "user", &totals.by_user);
    html += &table("By site", "site or host", &totals.by_site);
    html += &bars(timelines);
    html + "</html>\n"
}

fn table(title: &str, first: &str, groups: &BTreeMap<String, Sums>) -> String {
    let mut html = format!(
        "<h2>{title}</h2>\n<div class=\"scroll\"><table>\n<tr><th>{first}<th>starts<th>slots lost<th>images\
         <th>finished<th>saved<th>lost<th>spent</tr>\n"
    );
    for (name, sums) in groups {
        html += &format!(
            "<tr><td>{}<td>{}<td>{}<td>{}<td>{}<td>{}<td>{}<td>{}</tr>\n",
            escape(name),
            sums.runs,
            sums.evictions,
            sums.images,
            duration(sums.of(Doing::Finished)),
            duration(sums.of(Doing::Saved)),
            duration(sums.of(Doing::Lost)),
            duration(sums.spent())
        );
    }
    html + "</table></div>\n"
}

fn bars(timelines: &[Timeline]) -> String {
    let mut shown: Vec<&Timeline> = timelines.iter().collect();
    shown.sort_by_key(|timeline| std::cmp::Reverse(timeline.evictions));
    shown.truncate(BARS);
    shown.sort_by(|a, b| start(a).total_cmp(&start(b)));
    let first = shown
        .iter()
        .map(|one| start(one))
        .fold(f64::INFINITY, f64::min);
    let last = shown
        .iter()
        .flat_map(|one| one.spans.iter().map(|span| span.to))
        .fold(first, f64::max);
    let scale = WIDTH / (last - first).max(1.0);

    let mut html = String::from("<h2>Each job over its slots</h2>\n<p class=\"key\">");
    for (doing, words) in KEY {
        html += &format!(
            "<span><i style=\"background:{}\"></i>{words}</span>",
            color(doing)
        );
    }
    html += "</p>\n";
    if let Some(hidden) = timelines
        .len()
        .checked_sub(BARS)
        .filter(|hidden| *hidden > 0)
    {
        html += &format!("<p>{hidden} jobs that lost fewer slots are not shown.</p>\n");
    }
    for timeline in shown {
        let owner = timeline.owner.as_deref().unwrap_or("");
        html += &format!(
            "<div class=\"job\"><small>{} {}</small><svg viewBox=\"0 0 {WIDTH} 22\" preserveAspectRatio=\"none\" \
             role=\"img\" aria-label=\"job {}\">",
            escape(&timeline.job),
            escape(owner),
            escape(&timeline.job)
        );
        for span in &timeline.spans {
            html += &bar(timeline, span, first, scale);
        }
        html += "</svg></div>\n";
    }
    html + &format!(
        "<div class=\"axis\"><span>0</span><span>{}</span></div>\n",
        duration(last - first)
    )
}

fn bar(timeline: &Timeline, span: &Span, first: f64, scale: f64) -> String {
    // Half a unit at least: what was shorter than a pixel happened all the same.
    let width = ((span.to - span.from) * scale).max(0.5);
    let height = if span.doing == Doing::Waiting {
        (9, 4)
    } else {
        (3, 16)
    };
    let words = KEY.iter().find(|(doing, _)| *doing == span.doing);
    let mut title = words.map_or("", |(_, words)| words).to_owned();
    if let Some(run) = span.run.and_then(|index| timeline.runs.get(index)) {
        let _ = write!(title, " on {}", run.host);
        if let Some(site) = &run.site {
            let _ = write!(title, " ({site})");
        }
    }
    let _ = write!(title, ", {}", duration(span.to - span.from));
    format!(
        "<rect x=\"{:.2}\" y=\"{}\" width=\"{width:.2}\" height=\"{}\" fill=\"{}\"><title>{}</title></rect>",
        (span.from - first) * scale,
        height.0,
        height.1,
        color(span.doing),
        escape(&title)
    )
}

fn start(timeline: &Timeline) -> f64 {
    timeline
        .spans
        .first()
        .map_or(f64::INFINITY, |span| span.from)
}

fn color(doing: Doing) -> String {
    format!("var(--{})", format!("{doing:?}").to_lowercase())
}

/// Names come from logs, and so from anybody.
fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out += "&amp;",
            '<' => out += "&lt;",
            '>' => out += "&gt;",
            '"' => out += "&quot;",
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_cannot_become_markup() {
        let log = "000 (007.000.000) 2026-01-02 03:00:00 Job submitted\n...\n\
                   001 (007.000.000) 2026-01-02 03:00:09 Job executing on host: <1?alias=<b>x\"y>\n...\n\
                   028 (007.000.000) 2026-01-02 03:00:09 Job ad information event triggered.\n\
                   Owner = \"<script>alert(1)</script>\"\n...\n\
                   005 (007.000.000) 2026-01-02 03:01:00 Job terminated.\n...\n";
        let timelines = super::super::timelines(log);
        let html = page(&timelines, &Totals::of(&timelines));
        assert!(!html.contains("<script"), "{html}");
        assert!(html.contains("&lt;script&gt;alert(1)&lt;/script&gt;"));
    }
}
