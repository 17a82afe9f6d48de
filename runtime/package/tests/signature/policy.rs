//! The policy's file: what it means, and its mistakes.

use std::io;
use std::path::Path;

use wick_package::signature::{Otherwise, Pattern, Policy};

use crate::support::{RULES, key, policy};

/// The mistakes of a policy, as `LINE:COLUMN: MESSAGE`.
#[track_caller]
fn check(text: &str, want: &[&str]) {
    let errors = policy(text).expect_err("the policy has a mistake");
    let got: Vec<_> =
        errors.mistakes().iter().map(|m| format!("{}: {}", m.line, m.message)).collect();
    assert_eq!(got, want);
}

#[test]
fn a_policy_is_read() {
    let policy = policy(RULES).unwrap();
    assert_eq!(policy.default, Otherwise::Deny);
    assert_eq!(policy.keys[1].key, key(2).public());
    let rule = policy.rule("registry.example/vision/secret").unwrap();
    assert_eq!((rule.min, policy.key_names(rule)), (2, vec!["release", "security"]));
    let rule = policy.rule("registry.example/vision/deep/er").unwrap();
    assert_eq!((rule.min, rule.keys.as_slice()), (1, &[0][..]));
    assert_eq!(policy.rule("localhost/x").unwrap().min, 0);
    assert!(policy.rules.iter().all(|rule| !rule.nameless));
    assert_eq!(policy.rule("registry.example/visionary/x"), None);
    assert_eq!(policy.rule("registry.example/vision"), None);
}

#[test]
fn a_key_may_be_a_file_beside_the_policy() {
    let text = "default = \"allow\"\n[[key]]\nname = \"a\"\nfile = \"a.pub\"\n";
    let load = |name: &str| match name {
        "a.pub" => Ok(key(1).public().to_pem()),
        _ => Err(io::ErrorKind::NotFound.into()),
    };
    let read = Policy::parse(text, Path::new("p"), &load).unwrap();
    assert_eq!(read.keys[0].key, key(1).public());
    let other = text.replace("a.pub", "b.pub");
    let errors = Policy::parse(&other, Path::new("p"), &load).unwrap_err();
    assert!(errors.to_string().contains("p:4:8: the key `b.pub` can't be read"), "{errors}");
}

#[test]
fn a_policy_can_carry_its_keys_and_means_the_same() {
    let text = "# Ours.\ndefault = \"deny\"\n[[key]]\nname = \"a\" # the first\n\
                file = \"a.pub\"   # beside this\n\n[[rule]]\nimages = [\"r.example/*\"]\n\
                keys = [\"b\", \"a\"]\n\n[[key]]\n\"file\" = 'b.pub'\nname = \"b\"\n";
    let load = |name: &str| match name {
        "a.pub" => Ok(key(1).public().to_pem()),
        "b.pub" => Ok(format!("a note\n{}", key(2).public().to_pem())),
        _ => Err(io::ErrorKind::NotFound.into()),
    };
    let (policy, whole) = Policy::embed(text, Path::new("p"), &load).unwrap();
    assert_eq!(policy.keys.len(), 2);
    let none = |_: &str| -> io::Result<String> { Err(io::ErrorKind::NotFound.into()) };
    assert_eq!(Policy::parse(&whole, Path::new("p"), &none).unwrap(), policy);
    for kept in ["# Ours.\n", "# the first\n", "'''   # beside this\n", "keys = [\"b\", \"a\"]\n"] {
        assert!(whole.contains(kept), "{whole}");
    }
    // What has its keys already stays as it is.
    assert_eq!(Policy::embed(&whole, Path::new("p"), &none).unwrap().1, whole);
    let inline = "default = \"deny\"\nkey = [{ name = \"a\", file = \"a.pub\" }]\n";
    let (policy, whole) = Policy::embed(inline, Path::new("p"), &load).unwrap();
    assert_eq!(Policy::parse(&whole, Path::new("p"), &none).unwrap(), policy);
    assert!(Policy::embed(&text.replace("a.pub", "c"), Path::new("p"), &load).is_err());
}

