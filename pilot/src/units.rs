//! Times, sizes and foreign words for people.

/// Seconds, in the unit in which a person would say it.
pub(crate) fn time(seconds: i64) -> String {
    let real = seconds as f64;
    match seconds {
        ..=119 => format!("{} s", seconds.max(0)),
        120..=7199 => format!("{:.0} min", real / 60.0),
        7200..=172_799 => format!("{:.1} h", real / 3600.0),
        _ => format!("{:.1} d", real / 86_400.0),
    }
}

/// Bytes likewise.
pub(crate) fn size(bytes: u64) -> String {
    let real = bytes as f64;
    match bytes {
        ..=9_999 => format!("{bytes} B"),
        10_000..=999_999 => format!("{:.0} kB", real / 1e3),
        1_000_000..=999_999_999 => format!("{:.1} MB", real / 1e6),
        _ => format!("{:.2} GB", real / 1e9),
    }
}

/// What a slot or a job said, on one line and without what would move a cursor.
pub(crate) fn line(text: &str) -> String {
    text.replace(char::is_control, " ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_unit_changes_where_the_next_one_says_more() {
        assert_eq!(
            [0, -5, 119, 120, 7199, 7200, 172_800].map(time),
            ["0 s", "0 s", "119 s", "2 min", "120 min", "2.0 h", "2.0 d"]
        );
        assert_eq!(
            [9_999, 10_000, 1_500_000, 2_340_000_000].map(size),
            ["9999 B", "10 kB", "1.5 MB", "2.34 GB"]
        );
    }
}
