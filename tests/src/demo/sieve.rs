//! The computation of the demo: it counts primes, says how far it is, and knows what the answer has to be.
//!
//! A sieve of Eratosthenes over segments of many megabytes, all of them in use: a single bit that an image
//! lost or mixed up on its way changes the count, and pi(x) has been known since long before this program.
//!
//! ```text
//! for each segment:  fill with the multiples of 3 to 13 -> strike batch after batch of primes -> count
//!                                                              each batch is a step, and prints a line
//! ```

use std::fmt;
use std::io::{self, Write};
use std::process::ExitCode;
use std::str::FromStr;
use std::time::Instant;

/// Published values of pi(x); that of 1.5e10 is what primecount, which does not sieve, gives.
const KNOWN: [(u64, u64); 5] = [
    (100_000_000, 5_761_455),
    (2_000_000_000, 98_222_287),
    (10_000_000_000, 455_052_511),
    (15_000_000_000, 670_180_516),
    (20_000_000_000, 882_206_716),
];

/// Struck from every segment by copying a pattern; the odd numbers repeat it after `PATTERN` bits, so bytes do too.
const SMALL: [u64; 5] = [3, 5, 7, 11, 13];
const PATTERN: usize = 3 * 5 * 7 * 11 * 13;

/// What to count, in which portions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Work {
    /// Count the primes below this.
    pub to: u64,
    /// Equal parts of the range; one at a time is in memory, a bit for each odd number.
    pub segments: u64,
    /// Steps in each segment, of about the same work.
    pub batches: u64,
}

impl Work {
    /// A good minute on one core, in 117 MB.
    pub const FULL: Self = Self {
        to: 15_000_000_000,
        segments: 8,
        batches: 50,
    };

    /// Some seconds, in 31 MB.
    pub const QUICK: Self = Self {
        to: 2_000_000_000,
        segments: 4,
        batches: 50,
    };

    /// How many lines it prints.
    pub fn steps(self) -> u64 {
        self.segments * self.batches
    }

    /// What it will have found in the end, if that is published.
    pub fn known(self) -> Option<u64> {
        KNOWN
            .iter()
            .find(|(to, _)| *to == self.to)
            .map(|(_, count)| *count)
    }

    /// Its command line.
    pub fn arguments(self) -> [String; 3] {
        [self.to, self.segments, self.batches].map(|number| number.to_string())
    }

    fn from_arguments(arguments: &[String]) -> Option<Self> {
        let numbers: Vec<u64> = arguments
            .iter()
            .map(|argument| argument.parse().ok())
            .collect::<Option<_>>()?;
        let [to, segments, batches] = numbers[..] else {
            return None;
        };
        let work = Self {
            to,
            segments,
            batches,
        };
        // Whole bytes in each segment, and at most a GB of them.
        let whole = segments > 0 && batches > 0 && to.is_multiple_of(16 * segments);
        (whole && to / segments >= 1000 && to / segments <= 16 << 30).then_some(work)
    }
}

/// One line of its output: `step 120 of 400, 21.4 s: ...`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Progress {
    /// Steps done.
    pub step: u64,
    /// Steps in all.
    pub of: u64,
    /// Time that the computation has had so far: its own clock stands still while it is frozen.
    pub seconds: f64,
}

impl fmt::Display for Progress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "step {} of {}, {:.2} s",
            self.step, self.of, self.seconds
        )
    }
}

/// A line that tells no progress.
#[derive(Debug)]
pub struct NoProgress;

impl FromStr for Progress {
    type Err = NoProgress;

    fn from_str(line: &str) -> Result<Self, NoProgress> {
        let parse = || {
            let (step, rest) = line.strip_prefix("step ")?.split_once(" of ")?;
            let (of, rest) = rest.split_once(", ")?;
            let (seconds, _) = rest.split_once(" s: ")?;
            Some(Self {
                step: step.parse().ok()?,
                of: of.parse().ok()?,
                seconds: seconds.parse().ok()?,
            })
        };
        parse().ok_or(NoProgress)
    }
}

/// The steps in what it printed; a line that is still being written is none.
pub fn steps(output: &str) -> impl DoubleEndedIterator<Item = Progress> {
    let whole = output.rfind('\n').map_or(0, |end| end + 1);
    output[..whole]
        .lines()
        .filter_map(|line| line.parse::<Progress>().ok())
}

/// Counts as the command line says; ends well only if the count is right.
pub fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let Some(work) = Work::from_arguments(&arguments) else {
        eprintln!("usage: sieve TO SEGMENTS BATCHES; TO a multiple of 16 * SEGMENTS");
        return ExitCode::from(2);
    };
    match count(work, &mut io::stdout()) {
        Ok(count) => match work.known() {
            Some(known) if known != count => {
                println!("{count} primes below {}: wrong, it is {known}", work.to);
                ExitCode::FAILURE
            }
            known => {
                let verdict = known.map_or("not checked", |_| "correct");
                println!("{count} primes below {}: {verdict}", work.to);
                ExitCode::SUCCESS
            }
        },
        Err(error) => {
            eprintln!("sieve: cannot print: {error}");
            ExitCode::FAILURE
        }
    }
}