#[test]
fn all_mistakes_are_told_together_with_their_places() {
    check(
        "defualt = \"deny\"\n[[key]]\nname = \"a\"\n[[rule]]\nimages = []\nkeys = [\"b\"]\nmin = 0\n",
        &[
            "1: unknown key `defualt` in the policy: did you mean `default`?",
            "1: `default` is missing in the policy: write `default = \"deny\"`",
            "2: `file` is missing in [[key]]: write `file = \"release.pub\"`",
            "5: `images` in [[rule]] is empty: name an image, or \"*\"",
            "6: there is no [[key]] with the name `b`",
            "7: `min` in [[rule]] is 0: write a whole number from 1 to 16",
        ],
    );
    check(
        "default = \"maybe\"\n[[rule]]\n",
        &[
            "1: `default` is `maybe`: write \"deny\" or \"allow\", for images that no rule names",
            "2: `images` is missing in [[rule]]: write `images = [\"registry.example/vision/*\"]`",
            "2: `keys` is missing in [[rule]]: write `keys = [\"release\"]`",
        ],
    );
    check(
        "default = \n",
        &["1: this is not TOML: string values must be quoted, expected literal string"],
    );
}

#[test]
fn one_key_under_two_names_is_not_two_signers() {
    let text = "default = \"deny\"\n[[key]]\nname = \"a\"\npublic_key = {1}\n[[key]]\nname = \"b\"\n\
        public_key = {1}\n";
    let errors = policy(text).unwrap_err();
    assert!(errors.to_string().contains("`b` is the same key as `a`"), "{errors}");
    let text = text.replace("\"b\"", "\"a\"");
    assert!(policy(&text).unwrap_err().to_string().contains("there are two keys `a`"));
}

#[test]
fn a_rule_that_nothing_can_meet_is_a_mistake() {
    let text = RULES.replace("min = 2", "min = 3");
    let errors = policy(&text).unwrap_err();
    assert!(errors.to_string().contains("`min` is 3, and the rule has 2 keys"), "{errors}");
    let text = RULES.replace("unsigned = true", "unsigned = true\nkeys = [\"release\"]");
    assert!(policy(&text).unwrap_err().to_string().contains("needs no `keys`"));
    let text = RULES.replace("\"release\", \"security\"", "\"release\", \"release\"");
    assert!(policy(&text).unwrap_err().to_string().contains("listed twice"));
}

#[test]
fn patterns_stop_at_the_slash() {
    let of = |pattern: &str| {
        policy(&format!("default = \"deny\"\n[[rule]]\nimages = [{pattern:?}]\nunsigned = true\n"))
    };
    let pattern = |text: &str| of(text).unwrap().rules.remove(0).images.remove(0);
    assert_eq!(pattern("*"), Pattern::All);
    let folder = pattern("registry.example:5000/vision/*");
    assert!(folder.matches("registry.example:5000/vision/a/b"));
    assert!(!folder.matches("registry.example:5000/vision-evil/a"));
    let registry = pattern("registry.example/*");
    assert!(registry.matches("registry.example/a"));
    assert!(!registry.matches("registry.example.evil/a"));
    for (bad, why) in [
        ("registry.example*", "only at the end and after `/`"),
        ("*/x", "only at the end and after `/`"),
        ("vision/*", "write it with its registry: `docker.io/vision/*`"),
        ("filetype", "write it with its registry: `docker.io/library/filetype`"),
        ("registry.example/a:1.0", "leave out the tag"),
        ("registry.example/A", "write a repository"),
        ("", "write a repository"),
    ] {
        let errors = of(bad).unwrap_err().to_string();
        assert!(errors.contains(why), "{bad}: {errors}");
    }
}
