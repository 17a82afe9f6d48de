//! Licence expressions: `MIT OR (Apache-2.0 AND ISC)`, and the older `MIT/Apache-2.0`.

/// Whether the allowed licences suffice to use what has this expression. A text that is no
/// expression is not allowed.
pub fn allowed(expression: &str, allow: &[String]) -> bool {
    let text = expression.replace('/', " OR ").replace('(', " ( ").replace(')', " ) ");
    let words: Vec<&str> = text.split_whitespace().collect();
    let mut words = words.as_slice();
    alternatives(&mut words, allow).is_some_and(|allowed| allowed && words.is_empty())
}

fn alternatives(words: &mut &[&str], allow: &[String]) -> Option<bool> {
    let mut any = all(words, allow)?;
    while take(words, "OR") {
        any |= all(words, allow)?;
    }
    Some(any)
}

fn all(words: &mut &[&str], allow: &[String]) -> Option<bool> {
    let mut all = one(words, allow)?;
    while take(words, "AND") {
        all &= one(words, allow)?;
    }
    Some(all)
}

fn one(words: &mut &[&str], allow: &[String]) -> Option<bool> {
    if take(words, "(") {
        let inner = alternatives(words, allow)?;
        return take(words, ")").then_some(inner);
    }
    let (licence, rest) = words.split_first()?;
    *words = rest;
    if !take(words, "WITH") {
        return Some(allow.iter().any(|allowed| allowed == licence));
    }
    let (exception, rest) = words.split_first()?;
    *words = rest;
    let both = format!("{licence} WITH {exception}");
    Some(allow.contains(&both))
}

fn take(words: &mut &[&str], word: &str) -> bool {
    let taken = words.first() == Some(&word);
    if taken {
        *words = &words[1..];
    }
    taken
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expressions_are_decided() {
        let allow = ["MIT", "Apache-2.0", "Apache-2.0 WITH LLVM-exception", "ISC"];
        let allow = allow.map(str::to_owned);
        let cases = [
            ("MIT", true),
            ("GPL-3.0-only", false),
            ("GPL-3.0-only OR MIT", true),
            ("MIT AND GPL-3.0-only", false),
            ("MIT/Unlicense", true),
            ("Apache-2.0 WITH LLVM-exception", true),
            ("Apache-2.0 WITH Other-exception", false),
            ("(MIT OR GPL-2.0) AND ISC", true),
            ("ISC AND (GPL-2.0 OR Unlicense)", false),
            // AND binds first.
            ("MIT OR GPL-2.0 AND GPL-3.0", true),
            ("", false),
            ("MIT OR", false),
            ("(MIT", false),
            ("MIT Apache-2.0", false),
        ];
        for (expression, expected) in cases {
            assert_eq!(allowed(expression, &allow), expected, "{expression}");
        }
    }
}
