//! The schemas of the document: JSON Schema 2020-12, objects open to additions.

use serde_json::{Value, json as object};
use wick_package::Datatype;

/// Every schema by its name.
pub(super) fn all() -> Value {
    let mut all = object!({
        "Error": fields(&[("error", text()), ("code", text())]),
        "Server": fields(&[("name", text()), ("version", text()), ("extensions", list(text()))]),
        "Live": fields(&[("live", flag())]),
        "Ready": fields(&[("ready", flag())]),
        "ModelReady": fields(&[("name", text()), ("ready", flag())]),
        "Models": fields(&[("models", list(text()))]),
        "OpenApi": fields(&[("openapi", text())]),
        "Datatype": { "enum": Datatype::ALL.map(|datatype| datatype.to_string()) },
        "TensorSpec": fields(&[
            ("name", text()),
            ("datatype", reference("Datatype")),
            ("shape", list(object!({ "type": "integer", "minimum": -1 }))),
        ]),
        "Graph": fields(&[
            ("name", text()),
            ("backend", text()),
            ("backend_version", text()),
            ("device", fields(&[("kind", text())])),
            ("share", object!({ "type": "number", "minimum": 0, "maximum": 1 })),
            ("threads", count()),
        ]),
        "Configuration": fields(&[
            ("name", text()),
            ("platform", text()),
            ("backend", text()),
            ("max_batch_size", object!({ "type": "integer" })),
            ("input", list(object!({ "type": "object" }))),
            ("output", list(object!({ "type": "object" }))),
        ]),
    });
    for part in [model(), statistics(), repository(), inference()] {
        if let (Value::Object(all), Value::Object(part)) = (&mut all, part) {
            all.extend(part);
        }
    }
    all
}

fn model() -> Value {
    let tensors = || list(reference("TensorSpec"));
    let mut properties = fields(&[("kind", text()), ("graphs", list(reference("Graph")))]);
    properties["properties"]["description"] = text();
    object!({
        "Model": fields(&[
            ("name", text()),
            ("versions", list(text())),
            ("platform", text()),
            ("inputs", tensors()),
            ("outputs", tensors()),
            ("properties", properties),
        ]),
    })
}

fn statistics() -> Value {
    let duration = || reference("Duration");
    let of_inferences = [
        "success",
        "fail",
        "queue",
        "compute_input",
        "compute_infer",
        "compute_output",
        "cache_hit",
        "cache_miss",
    ];
    object!({
        "Duration": fields(&[("count", count()), ("ns", count())]),
        "InferenceStatistics": fields(&of_inferences.map(|name| (name, duration()))),
        "ModelStatistics": fields(&[
            ("name", text()),
            ("version", text()),
            ("last_inference", count()),
            ("inference_count", count()),
            ("execution_count", count()),
            ("inference_stats", reference("InferenceStatistics")),
            ("batch_stats", list(object!({ "type": "object" }))),
        ]),
        "Statistics": fields(&[("model_stats", list(reference("ModelStatistics")))]),
    })
}

fn repository() -> Value {
    let states = ["UNKNOWN", "READY", "LOADING", "UNLOADING", "UNAVAILABLE"];
    let mut entry =
        fields(&[("name", text()), ("state", object!({ "enum": states })), ("reason", text())]);
    entry["properties"]["version"] = text();
    object!({
        "IndexRequest": { "type": "object", "properties": { "ready": flag() } },
        "Index": list(entry),
        "ControlRequest": { "type": "object", "properties": { "parameters": { "type": "object" } } },
    })
}

fn inference() -> Value {
    let shape = || list(count());
    let tensor = || {
        let mut tensor =
            fields(&[("name", text()), ("shape", shape()), ("datatype", reference("Datatype"))]);
        tensor["properties"]["parameters"] = reference("Parameters");
        tensor["properties"]["data"] = object!({
            "description": "Elements, nested or flat; not there if they follow in binary",
            "type": "array",
        });
        tensor
    };
    let mut output = fields(&[("name", text())]);
    output["properties"]["parameters"] = reference("Parameters");
    let mut request = fields(&[("inputs", list(tensor()))]);
    request["properties"]["id"] = text();
    request["properties"]["parameters"] = reference("Parameters");
    request["properties"]["outputs"] = list(output);
    let mut response =
        fields(&[("model_name", text()), ("model_version", text()), ("outputs", list(tensor()))]);
    response["properties"]["id"] = text();
    response["properties"]["parameters"] = reference("Parameters");
    object!({
        "Parameters": {
            "type": "object",
            "additionalProperties": { "type": ["string", "number", "boolean"] },
        },
        "InferRequest": request,
        "InferResponse": response,
    })
}

/// An object that has these fields, and may have others.
fn fields(all: &[(&str, Value)]) -> Value {
    let properties: serde_json::Map<_, _> =
        all.iter().map(|(name, schema)| ((*name).to_owned(), schema.clone())).collect();
    let required: Vec<_> = all.iter().map(|(name, _)| *name).collect();
    object!({ "type": "object", "properties": properties, "required": required })
}

fn reference(name: &str) -> Value {
    object!({ "$ref": format!("#/components/schemas/{name}") })
}

fn list(items: Value) -> Value {
    object!({ "type": "array", "items": items })
}

fn text() -> Value {
    object!({ "type": "string" })
}

fn flag() -> Value {
    object!({ "type": "boolean" })
}

fn count() -> Value {
    object!({ "type": "integer", "minimum": 0 })
}