fn count(work: Work, out: &mut impl Write) -> io::Result<u64> {
    let begun = Instant::now();
    let pattern = pattern();
    let batches = batches(work);
    let span = work.to / work.segments;
    let mut bits = vec![0_u8; usize::try_from(span / 16).map_err(io::Error::other)?];
    // 2 and the primes of the pattern, which strikes them too; 1 is struck below.
    let mut found = 1 + SMALL.len() as u64;
    let mut step = 0;
    for segment in 0..work.segments {
        let from = segment * span;
        fill(&mut bits, from, &pattern);
        for (index, batch) in (1..).zip(&batches) {
            for prime in batch {
                strike(&mut bits, from, *prime);
            }
            if index == work.batches {
                found += bits
                    .iter()
                    .map(|byte| u64::from(byte.count_zeros()))
                    .sum::<u64>();
            }
            step += 1;
            let progress = Progress {
                step,
                of: work.steps(),
                seconds: begun.elapsed().as_secs_f64(),
            };
            let last = batch.last().unwrap_or(&0);
            writeln!(
                out,
                "{progress}: multiples of primes to {last} struck from {from} on, {found} primes found"
            )?;
            out.flush()?;
        }
    }
    Ok(found)
}

/// Bit i of a segment stands for the odd number `from + 2 * i + 1`; it is set if that is no prime.
fn fill(bits: &mut [u8], from: u64, pattern: &[u8]) {
    let first = usize::try_from(from / 16 % PATTERN as u64).unwrap_or(0);
    let mut source = pattern[first..].iter().chain(pattern.iter().cycle());
    for byte in bits.iter_mut() {
        *byte = *source.next().unwrap_or(&0);
    }
    if from == 0 {
        bits[0] |= 1;
    }
}

fn pattern() -> Vec<u8> {
    let mut bits = vec![0_u8; PATTERN];
    for number in (1..16 * PATTERN as u64).step_by(2) {
        if SMALL.iter().any(|small| number.is_multiple_of(*small)) {
            set(&mut bits, number / 2);
        }
    }
    bits
}

fn strike(bits: &mut [u8], from: u64, prime: u64) {
    let end = from + 16 * bits.len() as u64;
    let mut first = (prime * prime).max(from.next_multiple_of(prime));
    if first.is_multiple_of(2) {
        first += prime;
    }
    if first < end {
        // Two odd multiples are 2 * prime apart, thus `prime` bits.
        let mut bit = (first - from) / 2;
        let bits_end = 8 * bits.len() as u64;
        while bit < bits_end {
            set(bits, bit);
            bit += prime;
        }
    }
}

fn set(bits: &mut [u8], bit: u64) {
    bits[(bit / 8) as usize] |= 1 << (bit % 8);
}

/// All primes from 17 to the root of the range, cut so that each batch strikes about as often.
fn batches(work: Work) -> Vec<Vec<u64>> {
    let root = work.to.isqrt() + 1;
    let mut composite = vec![false; root as usize + 1];
    let mut primes = Vec::new();
    for number in 2..=root {
        if !composite[number as usize] {
            primes.push(number);
            for multiple in (number * number..=root).step_by(number as usize) {
                composite[multiple as usize] = true;
            }
        }
    }
    primes.retain(|prime| *prime > SMALL[SMALL.len() - 1]);
    let strikes = |prime: &u64| 1.0 / *prime as f64;
    let all: f64 = primes.iter().map(strikes).sum();
    let mut batches = vec![Vec::new(); work.batches as usize];
    let mut so_far = 0.0;
    for prime in primes {
        let batch = (so_far / all * work.batches as f64) as usize;
        batches[batch.min(work.batches as usize - 1)].push(prime);
        so_far += strikes(&prime);
    }
    batches
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_counts_right_in_any_portions() {
        for (segments, batches) in [(1, 1), (25, 7)] {
            let work = Work {
                to: 100_000_000,
                segments,
                batches,
            };
            let mut printed = Vec::new();
            assert_eq!(count(work, &mut printed).unwrap(), work.known().unwrap());
            let printed = String::from_utf8(printed).unwrap();
            let steps: Vec<u64> = steps(&printed).map(|progress| progress.step).collect();
            assert_eq!(steps, (1..=work.steps()).collect::<Vec<_>>());
        }
    }

    #[test]
    fn its_command_lines_are_understood_and_their_ends_are_known() {
        for work in [Work::FULL, Work::QUICK] {
            assert_eq!(Work::from_arguments(&work.arguments()), Some(work));
            assert!(work.known().is_some());
        }
        let odd = ["1001", "1", "1"].map(str::to_owned);
        assert_eq!(Work::from_arguments(&odd), None);
    }

    #[test]
    fn a_line_that_is_being_written_is_no_step() {
        let printed = "step 1 of 9, 0.50 s: x\nstep 2 of 9, 1.00 s: y\nstep 3 of 9, 1";
        let last = steps(printed).next_back().unwrap();
        assert_eq!((last.step, last.of, last.seconds), (2, 9, 1.0));
    }
}
