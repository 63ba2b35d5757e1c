//! Which known word a misspelt one may have meant.

/// The one of `known` that `word` may be a slip of: few letters differ, or one starts the other.
pub fn nearest<'a>(word: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let allowed = 1 + word.chars().count() / 4;
    let distance = |candidate: &str| {
        let shorter = word.len().min(candidate.len());
        if shorter >= 3 && (word.starts_with(candidate) || candidate.starts_with(word)) {
            return 1;
        }
        strsim::damerau_levenshtein(word, candidate)
    };
    known
        .map(|candidate| (distance(candidate), candidate))
        .filter(|(distance, _)| *distance <= allowed)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_finds_its_word_and_another_word_finds_none() {
        let known = ["attempts", "address", "ready", "timeout", "connect_timeout"];
        let near = |word| nearest(word, known.into_iter());
        assert_eq!(near("atempts"), Some("attempts"));
        assert_eq!(near("addr"), Some("address"));
        assert_eq!(near("conect_timout"), Some("connect_timeout"));
        assert_eq!(near("timeuot"), Some("timeout"));
        assert_eq!(near("retries"), None);
        assert_eq!(near("x"), None);
    }
}
