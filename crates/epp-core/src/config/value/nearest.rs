//! The known name that is most similar to a misspelt one.

/// Letters of the longest text that can be a known name misspelt. The comparison takes time in proportion
/// to the product of both lengths.
const MAX_NAME_BYTES: usize = 64;

/// The nearest of the known names, if it is near enough to be a slip of the fingers: every third
/// letter may be wrong, and capitals do not count.
pub fn nearest<'a>(found: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    if found.len() > MAX_NAME_BYTES {
        return None;
    }
    let found = found.to_lowercase();
    let distances = known
        .into_iter()
        .filter(|name| name.len() <= MAX_NAME_BYTES)
        .map(|name| (strsim::levenshtein(&found, &name.to_lowercase()), name));
    let (distance, name) = distances.min_by_key(|(distance, _)| *distance)?;
    (distance <= found.chars().count().max(3) / 3).then_some(name)
}

/// Returns the error for an unknown name.
pub fn no_such(found: &str, expected: &str, known: &[&str]) -> String {
    let near = nearest(found, known.iter().copied());
    let mut message = format!("found {found:?}, expected the name of {expected}; ");
    match (near, known) {
        (Some(near), _) => {
            message.push_str("did you mean ");
            message.push_str(near);
            message.push('?');
        }
        (None, []) => message.push_str("there is none"),
        (None, known) => {
            message.push_str("there are: ");
            message.push_str(&known.join(", "));
        }
    }
    message
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slips_are_found_and_unrelated_names_are_not() {
        let known = ["queue-scorer", "prefix-cache-scorer", "max-score-picker"];
        assert_eq!(nearest("queue-socrer", known), Some("queue-scorer"));
        assert_eq!(
            nearest("prefix-cach-scorer", known),
            Some("prefix-cache-scorer")
        );
        assert_eq!(nearest("Max-Score-Picker", known), Some("max-score-picker"));
        assert_eq!(nearest("plover", known), None);
        assert_eq!(nearest("x", []), None);
        let long = "x".repeat(1_000);
        assert_eq!(nearest(&long, [long.as_str()]), None);
    }
}
