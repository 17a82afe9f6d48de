//! Checks a Model as the API server does, without one: against the same schema and the same
//! rules, with the same paths, and every mistake at once.

use std::fmt;
use std::sync::LazyLock;

use regex::Regex;
use serde::Deserialize as _;
use serde_json::{Map, Value};

use crate::Model;
use crate::crd::{self, crd};
use crate::rules::{self, RULES};

/// Most mistakes that are told of one Model; the next ones are found when these are gone.
const MAX_MISTAKES: usize = 50;

/// Longest text of a wrong value that is repeated.
const MAX_SHOWN: usize = 80;

static SCHEMA: LazyLock<Value> = LazyLock::new(|| {
    let mut crd = serde_json::to_value(crd()).expect("a definition is plain data");
    crd::root(&mut crd).take()
});

/// What is wrong with a field.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mistake {
    /// Such as `spec.scale.maxReplicas` or `spec.env[0].name`.
    pub path: String,
    pub what: String,
}

/// A Model from its JSON form, with defaults for what is not written.
pub fn parse(value: Value) -> Result<Model, Vec<Mistake>> {
    let mut mistakes = Mistakes(Vec::new());
    for (field, expected) in [("apiVersion", "wick.dev/v1alpha1"), ("kind", "Model")] {
        if value[field] != expected {
            mistakes.add(field, format!("must be `{expected}`, and is {}", shown(&value[field])));
        }
    }
    if !value["metadata"]["name"].is_string() {
        mistakes.add("metadata.name", "is missing".to_owned());
    }
    mistakes.check("", &value, &SCHEMA);
    if !mistakes.0.is_empty() {
        return Err(mistakes.0);
    }
    let model = Model::deserialize(value);
    // What the schema lets through and the types do not would be a mistake of this crate.
    let model =
        model.map_err(|error| vec![Mistake { path: "spec".into(), what: error.to_string() }])?;
    let mistakes = check(&model);
    if mistakes.is_empty() { Ok(model) } else { Err(mistakes) }
}

/// What the rules between fields say of a Model.
pub fn check(model: &Model) -> Vec<Mistake> {
    let broken = RULES.iter().flat_map(|rule| {
        (rule.broken)(&model.spec)
            .into_iter()
            .map(|index| Mistake { path: rules::path(rule, index), what: rule.message.to_owned() })
    });
    broken.take(MAX_MISTAKES).collect()
}

struct Mistakes(Vec<Mistake>);

// === impl Mistakes ===

impl Mistakes {
    fn add(&mut self, path: &str, what: String) {
        if self.0.len() < MAX_MISTAKES {
            self.0.push(Mistake { path: path.to_owned(), what });
        }
    }

    fn check(&mut self, path: &str, value: &Value, schema: &Value) {
        if let Some(Value::Array(values)) = schema.get("enum")
            && !values.contains(value)
        {
            let known: Vec<String> = values.iter().map(shown).collect();
            self.add(path, format!("must be one of {}, and is {}", known.join(", "), shown(value)));
            return;
        }
        let or_string = schema["x-kubernetes-int-or-string"] == true;
        match (value, schema["type"].as_str()) {
            (Value::Object(map), Some("object")) => self.object(path, map, schema),
            (Value::Array(list), Some("array")) => self.list(path, list, schema),
            (Value::String(text), Some("string")) => self.text(path, text, schema),
            (Value::String(text), None) if or_string => self.text(path, text, schema),
            (Value::Bool(_), Some("boolean")) => {}
            (Value::Number(number), Some("integer")) if number.is_i64() => {
                self.number(path, number.as_i64().unwrap_or_default(), schema);
            }
            (Value::Number(number), None) if or_string && number.is_i64() => {}
            (_, expected) => {
                let expected = expected.unwrap_or("a number or a string");
                self.add(path, format!("must be {}, and is {}", article(expected), shown(value)));
            }
        }
    }

    fn object(&mut self, path: &str, map: &Map<String, Value>, schema: &Value) {
        let below = |name: &str| join(path, name);
        if let Some(most) = schema["maxProperties"].as_u64()
            && map.len() as u64 > most
        {
            self.add(path, format!("has {} entries; {most} is the limit", map.len()));
        }
        for name in schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str) {
            if !map.contains_key(name) {
                self.add(&below(name), "is missing".to_owned());
            }
        }
        let properties = schema["properties"].as_object();
        for (name, value) in map {
            let known = properties.and_then(|properties| properties.get(name));
            match (known, schema.get("additionalProperties")) {
                (Some(schema), _) | (None, Some(schema)) => self.check(&below(name), value, schema),
                // What is Kubernetes' own.
                (None, None) if path == "metadata" => {}
                (None, None)
                    if path.is_empty() && matches!(name.as_str(), "apiVersion" | "kind") => {}
                (None, None) => {
                    let names = properties.into_iter().flat_map(Map::keys).map(String::as_str);
                    let names: Vec<&str> = names.collect();
                    self.add(&below(name), format!("is not known; there are {}", names.join(", ")));
                }
            }
        }
    }

    fn list(&mut self, path: &str, list: &[Value], schema: &Value) {
        if let Some(most) = schema["maxItems"].as_u64()
            && list.len() as u64 > most
        {
            self.add(path, format!("has {} items; {most} is the limit", list.len()));
            return;
        }
        let keys = schema["x-kubernetes-list-map-keys"].as_array();
        let unique = keys.is_some() || schema["x-kubernetes-list-type"] == "set";
        // Of a set all of an item counts, of a map its keys.
        let key = |item: &Value| match keys {
            None => item.clone(),
            Some(keys) => {
                keys.iter().filter_map(Value::as_str).map(|key| item[key].clone()).collect()
            }
        };
        let seen: Vec<Value> = list.iter().map(key).collect();
        for (index, item) in list.iter().enumerate() {
            let path = format!("{path}[{index}]");
            self.check(&path, item, &schema["items"]);
            if unique && seen[..index].contains(&seen[index]) {
                self.add(&path, format!("is there twice: {}", shown(item)));
            }
        }
    }

    fn text(&mut self, path: &str, text: &str, schema: &Value) {
        let length = text.chars().count() as u64;
        if schema["maxLength"].as_u64().is_some_and(|most| length > most) {
            let most = &schema["maxLength"];
            self.add(path, format!("has {length} characters; {most} is the limit"));
        } else if schema["minLength"].as_u64().is_some_and(|least| length < least) {
            self.add(path, "is empty".to_owned());
        } else if let Some(pattern) = schema["pattern"].as_str()
            && !Regex::new(pattern).is_ok_and(|pattern| pattern.is_match(text))
        {
            self.add(path, format!("must match `{pattern}`, and is {}", shown(&text.into())));
        }
    }

    fn number(&mut self, path: &str, number: i64, schema: &Value) {
        let number = number as f64;
        if let Some(min) = schema["minimum"].as_f64().filter(|min| number < *min) {
            self.add(path, format!("must be at least {min}, and is {number}"));
        } else if let Some(max) = schema["maximum"].as_f64().filter(|max| number > *max) {
            self.add(path, format!("must be at most {max}, and is {number}"));
        }
    }
}

// === impl Mistake ===

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.path, self.what)
    }
}

fn join(path: &str, name: &str) -> String {
    if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") }
}

fn article(kind: &str) -> String {
    match kind {
        "object" | "array" | "integer" => format!("an {kind}"),
        "string" | "boolean" => format!("a {kind}"),
        other => other.to_owned(),
    }
}

fn shown(value: &Value) -> String {
    let text = value.to_string();
    match text.char_indices().nth(MAX_SHOWN) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}
