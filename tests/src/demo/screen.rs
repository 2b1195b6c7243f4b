//! One screen, on standard error: redrawn in place on a terminal, otherwise a line for each thing that happens.

use std::fmt::Write as _;
use std::io::{self, IsTerminal, Write as _};
use std::time::{Duration, Instant};

use super::sieve::Progress;

/// As often as people can follow.
const REDRAW: Duration = Duration::from_millis(200);

/// Without a terminal progress is a line, and this often enough.
const PLAIN_PROGRESS: Duration = Duration::from_secs(10);

const BOLD: &str = "\x1b[1m";
const PLAIN: &str = "\x1b[0m";

/// One host as it is shown.
#[derive(Debug, Clone)]
pub struct Row {
    /// Its name, or its slot's.
    pub name: String,
    /// What it is.
    pub what: String,
    /// What goes on there, if anything.
    pub now: Option<String>,
}

/// The screen.
pub struct Screen {
    terminal: bool,
    title: String,
    begun: Instant,
    notes: Vec<String>,
    /// Lines of the last drawing, to be drawn over.
    drawn: usize,
    last: Option<Instant>,
}

impl Screen {
    /// A screen whose clock starts at `begun`.
    pub fn new(title: String, begun: Instant) -> Self {
        let terminal = io::stderr().is_terminal();
        if !terminal {
            eprintln!("{title}");
        }
        Self {
            terminal,
            title,
            begun,
            notes: Vec::new(),
            drawn: 0,
            last: None,
        }
    }

    /// Something happened.
    pub fn note(&mut self, text: &str) {
        let line = format!("{}  {text}", self.clock());
        if !self.terminal {
            eprintln!("{line}");
        }
        self.notes.push(line);
        // The next look draws it.
        if self.terminal {
            self.last = None;
        }
    }

    /// How it is now.
    pub fn show(&mut self, rows: &[Row], progress: Option<Progress>) {
        let pace = if self.terminal {
            REDRAW
        } else {
            PLAIN_PROGRESS
        };
        if self.last.is_some_and(|last| last.elapsed() < pace) {
            return;
        }
        self.last = Some(Instant::now());
        if self.terminal {
            self.draw(rows, progress);
        } else if let Some(progress) = progress {
            let at = rows.iter().find_map(|row| {
                let now = row.now.as_ref()?;
                Some(format!("{}: {now}, ", row.name))
            });
            eprintln!("{}  {}{progress}", self.clock(), at.unwrap_or_default());
        }
    }

    /// How it was in the end; it stays on the terminal.
    pub fn end(&mut self, rows: &[Row], progress: Option<Progress>) {
        if self.terminal {
            self.draw(rows, progress);
        }
    }

    fn draw(&mut self, rows: &[Row], progress: Option<Progress>) {
        let (width, height) = size();
        let mut lines = vec![format!("{}  {}", self.clock(), self.title), String::new()];
        for row in rows {
            let now = row.now.as_deref().unwrap_or("-");
            lines.push(format!("  {:12} {:30} {now}", row.name, row.what));
        }
        lines.push(String::new());
        lines.push(progress.map_or_else(String::new, |progress| bar(progress, width)));
        lines.push(String::new());
        // The oldest go when the terminal is low; one row is the cursor's.
        let room = height.saturating_sub(lines.len() + 1);
        let skipped = self.notes.len().saturating_sub(room);
        lines.extend(self.notes[skipped..].iter().cloned());

        let mut text = String::new();
        if self.drawn > 0 {
            let _ = write!(text, "\x1b[{}A", self.drawn);
        }
        for (number, line) in lines.iter().enumerate() {
            // A line that wraps would be two to draw over.
            let cut: String = line.chars().take(width.saturating_sub(1)).collect();
            let is_busy = number >= 2 && rows.get(number - 2).is_some_and(|row| row.now.is_some());
            let _ = if is_busy {
                writeln!(text, "\r{BOLD}{cut}{PLAIN}\x1b[K")
            } else {
                writeln!(text, "\r{cut}\x1b[K")
            };
        }
        text += "\x1b[J";
        self.drawn = lines.len();
        // A terminal that is gone is no reason to fail.
        let _ = io::stderr().write_all(text.as_bytes());
    }

    fn clock(&self) -> String {
        let seconds = self.begun.elapsed().as_secs();
        format!("{:02}:{:02}", seconds / 60, seconds % 60)
    }
}

fn bar(progress: Progress, width: usize) -> String {
    let label = format!("{progress} of work");
    let room = width.saturating_sub(label.len() + 8).min(60);
    let done = (progress.step as usize * room) / (progress.of as usize).max(1);
    format!(
        "  [{}{}]  {label}",
        "#".repeat(done),
        ".".repeat(room - done.min(room))
    )
}

fn size() -> (usize, usize) {
    match rustix::termios::tcgetwinsize(io::stderr()) {
        Ok(size) if size.ws_col > 0 && size.ws_row > 0 => (size.ws_col.into(), size.ws_row.into()),
        _ => (80, 24),
    }
}
