//! What came of it: per eviction and in all, for people and as JSON.

use serde::Serialize;

/// Everything that was measured.
#[derive(Debug, Serialize)]
pub struct Report {
    /// `HTCondor 25`, or that there was none.
    pub world: String,
    /// The job's own check passed, no step was lost, and it moved each time.
    pub ok: bool,
    /// Why not, if so.
    pub problems: Vec<String>,
    /// Steps of the job.
    pub steps: u64,
    /// What the job said last.
    pub result: String,
    /// One after the other.
    pub evictions: Vec<Eviction>,
    /// All of them.
    pub total: Total,
    /// Wall time of the whole demo.
    pub seconds: f64,
}

/// One eviction, from the signal to the first new step elsewhere.
#[derive(Debug, Clone, Serialize)]
pub struct Eviction {
    /// The host that was lost.
    pub from: String,
    /// The host on which the job went on.
    pub to: String,
    /// What the job had done, and still has.
    pub kept: Amount,
    /// What it had to do again.
    pub lost: Amount,
    /// What it had done on the lost host, and would have to do again without an image.
    pub lost_without: Amount,
    /// The way that the image took: `spool`, `store`, or `hand`.
    pub lane: String,
    /// Size of the image as it travelled.
    pub image_bytes: u64,
    /// From the signal to the end of CRIU's dump.
    pub freeze_seconds: f64,
    /// Packing the image into one file.
    pub pack_seconds: f64,
    /// From the request to leave to the image being where the host's loss does not matter.
    pub safe_seconds: f64,
    /// From the request to leave to the first new step elsewhere.
    pub progress_seconds: f64,
}

/// Work, in the job's own steps and in time that it computed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct Amount {
    /// Steps.
    pub steps: u64,
    /// Seconds by the job's clock.
    pub seconds: f64,
}

impl Amount {
    /// What lies between two counts.
    pub fn since(self, begin: Self) -> Self {
        Self {
            steps: self.steps.saturating_sub(begin.steps),
            seconds: (self.seconds - begin.seconds).max(0.0),
        }
    }

    fn cell(self) -> String {
        format!("{} steps, {:.1} s", self.steps, self.seconds)
    }
}

/// Sums over all evictions.
#[derive(Debug, Default, Serialize)]
pub struct Total {
    /// Work that the evictions found done and that is still there.
    pub kept: Amount,
    /// Work that had to be done again.
    pub lost: Amount,
    /// Work that would have had to be done again.
    pub lost_without: Amount,
    /// Bytes that travelled.
    pub image_bytes: u64,
    /// Time without an image elsewhere, while leaving.
    pub safe_seconds: f64,
    /// Time without progress.
    pub progress_seconds: f64,
}

impl Total {
    /// Adds up.
    pub fn of(evictions: &[Eviction]) -> Self {
        let mut total = Self::default();
        let add = |sum: &mut Amount, one: Amount| {
            sum.steps += one.steps;
            sum.seconds += one.seconds;
        };
        for eviction in evictions {
            // What the second finds done includes what the first kept.
            total.kept = eviction.kept;
            add(&mut total.lost, eviction.lost);
            add(&mut total.lost_without, eviction.lost_without);
            total.image_bytes += eviction.image_bytes;
            total.safe_seconds += eviction.safe_seconds;
            total.progress_seconds += eviction.progress_seconds;
        }
        total
    }
}

/// `61.2 MB`
pub fn megabytes(bytes: u64) -> String {
    format!("{:.1} MB", bytes as f64 / 1e6)
}

/// The report as a table of rows for what was measured and columns for evictions.
pub fn text(report: &Report) -> String {
    let total = &report.total;
    let seconds = |seconds: f64| format!("{seconds:.1} s");
    let mut rows: Vec<(&str, Vec<String>)> = Vec::new();
    let mut row = |name: &'static str, one: &dyn Fn(&Eviction) -> String, sum: String| {
        let cells = report.evictions.iter().map(one).chain([sum]).collect();
        rows.push((name, cells));
    };
    row(
        "from, to",
        &|e| format!("{} -> {}", e.from, e.to),
        String::new(),
    );
    row("work kept", &|e| e.kept.cell(), total.kept.cell());
    row("work lost", &|e| e.lost.cell(), total.lost.cell());
    row(
        "lost without an image",
        &|e| e.lost_without.cell(),
        total.lost_without.cell(),
    );
    row(
        "image",
        &|e| megabytes(e.image_bytes),
        megabytes(total.image_bytes),
    );
    row("by", &|e| e.lane.clone(), String::new());
    row("freezing", &|e| seconds(e.freeze_seconds), String::new());
    row("packing", &|e| seconds(e.pack_seconds), String::new());
    row(
        "signal to safe",
        &|e| seconds(e.safe_seconds),
        seconds(total.safe_seconds),
    );
    row(
        "signal to first progress",
        &|e| seconds(e.progress_seconds),
        seconds(total.progress_seconds),
    );
    let titles = (1..=report.evictions.len())
        .map(|number| format!("eviction {number}"))
        .chain(["total".to_owned()])
        .collect();
    rows.insert(0, ("", titles));

    let width = |column: usize| {
        let cells = rows.iter().filter_map(|(_, cells)| cells.get(column));
        cells.map(String::len).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..=report.evictions.len()).map(width).collect();
    let mut text = String::new();
    for (name, cells) in &rows {
        text += &format!("{name:24}");
        for (cell, width) in cells.iter().zip(&widths) {
            text += &format!("  {cell:>width$}");
        }
        text.truncate(text.trim_end().len());
        text.push('\n');
    }
    text += &format!(
        "\n{}\n{:.0} s in all, with {}\n",
        report.result, report.seconds, report.world
    );
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn amount(steps: u64, seconds: f64) -> Amount {
        Amount { steps, seconds }
    }

    #[test]
    fn the_total_counts_kept_work_once_and_lost_work_each_time() {
        let one = Eviction {
            from: "a".to_owned(),
            to: "b".to_owned(),
            kept: amount(100, 10.0),
            lost: amount(1, 0.1),
            lost_without: amount(100, 10.0),
            lane: "spool".to_owned(),
            image_bytes: 5,
            freeze_seconds: 0.5,
            pack_seconds: 0.5,
            safe_seconds: 2.0,
            progress_seconds: 4.0,
        };
        let two = Eviction {
            kept: amount(200, 20.0),
            ..one.clone()
        };
        let total = Total::of(&[one, two]);
        assert_eq!(total.kept, amount(200, 20.0));
        assert_eq!(total.lost.steps, 2);
        assert_eq!(total.lost_without, amount(200, 20.0));
        assert_eq!(total.image_bytes, 10);
    }
}
