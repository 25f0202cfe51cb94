//! The known name nearest to a mistyped one.

/// The name in `known` a typist most likely meant, or none when nothing is close.
///
/// ```
/// use ringpost_bench::nearest::nearest;
/// assert_eq!(nearest("partition", ["partitions", "producers"]), Some("partitions"));
/// assert_eq!(nearest("xyzzy", ["partitions", "producers"]), None);
/// ```
pub fn nearest<'a>(typed: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    // A third of the letters may be wrong; short names get two.
    let allowed = (typed.chars().count() / 3).max(2);
    known
        .into_iter()
        .map(|name| (strsim::damerau_levenshtein(typed, name), name))
        .filter(|(distance, name)| *distance <= allowed || name.starts_with(typed))
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, name)| name)
}

/// `; did you mean X?` to append to a refusal, or nothing.
pub fn hint<'a>(typed: &str, known: impl IntoIterator<Item = &'a str>) -> String {
    nearest(typed, known).map_or_else(String::new, |name| format!("; did you mean `{name}`?"))
}
