//! Pieces of the schema that several fields share. Each has a bound: what is unbounded costs
//! the API server memory, and CEL's estimate of a rule's cost fails on it.

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};

/// A name as in DNS, without dots.
const LABEL: &str = "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$";
const MAX_LABEL_LEN: usize = 63;

/// A name as in DNS, with dots: most objects have one.
const SUBDOMAIN: &str = r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$";
const MAX_SUBDOMAIN_LEN: usize = 253;

/// A key of a label or a taint, or a resource: a name, perhaps behind a domain.
const QUALIFIED: &str =
    r"^([a-z0-9]([-a-z0-9.]*[a-z0-9])?/)?[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?$";
const MAX_QUALIFIED_LEN: usize = 317;

/// The value of a label.
const LABEL_VALUE: &str = "^([A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?)?$";

/// Entries of a node selector; nobody writes twenty.
const MAX_SELECTOR: usize = 32;

/// Kinds of resources of one pod.
const MAX_RESOURCES: usize = 16;

/// Longest message of a condition, as Kubernetes' own.
const MAX_MESSAGE: usize = 32_768;

/// Longest URL or image name that a status repeats.
const MAX_SHOWN: usize = 1024;

pub fn label(_: &mut SchemaGenerator) -> Schema {
    text(LABEL, 1, MAX_LABEL_LEN)
}

pub fn subdomain(_: &mut SchemaGenerator) -> Schema {
    text(SUBDOMAIN, 1, MAX_SUBDOMAIN_LEN)
}

pub fn qualified(_: &mut SchemaGenerator) -> Schema {
    text(QUALIFIED, 1, MAX_QUALIFIED_LEN)
}

pub fn label_value(_: &mut SchemaGenerator) -> Schema {
    text(LABEL_VALUE, 0, MAX_LABEL_LEN)
}

/// Labels that a node must have.
pub fn selector(generator: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "object",
        "maxProperties": MAX_SELECTOR,
        "additionalProperties": label_value(generator),
    })
}

/// Amounts by the name of a resource.
pub fn amounts(generator: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "object",
        "maxProperties": MAX_RESOURCES,
        "additionalProperties": super::Quantity::json_schema(generator),
    })
}

/// What a status shows of a thing that has no stricter form here.
pub fn shown(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "string", "maxLength": MAX_SHOWN})
}

/// A time, as Kubernetes writes it.
pub fn time(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "string", "format": "date-time"})
}

/// Words for people.
pub fn message(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "string", "maxLength": MAX_MESSAGE})
}

fn text(pattern: &str, min: usize, max: usize) -> Schema {
    json_schema!({"type": "string", "pattern": pattern, "minLength": min, "maxLength": max})
}
