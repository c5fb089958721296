//! The known name that somebody probably meant.

/// Letters of the longest text that can be a known name misspelt. The comparison takes time in proportion
/// to the product of both lengths.
const LONGEST: usize = 64;

/// The nearest of the known names, if it is near enough to be a slip of the fingers: every third
/// letter may be wrong, and capitals do not count.
pub fn nearest<'a>(found: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    if found.len() > LONGEST {
        return None;
    }
    let found = found.to_lowercase();
    let distances = known
        .into_iter()
        .filter(|name| name.len() <= LONGEST)
        .map(|name| (distance(&found, &name.to_lowercase()), name));
    let (distance, name) = distances.min_by_key(|(distance, _)| *distance)?;
    (distance <= found.chars().count().max(3) / 3).then_some(name)
}

/// What is said of a name that nothing has.
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

/// Letters to insert, delete or change (Levenshtein).
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (position, letter) in a.chars().enumerate() {
        let mut diagonal = position;
        let mut left = position + 1;
        if let Some(first) = row.first_mut() {
            *first = left;
        }
        for (other, place) in b.iter().zip(row.iter_mut().skip(1)) {
            let change = diagonal + usize::from(letter != *other);
            diagonal = *place;
            left = change.min(left + 1).min(*place + 1);
            *place = left;
        }
    }
    row.last().copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slips_are_found_and_strangers_are_not() {
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
