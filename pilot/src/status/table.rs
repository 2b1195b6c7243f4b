//! What is shown: a table for people, JSON for programs.

use std::fmt::Write;

use classad::ClassAd;

use super::standing::{Saved, Standing};
use crate::units::{line, size, time};

/// Standings, each as of a moment.
type Jobs = [(Standing, i64)];

const HEAD: [&str; 6] = ["JOB", "STATE", "LAST IMAGE", "AT RISK", "SURVIVED", "SAVED"];

pub(super) fn table(jobs: &Jobs) -> String {
    let mut rows = vec![HEAD.map(str::to_owned)];
    let (mut survived, mut saved, mut bound) = (0, 0, false);
    for (job, now) in jobs {
        survived += job.survived;
        saved += job.saved.seconds;
        bound |= job.saved.at_most;
        rows.push([
            job.job.clone(),
            job.state.name().to_owned(),
            job.image.as_ref().map_or_else(
                || "none".to_owned(),
                |image| {
                    let age = time(now - image.time);
                    format!(
                        "#{}, {}, {age} ago, {}",
                        image.generation,
                        size(image.bytes),
                        image.place
                    )
                },
            ),
            if job.at_risk > 0 {
                time(job.at_risk)
            } else {
                "-".to_owned()
            },
            job.survived.to_string(),
            hours(job.saved),
        ]);
    }
    let widths: Vec<usize> = (0..HEAD.len())
        .map(|column| {
            rows.iter()
                .map(|row| row[column].chars().count())
                .max()
                .unwrap_or(0)
        })
        .collect();
    let mut text = String::new();
    for (index, row) in rows.iter().enumerate() {
        let cells: Vec<_> = row
            .iter()
            .zip(&widths)
            .map(|(cell, width)| format!("{cell:width$}"))
            .collect();
        text += cells.join("  ").trim_end();
        text.push('\n');
        if let Some(reason) = index
            .checked_sub(1)
            .and_then(|job| jobs[job].0.reason.as_ref())
        {
            let _ = writeln!(text, "    {}", line(reason));
        }
    }
    let sum = Saved {
        seconds: saved,
        at_most: bound,
    };
    let _ = writeln!(
        text,
        "{} jobs, {survived} evictions survived, {} saved",
        jobs.len(),
        hours(sum)
    );
    text
}

fn hours(saved: Saved) -> String {
    let bound = if saved.at_most { "< " } else { "" };
    match saved.seconds {
        0 => "-".to_owned(),
        seconds => format!("{bound}{:.1} h", seconds as f64 / 3600.0),
    }
}

pub(super) fn json(jobs: &Jobs) -> String {
    let objects: Vec<String> = jobs
        .iter()
        .map(|(job, now)| object(job, *now).to_json())
        .collect();
    format!("[\n{}\n]\n", objects.join(",\n"))
}

fn object(job: &Standing, now: i64) -> ClassAd {
    let mut ad = ClassAd::new();
    ad.insert("Job", job.job.as_str());
    ad.insert("Owner", job.owner.as_str());
    ad.insert("State", job.state.name());
    if let Some(image) = &job.image {
        ad.insert("ImageGeneration", image.generation);
        ad.insert("ImageBytes", i64::try_from(image.bytes).unwrap_or(i64::MAX));
        ad.insert("ImageTime", image.time);
        ad.insert("ImagePlace", image.place.as_str());
    }
    ad.insert("SecondsAtRisk", job.at_risk);
    ad.insert("EvictionsSurvived", job.survived);
    ad.insert("SecondsSaved", job.saved.seconds);
    ad.insert("SecondsSavedIsBound", job.saved.at_most);
    if let Some(reason) = &job.reason {
        ad.insert("Reason", reason.as_str());
    }
    ad.insert("Time", now);
    ad
}

#[cfg(test)]
mod tests {
    use super::super::standing::tests::{NOW, job};
    use super::*;

    fn jobs() -> Vec<(Standing, i64)> {
        let failed =
            "ProcId = 4\nNumJobStarts = 5\nChirpCRIUReason = \"the job uses io_uring\tand more\"";
        [job(""), job(failed)]
            .iter()
            .map(|job| (Standing::of(job, NOW), NOW))
            .collect()
    }

    #[test]
    fn a_row_for_each_job_its_trouble_below_it_and_a_sum() {
        assert_eq!(
            table(&jobs()),
            "JOB   STATE    LAST IMAGE                       AT RISK  SURVIVED  SAVED\n\
             12.3  running  #2, 120.0 MB, 12 min ago, spool  10 min   2         2.0 h\n\
             12.4  running  #2, 120.0 MB, 12 min ago, spool  10 min   2         < 2.0 h\n    \
             the job uses io_uring and more\n\
             2 jobs, 4 evictions survived, < 4.0 h saved\n"
        );
    }

    #[test]
    fn json_has_the_numbers_themselves() {
        let text = json(&jobs());
        for part in [
            "\"Job\": \"12.3\"",
            "\"SecondsAtRisk\": 600",
            "\"SecondsSaved\": 7190",
            "\"ImageBytes\": 120000000",
        ] {
            assert!(text.contains(part), "{part} is not in {text}");
        }
    }
}
