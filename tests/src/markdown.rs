//! What the tables for people have in common: places in them that a link leads to.

/// Names a place by words: `<a id="25-condor_hold-root-spool"></a>`.
pub(crate) fn anchor(words: &str) -> String {
    let is_plain = |letter: char| letter.is_ascii_alphanumeric() || letter == '_';
    let parts = words.split(|letter| !is_plain(letter));
    let parts: Vec<_> = parts.filter(|part| !part.is_empty()).collect();
    format!("<a id=\"{}\"></a>", parts.join("-").to_lowercase())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_has_the_words_that_name_it_and_nothing_else() {
        let place = anchor("23.9 condor_hold, condor_release/root");
        assert_eq!(place, "<a id=\"23-9-condor_hold-condor_release-root\"></a>");
    }
}
