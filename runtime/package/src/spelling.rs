//! The nearest known word to one that is not known.

/// Longest word that is compared: no known word is near a longer one, and the
/// comparison takes time in proportion to the length.
const MAX_WORD_LEN: usize = 64;

/// The known word that `word` was probably meant to be.
///
/// A third of the word may differ, so that short words don't match everything.
pub(crate) fn nearest<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    if word.len() > MAX_WORD_LEN {
        return None;
    }
    let most = (word.chars().count() / 3).max(1);
    let distances = known.into_iter().map(|candidate| (distance(word, candidate), candidate));
    let (least, candidate) = distances.min()?;
    (least <= most).then_some(candidate)
}

/// Insertions, deletions, replacements and swaps of neighbours that turn `a` into
/// `b`, whatever the case of the letters.
fn distance(a: &str, b: &str) -> usize {
    let a: Vec<char> = a.chars().map(|c| c.to_ascii_lowercase()).collect();
    let b: Vec<char> = b.chars().map(|c| c.to_ascii_lowercase()).collect();
    let mut rows: Vec<Vec<usize>> = vec![(0..=b.len()).collect()];
    for i in 1..=a.len() {
        let mut row = vec![i];
        for j in 1..=b.len() {
            let replace = rows[i - 1][j - 1] + usize::from(a[i - 1] != b[j - 1]);
            let mut best = replace.min(rows[i - 1][j] + 1).min(row[j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                best = best.min(rows[i - 2][j - 2] + 1);
            }
            row.push(best);
        }
        rows.push(row);
    }
    rows[a.len()][b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_word_is_found_and_far_ones_are_not() {
        let known = ["name", "path", "devices", "batch"];
        assert_eq!(nearest("deviecs", known), Some("devices"));
        assert_eq!(nearest("Path", known), Some("path"));
        assert_eq!(nearest("nmae", known), Some("name"));
        assert_eq!(nearest("weights", known), None);
        assert_eq!(nearest("", known), None);
        assert_eq!(nearest(&"a".repeat(1 << 20), known), None);
    }
}
