//! `/v2/openapi.json`: what this server answers, as an OpenAPI 3.1 document.
//!
//! The paths are in one table, and a test compares it with the router. Schemas say what is
//! sent, and let through what is added later. The names of the models are those that are
//! there at the time; paths of packages that answer HTTP themselves are theirs to describe.

mod schemas;

use serde_json::{Map, Value, json as object};

/// One operation of the interface.
struct Operation {
    path: &'static str,
    method: &'static str,
    id: &'static str,
    summary: &'static str,
    /// Schema of a JSON body, and whether there must be one.
    body: Option<(&'static str, bool)>,
    answer: Answer,
    /// Statuses of errors, beside those that any request may get.
    errors: &'static [u16],
}

/// What a request is answered with, if it succeeds.
enum Answer {
    Json(&'static str),
    /// JSON that also comes with 503, as the answer of a probe.
    Probe(&'static str),
    /// JSON, or JSON and binary tensors behind it.
    Tensors,
    Text(&'static str),
    Empty,
}

const fn get(
    path: &'static str,
    id: &'static str,
    summary: &'static str,
    answer: Answer,
    errors: &'static [u16],
) -> Operation {
    Operation { path, method: "get", id, summary, body: None, answer, errors }
}

const fn post(
    path: &'static str,
    id: &'static str,
    summary: &'static str,
    body: (&'static str, bool),
    answer: Answer,
    errors: &'static [u16],
) -> Operation {
    Operation { path, method: "post", id, summary, body: Some(body), answer, errors }
}

/// Errors of a look at a model, of an inference, and of a change of the repository.
const LOOK: &[u16] = &[404, 503];
const INFER: &[u16] = &[400, 404, 408, 413, 415, 429, 500, 503, 504];
const CONTROL: &[u16] = &[400, 403, 404, 408, 413, 415, 503];

/// Everything beside models. Paths of a model are in [`OF_MODEL`].
const OPERATIONS: &[Operation] = &[
    get("/v2", "server", "Server name, version and extensions", Answer::Json("Server"), &[]),
    get("/v2/", "serverSlash", "The same as without the slash", Answer::Json("Server"), &[]),
    get("/v2/health/live", "live", "Whether the server answers", Answer::Json("Live"), &[]),
    get("/v2/health/ready", "ready", "Whether every model is ready", Answer::Probe("Ready"), &[]),
    get("/v2/models", "models", "Names of all models", Answer::Json("Models"), &[]),
    get("/v2/models/stats", "allStatistics", "Statistics of all models", STATISTICS, &[]),
    post("/v2/repository/index", "index", "All models and their states", INDEX, ENTRIES, BODY),
    post(
        "/v2/repository/models/{model}/load",
        "load",
        "Load a model again; only if the server lets requests do so",
        ("ControlRequest", false),
        Answer::Empty,
        CONTROL,
    ),
    post(
        "/v2/repository/models/{model}/unload",
        "unload",
        "Drain and unload a model; only if the server lets requests do so",
        ("ControlRequest", false),
        Answer::Empty,
        CONTROL,
    ),
    get("/v2/openapi.json", "openapi", "This document", Answer::Json("OpenApi"), &[]),
    get("/metrics", "metrics", "Metrics for Prometheus", Answer::Text("text/plain"), &[500]),
];

const PAGE: Operation =
    get("/v2/page", "page", "A page to look at models and try them", PAGE_HTML, &[]);

const PAGE_HTML: Answer = Answer::Text("text/html");
const STATISTICS: Answer = Answer::Json("Statistics");
const ENTRIES: Answer = Answer::Json("Index");
const INDEX: (&str, bool) = ("IndexRequest", false);
const BODY: &[u16] = &[400, 408, 413, 415, 503];

/// Below `/v2/models/{model}` and `/v2/models/{model}/versions/{version}`.
const OF_MODEL: &[Operation] = &[
    get("", "metadata", "Tensors, and the devices in use", Answer::Json("Model"), LOOK),
    get("/ready", "modelReady", "Whether the model is ready", Answer::Probe("ModelReady"), &[404]),
    get("/config", "configuration", "Tensors as Triton's ModelConfig", CONFIG, LOOK),
    get("/stats", "statistics", "Statistics of the model", STATISTICS, LOOK),
    post("/infer", "infer", "One inference", ("InferRequest", true), Answer::Tensors, INFER),
];

const CONFIG: Answer = Answer::Json("Configuration");

/// The document of a server with these models.
pub(crate) fn document(models: &[String], page: bool) -> Value {
    let mut paths = Map::new();
    let mut add = |path: &str, operation: &Operation, suffix: &str| {
        let item = paths.entry(path).or_insert_with(|| object!({}));
        item[operation.method] = describe(operation, suffix);
        let parameters: Vec<_> = ["model", "version"]
            .into_iter()
            .filter(|name| path.contains(&format!("{{{name}}}")))
            .map(|name| object!({ "$ref": format!("#/components/parameters/{name}") }))
            .collect();
        if !parameters.is_empty() {
            item["parameters"] = parameters.into();
        }
    };
    for operation in OPERATIONS.iter().chain(page.then_some(&PAGE)) {
        add(operation.path, operation, "");
    }
    for operation in OF_MODEL {
        add(&format!("/v2/models/{{model}}{}", operation.path), operation, "");
        let path = format!("/v2/models/{{model}}/versions/{{version}}{}", operation.path);
        add(&path, operation, "OfVersion");
    }
    object!({
        "openapi": "3.1.0",
        "info": {
            "title": "wick",
            "summary": "The Open Inference Protocol v2, with Triton's extensions",
            "version": env!("CARGO_PKG_VERSION"),
            "license": { "name": "Apache-2.0", "identifier": "Apache-2.0" },
        },
        "servers": [{ "url": "/" }],
        "paths": paths,
        "components": {
            "parameters": parameters(models),
            "schemas": schemas::all(),
            "responses": {
                "Error": {
                    "description": "The request is not answered as asked",
                    "content": json_of("Error"),
                },
            },
        },
    })
}

fn describe(operation: &Operation, suffix: &str) -> Value {
    let mut described = object!({
        "operationId": format!("{}{suffix}", operation.id),
        "summary": operation.summary,
        "responses": responses(operation),
    });
    if let Some((schema, required)) = operation.body {
        let mut content = json_of(schema);
        if schema == "InferRequest" {
            content["application/octet-stream"] = binary(
                "JSON of the length in Inference-Header-Content-Length, then the binary \
                 tensors; with the length 0, the bytes of the only input",
            );
            described["parameters"] = object!([
                { "$ref": "#/components/parameters/headerLength" },
                { "$ref": "#/components/parameters/timeout" },
                { "$ref": "#/components/parameters/contentEncoding" },
            ]);
        }
        described["requestBody"] = object!({ "required": required, "content": content });
    }
    described
}

fn responses(operation: &Operation) -> Value {
    let good = |content: Value| object!({ "description": "As asked", "content": content });
    let mut responses = Map::new();
    let ok = match operation.answer {
        Answer::Empty => object!({ "description": "Done" }),
        Answer::Text(kind) => good(object!({ kind: { "schema": { "type": "string" } } })),
        Answer::Json(schema) => good(json_of(schema)),
        Answer::Probe(schema) => {
            let not = object!({ "description": "Not ready", "content": json_of(schema) });
            responses.insert("503".to_owned(), not);
            good(json_of(schema))
        }
        Answer::Tensors => {
            let mut content = json_of("InferResponse");
            content["application/octet-stream"] = binary("JSON, then the binary outputs");
            let mut ok = good(content);
            ok["headers"] = object!({
                "Inference-Header-Content-Length": {
                    "description": "Bytes of the JSON, if binary outputs follow it",
                    "schema": { "type": "integer", "minimum": 0 },
                },
            });
            ok
        }
    };
    responses.insert("200".to_owned(), ok);
    for status in operation.errors {
        let error = object!({ "$ref": "#/components/responses/Error" });
        responses.insert(status.to_string(), error);
    }
    responses.into()
}

fn json_of(schema: &str) -> Value {
    let schema = object!({ "$ref": format!("#/components/schemas/{schema}") });
    object!({ "application/json": { "schema": schema } })
}

fn binary(description: &str) -> Value {
    object!({ "schema": { "description": description } })
}

fn parameters(models: &[String]) -> Value {
    let mut model = object!({ "type": "string" });
    if !models.is_empty() {
        model["enum"] = models.into();
    }
    let in_path = |name: &str, schema: Value| object!({ "name": name, "in": "path", "required": true, "schema": schema });
    let header = |name: &str, description: &str, schema: Value| object!({ "name": name, "in": "header", "description": description, "schema": schema });
    let count = || object!({ "type": "integer", "minimum": 0 });
    object!({
        "model": in_path("model", model),
        "version": in_path("version", object!({ "type": "string" })),
        "headerLength": header(
            "Inference-Header-Content-Length",
            "Bytes of the JSON before it is compressed, if binary tensors follow it",
            count(),
        ),
        "timeout": header("Wick-Timeout-Ms", "The client's own deadline in milliseconds", count()),
        "contentEncoding": header(
            "Content-Encoding",
            "How the body is compressed",
            object!({ "enum": ["identity", "gzip", "deflate", "zstd"] }),
        ),
    })
}
