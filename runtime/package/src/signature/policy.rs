//! The policy: who may sign which names. Parsed once, with every mistake reported together.
//!
//! ```toml
//! default = "deny"            # images that no rule names: "deny" or "allow"
//!
//! [[key]]
//! name = "release"
//! file = "release.pub"        # beside this file; or public_key = """-----BEGIN ..."""
//!
//! [[rule]]                    # the first that names an image decides
//! images = ["registry.example/vision/*"]
//! keys = ["release"]
//! min = 1
//! ```

use std::collections::BTreeMap;
use std::io;
use std::ops::RangeInclusive;
use std::path::Path;

use toml::de::DeTable;

use crate::mistakes::{ManifestErrors, Mistakes};
use crate::parse::report_syntax;
use crate::reader::{At, Reader};
use crate::reference::ImageRef;
use crate::signature::key::PublicKey;

/// Where a node has its policy unless it is told otherwise. Without the file nothing must be
/// signed.
pub const NODE_POLICY: &str = "/etc/wick/policy.toml";

/// Longest policy, in bytes.
pub const MAX_POLICY: u64 = 1 << 20;

/// Most keys, and most rules; every start looks through them.
const MAX_KEYS: usize = 256;
const MAX_RULES: usize = 1024;

/// Signatures of different keys that one image may need.
const MIN: RangeInclusive<u32> = 1..=16;

/// Longest name of a key.
const MAX_KEY_NAME: usize = 63;

/// Who may sign which names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    pub default: Otherwise,
    pub keys: Vec<TrustedKey>,
    /// In the order of the file: the first that names an image decides.
    pub rules: Vec<Rule>,
}

/// What happens to an image that no rule names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Otherwise {
    Deny,
    Allow,
}

/// A key and the name that rules know it by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TrustedKey {
    pub name: String,
    pub key: PublicKey,
}

/// What the images of some names need.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    pub images: Vec<Pattern>,
    /// Indexes into the policy's keys; empty where no signature is needed.
    pub keys: Vec<usize>,
    /// Of how many of them; zero where no signature is needed.
    pub min: usize,
    /// Other names that a signature may say: those that an image was copied from.
    pub signed_as: Vec<Pattern>,
    /// Whether signatures that say no name count.
    pub nameless: bool,
}

/// Names of repositories: one, or all below a folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Pattern {
    All,
    /// With the slash at its end.
    Below(String),
    Exactly(String),
}

/// Reads a file that the policy names, such as a key.
pub type Load<'a> = dyn Fn(&str) -> io::Result<String> + 'a;

// === impl Policy ===

impl Policy {
    /// Parse the text of a policy; `file` is named in errors, and `load` reads the files of keys.
    ///
    /// # Errors
    /// All mistakes of the text together, each with its place and the fix.
    pub fn parse(text: &str, file: &Path, load: &Load<'_>) -> Result<Self, ManifestErrors> {
        let mistakes = Mistakes::new(text);
        let (document, broken) = DeTable::parse_recoverable(text);
        let policy = if broken.is_empty() {
            let keys = ["default", "key", "rule"];
            let root = Reader::new(document.get_ref(), 0, "the policy", &keys, &mistakes);
            read(root, load)
        } else {
            report_syntax(text, &broken, &mistakes);
            None
        };
        mistakes.finish(file, policy)
    }

    /// For one image: any of these keys must have signed it. Whoever names an image and the keys
    /// for it asks for no more, so a signature need not say the image's name.
    pub fn any_of(keys: Vec<TrustedKey>) -> Self {
        let rule = Rule {
            images: vec![Pattern::All],
            keys: (0..keys.len()).collect(),
            min: 1,
            signed_as: Vec::new(),
            nameless: true,
        };
        Self { default: Otherwise::Deny, keys, rules: vec![rule] }
    }

    /// The rule that decides about a repository.
    pub fn rule(&self, repository: &str) -> Option<&Rule> {
        self.rules.iter().find(|rule| rule.images.iter().any(|image| image.matches(repository)))
    }

    /// Whether there is an image that needs a signature.
    pub fn wants_signatures(&self) -> bool {
        self.rules.iter().any(|rule| rule.min > 0)
    }

