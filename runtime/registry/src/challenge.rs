//! What a registry asks for when it answers 401: the `WWW-Authenticate` header, parsed. Pure.

/// Longest header that is looked at. Real ones have some two hundred letters.
const MAX_HEADER: usize = 4096;

/// A way to say who calls.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Challenge {
    /// User and password with every request.
    Basic,
    /// A token from somewhere else.
    Bearer { realm: String, service: Option<String>, scope: Option<String> },
}

/// The challenge of a header that is known here; tokens are preferred to passwords.
pub(crate) fn parse(header: &str) -> Option<Challenge> {
    let header = header.get(..MAX_HEADER).unwrap_or(header);
    let mut basic = None;
    for (scheme, parameters) in challenges(header) {
        let get = |name: &str| {
            let found = parameters.iter().find(|(key, _)| key.eq_ignore_ascii_case(name));
            found.map(|(_, value)| value.clone())
        };
        if scheme.eq_ignore_ascii_case("bearer")
            && let Some(realm) = get("realm")
        {
            return Some(Challenge::Bearer { realm, service: get("service"), scope: get("scope") });
        }
        if scheme.eq_ignore_ascii_case("basic") {
            basic = Some(Challenge::Basic);
        }
    }
    basic
}

type Parameters = Vec<(String, String)>;

/// Schemes and their parameters. A comma parts both challenges and parameters, so a word that is
/// not followed by `=` begins a challenge.
fn challenges(header: &str) -> Vec<(String, Parameters)> {
    let mut all: Vec<(String, Parameters)> = Vec::new();
    let mut rest = header;
    loop {
        rest = rest.trim_start_matches([' ', '\t', ',']);
        let end = rest.find([' ', '\t', ',', '=']).unwrap_or(rest.len());
        let (word, after) = rest.split_at(end);
        if word.is_empty() {
            // Nothing is left, or a sign that belongs nowhere.
            match rest.chars().next() {
                None => return all,
                Some(sign) => rest = &rest[sign.len_utf8()..],
            }
            continue;
        }
        let value = after.trim_start_matches([' ', '\t']).strip_prefix('=');
        match (value, all.last_mut()) {
            (Some(value), Some((_, parameters))) => {
                let (value, left) = take_value(value.trim_start_matches([' ', '\t']));
                parameters.push((word.to_owned(), value));
                rest = left;
            }
            (Some(value), None) => rest = take_value(value).1,
            (None, _) => {
                all.push((word.to_owned(), Vec::new()));
                rest = after;
            }
        }
    }
}

/// A word or a quoted text, and what follows it.
fn take_value(text: &str) -> (String, &str) {
    let Some(quoted) = text.strip_prefix('"') else {
        let end = text.find([',', ' ', '\t']).unwrap_or(text.len());
        return (text[..end].to_owned(), &text[end..]);
    };
    let mut value = String::new();
    let mut letters = quoted.char_indices();
    while let Some((at, letter)) = letters.next() {
        match letter {
            '"' => return (value, &quoted[at + 1..]),
            '\\' => value.extend(letters.next().map(|(_, escaped)| escaped)),
            other => value.push(other),
        }
    }
    (value, "")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn bearer(realm: &str, service: Option<&str>, scope: Option<&str>) -> Option<Challenge> {
        let own = |text: Option<&str>| text.map(str::to_owned);
        Some(Challenge::Bearer {
            realm: realm.to_owned(),
            service: own(service),
            scope: own(scope),
        })
    }

    #[test]
    fn headers_of_real_registries_are_read() {
        let hub = r#"Bearer realm="https://auth.docker.io/token",service="registry.docker.io",scope="repository:a/b:pull,push""#;
        let (service, scope) = (Some("registry.docker.io"), Some("repository:a/b:pull,push"));
        assert_eq!(parse(hub), bearer("https://auth.docker.io/token", service, scope));
        assert_eq!(parse(r#"Basic realm="Registry Realm""#), Some(Challenge::Basic));
        let both = r#"Basic realm="a", Bearer realm="https://b", service=c"#;
        assert_eq!(parse(both), bearer("https://b", Some("c"), None));
        let odd = r#"bearer service="x \"y\", z" , realm = "https://b""#;
        assert_eq!(parse(odd), bearer("https://b", Some(r#"x "y", z"#), None));
    }

    #[test]
    fn other_headers_are_none() {
        for text in ["", "Negotiate", "Bearer", "Bearer realm", "=,=,", "Bearer error=\"x\""] {
            assert_eq!(parse(text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn no_header_makes_the_parser_panic(text in "\\PC{0,100}|[a-zA-Z=\", \\\\]{0,100}") {
            let _ = parse(&text);
        }
    }
}
