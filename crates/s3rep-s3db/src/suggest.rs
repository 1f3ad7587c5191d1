//! What a misspelled word was probably meant to be.

/// `did you mean …?` where one of `known` is near, else all of them.
pub(crate) fn did_you_mean(given: &str, known: &[&str]) -> String {
    match nearest(given, known) {
        Some(word) => format!("did you mean '{word}'?"),
        None => format!("known are {}", known.join(", ")),
    }
}

/// The one of `known` that is near enough to be meant.
pub(crate) fn nearest<'a>(given: &str, known: &[&'a str]) -> Option<&'a str> {
    // Longer than any word known here; the distance takes quadratic time.
    if given.len() > 64 {
        return None;
    }
    let given = given.to_lowercase();
    let distances =
        known.iter().map(|word| (strsim::damerau_levenshtein(&given, &word.to_lowercase()), *word));
    distances
        .filter(|(distance, word)| *distance <= (word.len().max(given.len()) / 3).max(1))
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, word)| word)
}