    /// The names of a rule's keys, for people.
    pub fn key_names(&self, rule: &Rule) -> Vec<&str> {
        rule.keys.iter().filter_map(|&at| Some(self.keys.get(at)?.name.as_str())).collect()
    }
}

fn read(root: Reader<'_>, load: &Load<'_>) -> Option<Policy> {
    root.require("default", "default = \"deny\"");
    let default = root.text("default").and_then(|text| match text.value {
        "deny" => Some(Otherwise::Deny),
        "allow" => Some(Otherwise::Allow),
        other => {
            let fix = "write \"deny\" or \"allow\", for images that no rule names";
            root.mistake(text.at, format!("`default` is `{other}`: {fix}"));
            None
        }
    });
    let (keys, names) = read_keys(&root, load);
    let known = ["images", "keys", "min", "signed_as", "nameless", "unsigned"];
    let rules = root.tables("rule", "[[rule]]", &known);
    if rules.len() > MAX_RULES {
        root.mistake(root.at_of("rule"), format!("there are more than {MAX_RULES} rules"));
    }
    let rules: Vec<_> = rules.iter().map(|rule| read_rule(rule, &names)).collect();
    Some(Policy { default: default?, keys, rules: rules.into_iter().collect::<Option<_>>()? })
}

/// The keys, and which of them has which name. A name whose key could not be read has none: a
/// rule that uses it is no second mistake.
fn read_keys(
    root: &Reader<'_>,
    load: &Load<'_>,
) -> (Vec<TrustedKey>, BTreeMap<String, Option<usize>>) {
    let mut keys: Vec<TrustedKey> = Vec::new();
    let mut names = BTreeMap::new();
    let tables = root.tables("key", "[[key]]", &["name", "file", "public_key"]);
    if tables.len() > MAX_KEYS {
        root.mistake(root.at_of("key"), format!("there are more than {MAX_KEYS} keys"));
    }
    for table in tables.iter().take(MAX_KEYS) {
        table.require("name", "name = \"release\"");
        let name = table.text("name");
        let key = read_key(table, load);
        let Some(name) = name else { continue };
        if name.value.is_empty() || name.value.len() > MAX_KEY_NAME {
            table.mistake(name.at, format!("a key's name has 1 to {MAX_KEY_NAME} bytes"));
            continue;
        }
        if names.contains_key(name.value) {
            let text = format!("there are two keys `{}`: give one another name", name.value);
            table.mistake(name.at, text);
            continue;
        }
        // Two names of one key would count as two signers.
        if let Some(key) = &key
            && let Some(other) = keys.iter().find(|other| other.key.id() == key.id())
        {
            let text =
                format!("`{}` is the same key as `{}`: leave one out", name.value, other.name);
            table.mistake(name.at, text);
        }
        names.insert(name.value.to_owned(), key.as_ref().map(|_| keys.len()));
        keys.extend(key.map(|key| TrustedKey { name: name.value.to_owned(), key }));
    }
    (keys, names)
}

fn read_key(table: &Reader<'_>, load: &Load<'_>) -> Option<PublicKey> {
    let (file, inline) = (table.text("file"), table.text("public_key"));
    let (at, text) = match (file, inline) {
        (Some(file), None) => match load(file.value) {
            Ok(text) => (file.at, text),
            Err(error) => {
                table.mistake(file.at, format!("the key `{}` can't be read: {error}", file.value));
                return None;
            }
        },
        (None, Some(inline)) => (inline.at, inline.value.to_owned()),
        (Some(file), Some(_)) => {
            table.mistake(file.at, "a key has `file` or `public_key`, not both");
            return None;
        }
        // Of the wrong type, which is reported already, or not there.
        (None, None) => {
            if !table.has("public_key") {
                table.require("file", "file = \"release.pub\"");
            }
            return None;
        }
    };
    match PublicKey::from_pem(&text) {
        Ok(key) => Some(key),
        Err(error) => {
            table.mistake(at, error);
            None
        }
    }
}

