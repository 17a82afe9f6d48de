//! An MLflow server that misbehaves. What a real one does is checked by `cargo xtask import`.

use wick_import::{MlflowCredentials, MlflowSettings};
use wick_testing::onnx;

use crate::support::{Bench, Reply, Request, Server, model};

const VERSION: &str = r#"{"model_version": {"name": "net", "version": "3", "description": ""}}"#;
const MLMODEL: &str = "flavors:\n  onnx:\n    data: net.onnx\n";

/// Answers of a server with one model, `list` being the files that it says there are.
fn answer(request: &Request, uri: &str, list: &str) -> Reply {
    let json = |text: String| Reply { body: text.into_bytes(), ..Reply::status(200) };
    let path = request.path.split('?').next().unwrap_or_default();
    match path {
        "/api/2.0/mlflow/model-versions/get" | "/api/2.0/mlflow/registered-models/alias" => {
            json(VERSION.to_owned())
        }
        "/api/2.0/mlflow/model-versions/get-download-uri" => {
            json(format!(r#"{{"artifact_uri": "{uri}"}}"#))
        }
        "/api/2.0/mlflow-artifacts/artifacts" => json(list.to_owned()),
        path if path.ends_with("/MLmodel") => json(MLMODEL.to_owned()),
        path if path.ends_with("/net.onnx") => Reply::file(&onnx::sum(&[4]), "\"a\"", request),
        _ => Reply::status(404),
    }
}

const FILES: &str = r#"{"files": [
    {"path": "MLmodel", "is_dir": false, "file_size": 40},
    {"path": "net.onnx", "is_dir": false, "file_size": 100},
    {"path": "../../etc/evil.onnx", "is_dir": false, "file_size": 1},
    {"path": "/evil.onnx", "is_dir": false}
]}"#;

fn bench(server: &Server) -> Bench {
    let mut bench = Bench::new();
    bench.settings.mlflow.tracking_uri = Some(server.url(""));
    bench
}

#[test]
fn a_model_is_found_by_version_and_by_alias_and_paths_that_lead_out_are_not_its_files() {
    let server = Server::start(|_, r| answer(r, "mlflow-artifacts:/0/m/artifacts", FILES));
    for source in ["models:/net/3", "models:/net@best"] {
        let mut bench = bench(&server);
        let (imported, package) = bench.import(source);
        assert_eq!(
            (imported.name.as_str(), imported.version.to_string().as_str()),
            ("net", "3.0.0")
        );
        assert_eq!(model(&package), onnx::sum(&[4]));
    }
    let asked = server.requests();
    assert!(asked.iter().all(|request| !request.path.contains("evil")), "{asked:?}");
    assert!(asked.iter().any(|request| request.path.contains("alias=best")), "{asked:?}");
}

#[test]
fn credentials_go_with_every_request() {
    let password = MlflowCredentials::Password { user: "u".into(), password: "p".into() };
    let cases = [(MlflowCredentials::Token("t".into()), "Bearer t"), (password, "Basic dTpw")];
    for (credentials, header) in cases {
        let server = Server::start(|_, r| answer(r, "mlflow-artifacts:/0/m/artifacts", FILES));
        let mut bench = bench(&server);
        bench.settings.mlflow.credentials = Some(credentials);
        bench.import("models:/net/3");
        for request in server.requests() {
            assert_eq!(request.authorization.as_deref(), Some(header), "{request:?}");
        }
    }
}

#[test]
fn the_variables_of_mlflow_are_read() {
    let of = |variables: &[(&str, &str)]| {
        let find = |name: &str| variables.iter().find(|(key, _)| *key == name);
        MlflowSettings::from_env(|name| find(name).map(|(_, value)| (*value).to_owned()))
    };
    assert_eq!(of(&[]), MlflowSettings::default());
    let token = of(&[("MLFLOW_TRACKING_URI", "http://h"), ("MLFLOW_TRACKING_TOKEN", "t")]);
    assert_eq!(token.tracking_uri.as_deref(), Some("http://h"));
    assert_eq!(token.credentials, Some(MlflowCredentials::Token("t".into())));
    let user = of(&[("MLFLOW_TRACKING_USERNAME", "u"), ("MLFLOW_TRACKING_PASSWORD", "secret")]);
    assert!(matches!(&user.credentials, Some(MlflowCredentials::Password { .. })));
    assert!(!format!("{user:?}").contains("secret"));
}

#[test]
fn strange_answers_are_told() {
    let cases: [(&str, &str, &str); 5] = [
        ("mlflow-artifacts:/0/m", r#"{"files": []}"#, "MLmodel"),
        ("mlflow-artifacts:/0/m", "<html>", "is no MLflow server"),
        ("dbfs:/m", FILES, "`dbfs:/m`"),
        ("/no/such/folder", FILES, "/no/such/folder"),
        ("nonsense", FILES, "nonsense"),
    ];
    for (uri, list, part) in cases {
        let server = Server::start(move |_, request| answer(request, uri, list));
        let error = bench(&server).try_import("models:/net/3").unwrap_err();
        assert!(error.to_string().contains(part), "{uri}: {error}");
    }
    // A list that leads back to itself for ever.
    let endless = r#"{"files": [{"path": "again", "is_dir": true}]}"#;
    let server = Server::start(move |_, r| answer(r, "mlflow-artifacts:/0/m", endless));
    bench(&server).refuse("models:/net/3", "source-too-large");
    let server = Server::start(|_, _| Reply::status(401));
    let text = bench(&server).refuse("models:/net/3", "source-refused");
    assert!(text.contains("401") && text.contains("docs/import.md"), "{text}");
}
