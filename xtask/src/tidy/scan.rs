//! A look at Rust without a parser: comments and literals are blanked, then brackets and
//! words tell where functions and test modules are. It needs only what rustfmt's layout
//! guarantees.

use std::ops::Range;

/// The source with comments, strings and characters replaced by spaces, line for line.
pub fn blank(source: &str) -> String {
    let mut out = source.as_bytes().to_vec();
    let bytes = source.as_bytes();
    let mut at = 0;
    while at < bytes.len() {
        let end = skip(bytes, at);
        match end {
            Some(end) => {
                for byte in &mut out[at..end] {
                    if *byte != b'\n' {
                        *byte = b' ';
                    }
                }
                at = end;
            }
            None => at += 1,
        }
    }
    // Only whole literals were blanked, and by ASCII; what is left is the text it was.
    String::from_utf8_lossy(&out).into_owned()
}

/// The end of the comment or literal that starts here, if one does.
fn skip(bytes: &[u8], at: usize) -> Option<usize> {
    let rest = &bytes[at..];
    if rest.starts_with(b"//") {
        return Some(at + rest.iter().position(|byte| *byte == b'\n').unwrap_or(rest.len()));
    }
    if rest.starts_with(b"/*") {
        return Some(at + block_comment(rest));
    }
    match rest[0] {
        b'"' => Some(at + quoted(rest, b'"')),
        b'\'' => character(rest).map(|len| at + len),
        b'r' if !word_before(bytes, at) || bytes[at - 1] == b'b' || bytes[at - 1] == b'c' => {
            raw_string(rest).map(|len| at + len)
        }
        _ => None,
    }
}

fn word_before(bytes: &[u8], at: usize) -> bool {
    at > 0 && is_word(bytes[at - 1])
}

fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_'
}

fn block_comment(rest: &[u8]) -> usize {
    let (mut at, mut depth) = (2, 1);
    while at < rest.len() && depth > 0 {
        if rest[at..].starts_with(b"/*") {
            (at, depth) = (at + 2, depth + 1);
        } else if rest[at..].starts_with(b"*/") {
            (at, depth) = (at + 2, depth - 1);
        } else {
            at += 1;
        }
    }
    at
}

fn quoted(rest: &[u8], quote: u8) -> usize {
    let mut at = 1;
    while at < rest.len() {
        match rest[at] {
            b'\\' => at += 2,
            byte if byte == quote => return at + 1,
            _ => at += 1,
        }
    }
    rest.len()
}

/// Length of a character literal; none if this is a lifetime.
fn character(rest: &[u8]) -> Option<usize> {
    if rest.get(1) == Some(&b'\\') {
        return Some(quoted(rest, b'\''));
    }
    // One character of up to four bytes, then the closing quote.
    (2..=5).find(|&at| rest.get(at) == Some(&b'\'')).map(|at| at + 1).filter(|&len| {
        std::str::from_utf8(&rest[1..len - 1]).is_ok_and(|text| text.chars().count() == 1)
    })
}

fn raw_string(rest: &[u8]) -> Option<usize> {
    let hashes = rest[1..].iter().take_while(|byte| **byte == b'#').count();
    if rest.get(1 + hashes) != Some(&b'"') {
        return None;
    }
    let start = 2 + hashes;
    let close = [&b"\""[..], &b"#".repeat(hashes)].concat();
    let end = rest[start..].windows(close.len()).position(|window| window == close);
    Some(end.map_or(rest.len(), |end| start + end + close.len()))
}

/// A function: its name, and its lines, from `fn` to the closing bracket.
pub struct Function {
    pub name: String,
    pub lines: Range<usize>,
}

/// All functions with a body in blanked source; line numbers start at 1.
pub fn functions(code: &str) -> Vec<Function> {
    let mut functions = Vec::new();
    for (at, _) in code.match_indices("fn ") {
        if word_before(code.as_bytes(), at) {
            continue;
        }
        let rest = &code[at + 3..];
        let name: String = rest.bytes().take_while(|b| is_word(*b)).map(char::from).collect();
        if name.is_empty() {
            continue;
        }
        if let Some(end) = body_end(code, at) {
            functions.push(Function { name, lines: line(code, at)..line(code, end) + 1 });
        }
    }
    functions
}

/// The lines of every item that follows `#[cfg(test)]`.
pub fn test_lines(code: &str) -> Vec<Range<usize>> {
    let marks = code.match_indices("#[cfg(test)]");
    let ends = marks.filter_map(|(at, mark)| Some((at, body_end(code, at + mark.len())?)));
    ends.map(|(at, end)| line(code, at)..line(code, end) + 1).collect()
}

/// Where the first block after `at` closes; none if the item ends by a semicolon first.
fn body_end(code: &str, at: usize) -> Option<usize> {
    // Brackets before the body: an array type may hold a semicolon.
    let (mut nested, mut depth) = (0_i32, 0_i32);
    for (offset, byte) in code.bytes().enumerate().skip(at) {
        match byte {
            b'(' | b'[' if depth == 0 => nested += 1,
            b')' | b']' if depth == 0 => nested -= 1,
            b';' if depth == 0 && nested == 0 => return None,
            b'{' if nested == 0 => depth += 1,
            b'}' if nested == 0 => {
                depth -= 1;
                if depth <= 0 {
                    return Some(offset);
                }
            }
            _ => {}
        }
    }
    None
}

fn line(code: &str, at: usize) -> usize {
    1 + code.as_bytes()[..at].iter().filter(|byte| **byte == b'\n').count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_and_literals_are_blanked() {
        let cases = [
            ("a // b\nc", "a     \nc"),
            ("a /* { /* } */ */ b", "a                 b"),
            (r#"f("{\"}", x)"#, r"f(      , x)"),
            ("g('{', '\\'', 'a: &'a str)", "g(   ,     , 'a: &'a str)"),
            ("h(r#\"\"}\"#)", "h(       )"),
            ("for r in b\"}\"", "for r in b   "),
        ];
        for (source, expected) in cases {
            assert_eq!(blank(source), expected, "{source}");
        }
    }

    #[test]
    fn functions_are_measured_from_the_name_to_the_bracket() {
        let code =
            "fn a() -> [u8; 2] {\n  if x { y }\n}\ntrait T {\n  fn b(&self);\n}\nlet f: fn (u8);\n";
        let functions = functions(code);
        let found: Vec<_> = functions.iter().map(|f| (f.name.as_str(), f.lines.clone())).collect();
        assert_eq!(found, [("a", 1..4)]);
    }

    #[test]
    fn test_modules_are_found() {
        let code = "use x;\n#[cfg(test)]\nmod tests {\n  fn t() {}\n}\n#[cfg(test)]\nmod more;\n";
        assert_eq!(test_lines(code), vec![2..6]);
    }
}