fn read_rule(table: &Reader<'_>, names: &BTreeMap<String, Option<usize>>) -> Option<Rule> {
    table.require("images", "images = [\"registry.example/vision/*\"]");
    let images = patterns(table, "images");
    let signed_as = patterns(table, "signed_as");
    let min = table.integer("min", MIN);
    let nameless = table.flag("nameless");
    if table.flag("unsigned") == Some(true) {
        for key in ["keys", "min", "signed_as", "nameless"] {
            if table.has(key) {
                let text = format!("a rule with `unsigned = true` needs no `{key}`: leave one out");
                table.mistake(table.at_of(key), text);
            }
        }
        let (keys, signed_as) = (Vec::new(), Vec::new());
        return Some(Rule { images: images?, keys, min: 0, signed_as, nameless: false });
    }
    table.require("keys", "keys = [\"release\"]");
    let keys = rule_keys(table, names)?;
    let min = min.map_or(1, |min| min as usize);
    if min > keys.len() {
        let text = format!("`min` is {min}, and the rule has {} keys: list more", keys.len());
        table.mistake(table.at_of("min"), text);
    }
    // A key that could not be read is a mistake of its own.
    let keys = keys.into_iter().flatten().collect();
    let signed_as = signed_as.unwrap_or_default();
    Some(Rule { images: images?, keys, min, signed_as, nameless: nameless == Some(true) })
}

fn rule_keys(
    table: &Reader<'_>,
    names: &BTreeMap<String, Option<usize>>,
) -> Option<Vec<Option<usize>>> {
    let mut keys = Vec::new();
    let texts = table.texts("keys", "[\"release\"]")?;
    if texts.is_empty() {
        let text = "`keys` in [[rule]] is empty: name a key, or write `unsigned = true`";
        table.mistake(table.at_of("keys"), text);
    }
    let mut seen = Vec::new();
    for At { at, value } in texts {
        match names.get(value) {
            None => {
                table.mistake(at, format!("there is no [[key]] with the name `{value}`"));
                keys.push(None);
            }
            Some(_) if seen.contains(&value) => {
                table.mistake(at, format!("`{value}` is listed twice: list it once"));
            }
            Some(key) => keys.push(*key),
        }
        seen.push(value);
    }
    Some(keys)
}

fn patterns(table: &Reader<'_>, key: &str) -> Option<Vec<Pattern>> {
    let texts = table.texts(key, "[\"registry.example/vision/*\"]")?;
    if texts.is_empty() {
        let text = format!("`{key}` in [[rule]] is empty: name an image, or \"*\"");
        table.mistake(table.at_of(key), text);
    }
    let one = |text: At<&str>| match Pattern::parse(text.value) {
        Ok(pattern) => Some(pattern),
        Err(why) => {
            table.mistake(text.at, format!("`{}` names no images: {why}", text.value));
            None
        }
    };
    Some(texts.into_iter().filter_map(one).collect())
}

// === impl Pattern ===

impl Pattern {
    fn parse(text: &str) -> Result<Self, String> {
        if text == "*" {
            return Ok(Self::All);
        }
        let (folder, rest) = match text.strip_suffix("/*") {
            // A name is needed to parse it; any will do.
            Some(folder) => (format!("{folder}/x"), Some("x")),
            None => (text.to_owned(), None),
        };
        if folder.contains('*') {
            // `registry.example*` would match `registry.example.evil`.
            return Err("`*` stands for any rest, only at the end and after `/`".to_owned());
        }
        let parsed: ImageRef = folder.parse().map_err(|_| {
            "write a repository, such as `registry.example/vision/filetype`".to_owned()
        })?;
        if parsed.tag().is_some() {
            return Err("leave out the tag: a signature is for a digest, not for a tag".to_owned());
        }
        let whole = parsed.name();
        if whole != folder {
            let whole = match rest {
                Some(rest) => format!("{}*", &whole[..whole.len() - rest.len()]),
                None => whole,
            };
            return Err(format!("write it with its registry: `{whole}`"));
        }
        Ok(match rest {
            Some(rest) => Self::Below(whole[..whole.len() - rest.len()].to_owned()),
            None => Self::Exactly(whole),
        })
    }

    /// Whether it names this repository.
    pub fn matches(&self, repository: &str) -> bool {
        match self {
            Self::All => true,
            Self::Below(folder) => repository.starts_with(folder.as_str()),
            Self::Exactly(name) => name == repository,
        }
    }
}
