//! The one kind of error of a bundle: a value that cannot be used.

/// A value that cannot be used, and what to write instead.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field} {value:?} {problem}; {fix}")]
pub struct Invalid {
    /// The field as the spec document calls it: `resources.memory`, `volumes[1].target`, `env.PATH`. Values that
    /// come from the image have `image.` in front.
    pub field: String,
    /// What stood there, shortened.
    pub value: String,
    /// What is wrong with it, to be read after the value: `is below 6 MiB`.
    pub problem: String,
    /// What to do, as an order: `give at least 6291456`.
    pub fix: String,
}

impl Invalid {
    pub(crate) fn new(
        field: impl Into<String>,
        value: impl ToString,
        problem: impl Into<String>,
        fix: impl Into<String>,
    ) -> Self {
        Self {
            field: field.into(),
            value: shorten(value.to_string()),
            problem: problem.into(),
            fix: fix.into(),
        }
    }
}

/// A value of a mebibyte would make a message that nobody reads.
fn shorten(value: String) -> String {
    const LONGEST: usize = 80;
    match value.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{}…", &value[..end]),
        None => value,
    }
}

/// The known name that is nearest to what was written, if one is near enough to be meant.
pub(crate) fn nearest<'a>(wanted: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let most = (wanted.chars().count() / 3).max(1);
    known
        .into_iter()
        .map(|name| (distance(wanted, name), name))
        .filter(|(distance, _)| *distance <= most)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, name)| name)
}

/// Levenshtein's: how many characters to insert, delete or replace.
fn distance(left: &str, right: &str) -> usize {
    let right: Vec<char> = right.chars().collect();
    let mut row: Vec<usize> = (0..=right.len()).collect();
    for (i, a) in left.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, b) in right.iter().enumerate() {
            let replaced = diagonal + usize::from(a != *b);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[right.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn message_names_field_value_problem_and_fix() {
        let error = Invalid::new("resources.memory", 5, "is below 6 MiB", "give at least 6291456");
        assert_eq!(error.to_string(), r#"resources.memory "5" is below 6 MiB; give at least 6291456"#);
    }

    #[test]
    fn long_and_hostile_values_are_shown_short_and_escaped() {
        let error =
            Invalid::new("hostname", "a\n\u{1b}[31m".to_owned() + &"x".repeat(1 << 20), "is bad", "fix");
        let text = error.to_string();
        assert!(text.len() < 200 && !text.contains('\n') && !text.contains('\u{1b}'), "{text}");
    }

    #[test]
    fn nearest_name_is_found_and_far_ones_are_not() {
        let known = ["NET_ADMIN", "NET_RAW", "SYS_ADMIN"];
        assert_eq!(nearest("NET_ADMN", known), Some("NET_ADMIN"));
        assert_eq!(nearest("BANANA", known), None);
    }
}
