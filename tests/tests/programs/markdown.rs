//! The table for people, `tests/PROGRAMS.md`.
//!
//! It is made of the constant table, and every row of that is tried on both CRIUs by the other tests.

use std::fmt::Write;
use std::fs;

use tests::machine;

use super::table::{Ends, Outcome, Row, TABLE};

const HEAD: &str = "\
# Programs, frozen and thawed

Each was started by `criu-starter run` as an ordinary user with no capability at all, frozen by TERM into `checkpoint.criu`,
thawed in new namespaces from that file alone with its directory at another real path, and looked at to its end: its own state,
each line of its output once, its exit status. A program that is *refused* is not frozen: it runs on unharmed, and the log has a
sentence with the words quoted here. The programs under *root* were run by root, with `criu-starter run --as-root`.

    PROGRAMS_MD=write cargo test -p tests --test main programs::markdown   # makes this file
    cargo test -p tests --test main programs                               # tries every row
";

fn table() -> String {
    let mut text = HEAD.to_owned();
    let mut family = "";
    for row in TABLE {
        if row.family != family {
            family = row.family;
            let _ = write!(
                text,
                "\n## {family}\n\n| program | | CRIU 4.1.1 | CRIU 4.2.1 |\n|---|---|---|---|\n"
            );
        }
        let [older, newer] = row.outcomes.map(|outcome| cell(row, outcome));
        let name = row.name();
        let _ = writeln!(text, "| {name} | {} | {older} | {newer} |", row.what);
    }
    let total = TABLE.len();
    let go_on = |index: usize| {
        let rows = TABLE.iter();
        rows.filter(|row| row.outcomes[index] == Outcome::GoesOn)
            .count()
    };
    let _ = writeln!(
        text,
        "\n{total} programs; {} go on with CRIU 4.1.1 and {} with 4.2.1 (kernel 6.16 or newer), the others are refused.",
        go_on(0),
        go_on(1)
    );
    text
}

fn cell(row: &Row, outcome: Outcome) -> String {
    match (outcome, row.ends) {
        (Outcome::Refused(because), _) => format!("refused: \"{because}\""),
        (Outcome::GoesOn, Ends::Code(7)) => "goes on".to_owned(),
        (Outcome::GoesOn, Ends::Code(code)) => format!("goes on, ends with {code}"),
        (Outcome::GoesOn, Ends::Signal(signal)) => format!("goes on, dies of signal {signal}"),
    }
}

#[test]
fn the_committed_table_is_the_one_that_is_tested() {
    let path = machine::workspace().join("tests/PROGRAMS.md");
    if std::env::var_os("PROGRAMS_MD").is_some_and(|value| value == "write") {
        fs::write(&path, table()).unwrap();
    }
    let committed = fs::read_to_string(&path).unwrap_or_default();
    assert!(
        committed == table(),
        "{} is out of date; its first lines say how it is made",
        path.display()
    );
}
