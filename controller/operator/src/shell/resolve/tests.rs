use std::collections::HashMap;

use axum::Router;
use axum::extract::{Request, State};
use axum::response::{IntoResponse as _, Response};
use http::StatusCode;
use serde_json::json;
use wick_package::oci;
use wick_package::signature::{PrivateKey, Referrer, Signature, Subject};

use super::*;
use crate::shell::queue;

/// What a registry answers: paths below `/v2/team/app/`, each with a type and bytes.
type Pages = Arc<Mutex<HashMap<String, (String, Vec<u8>)>>>;

/// A registry with one image, `team/app:1`.
struct Shelf {
    registry: String,
    pages: Pages,
    image: Digest,
}

impl Shelf {
    async fn start() -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let registry = listener.local_addr().unwrap().to_string();
        let pages = Pages::default();
        let router = Router::new().fallback(page).with_state(Arc::clone(&pages));
        tokio::spawn(async move { axum::serve(listener, router).await });
        let index = index();
        let shelf = Self { registry, pages, image: Digest::of(&index) };
        shelf.put("manifests/1", oci::INDEX, &index);
        shelf.put(&format!("manifests/{}", shelf.image), oci::INDEX, &index);
        shelf
    }

    fn put(&self, path: &str, kind: &str, bytes: &[u8]) {
        self.pages.lock().insert(path.to_owned(), (kind.to_owned(), bytes.to_vec()));
    }

    /// Has a key sign the image.
    fn sign(&self, key: &PrivateKey) {
        let image = format!("{}/team/app", self.registry).parse().unwrap();
        let (package, version, signed_at) = (None, None, None);
        let subject = Subject { digest: self.image, image, package, version, signed_at };
        let artifact = Referrer::new(&Signature::sign(&subject, key), &index()).unwrap();
        let digest = Digest::of(&artifact.manifest);
        self.put(&format!("manifests/{digest}"), oci::MANIFEST, &artifact.manifest);
        for blob in [&artifact.config, &artifact.layer] {
            self.put(&format!("blobs/{}", Digest::of(blob)), "application/octet-stream", blob);
        }
        let listed = json!({
            "schemaVersion": 2, "mediaType": oci::INDEX,
            "manifests": [{
                "mediaType": oci::MANIFEST, "digest": digest, "size": artifact.manifest.len(),
                "artifactType": wick_package::signature::BUNDLE_TYPE,
            }],
        });
        let path = format!("referrers/{}", self.image);
        self.put(&path, oci::INDEX, listed.to_string().as_bytes());
    }

    fn settings() -> Settings {
        Settings {
            plain_http: wick_registry::PlainHttp::Always,
            credentials: Credentials::Anonymous,
            ..Settings::default()
        }
    }

    async fn ask(&self, by: &str, keys: &[&PrivateKey]) -> Result<Found, Unknown> {
        let keys: Vec<_> = keys.iter().map(|key| key.public().to_pem()).collect();
        let image: Reference = format!("{}/team/app{by}", self.registry).parse().unwrap();
        let digest = image.digest();
        let keys = Keys::parse(&keys).unwrap();
        Question { image, digest, signatures: true, keys }.answer(Self::settings()).await
    }
}

async fn page(State(pages): State<Pages>, request: Request) -> Response {
    let path = request.uri().path().trim_start_matches("/v2/team/app/");
    match pages.lock().get(path) {
        Some((kind, bytes)) if kind.is_empty() => {
            (StatusCode::FORBIDDEN, bytes.clone()).into_response()
        }
        Some((kind, bytes)) => {
            ([(http::header::CONTENT_TYPE, kind.clone())], bytes.clone()).into_response()
        }
        None => StatusCode::NOT_FOUND.into_response(),
    }
}

fn index() -> Vec<u8> {
    json!({"schemaVersion": 2, "mediaType": oci::INDEX, "manifests": []}).to_string().into_bytes()
}

fn key(seed: u8) -> PrivateKey {
    PrivateKey::from_seed(&[seed; 32])
}

fn unsigned(answer: Result<Found, Unknown>) -> String {
    match answer {
        Err(Unknown::Unsigned(why)) => why,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn signatures_come_with_the_digest_and_are_checked_where_the_spec_has_keys() {
    let shelf = Shelf::start().await;
    let found = shelf.ask(":1", &[]).await.unwrap();
    assert_eq!(found, Found { digest: shelf.image, envelope: None });
    assert!(unsigned(shelf.ask(":1", &[&key(1)]).await).contains("is not signed"));
    shelf.sign(&key(1));
    let found = shelf.ask(":1", &[]).await.unwrap();
    assert!(found.envelope.unwrap().contains(&shelf.image.to_string()), "for nodes with a policy");
    for by in [":1".to_owned(), format!("@{}", shelf.image)] {
        let found = shelf.ask(&by, &[&key(2), &key(1)]).await.unwrap();
        assert_eq!(found.digest, shelf.image);
        assert!(found.envelope.is_some());
        let why = unsigned(shelf.ask(&by, &[&key(2)]).await);
        assert!(why.contains("no signature that counts"), "{why}");
    }
    // One that does not say who has signed.
    shelf.put(&format!("referrers/{}", shelf.image), "", b"go away");
    assert_eq!(shelf.ask(":1", &[]).await.unwrap().envelope, None);
    assert!(unsigned(shelf.ask(":1", &[&key(1)]).await).contains("cannot look for signatures"));
}

#[tokio::test]
async fn a_registry_is_asked_once_and_not_for_what_is_kept() {
    let shelf = Shelf::start().await;
    shelf.sign(&key(1));
    let image = format!("{}/team/app@{}", shelf.registry, shelf.image);
    let model = |keys: &[PrivateKey]| -> Model {
        let keys: Vec<_> = keys.iter().map(|key| key.public().to_pem()).collect();
        wick_api::parse(json!({
            "apiVersion": "wick.dev/v1alpha1", "kind": "Model",
            "metadata": {"name": "m", "namespace": "here", "uid": "u", "generation": 1},
            "spec": {"package": {"image": image, "signature": {"keys": keys}}},
        }))
        .unwrap()
    };
    let (queue, turns) = queue::queue();
    let mut turns = std::pin::pin!(turns);
    // No secrets, so nobody asks the cluster.
    let nowhere = kube::Config::new("http://127.0.0.1:1".parse().unwrap());
    let client = Client::try_from(nowhere).unwrap();
    let resolver = || Resolver::new(client.clone(), Shelf::settings(), queue.clone());
    let key_of = Key { namespace: "here".to_owned(), name: "m".to_owned() };
    let now = Moment::from_millis(0);

    let asks = resolver();
    let signed = model(&[key(1)]);
    assert_eq!(asks.wanted(&key_of, &signed, &[], now).unwrap_err(), Unknown::Asking);
    futures::StreamExt::next(&mut turns).await.unwrap();
    let revision = asks.wanted(&key_of, &signed, &[], now).unwrap();
    assert!(revision.found.is_some());

    // The revision may not be stored yet when the Model has its next turn.
    assert_eq!(asks.wanted(&key_of, &signed, &[], now).as_ref(), Ok(&revision));

    // What is stored says as much, also to an operator that starts anew.
    shelf.pages.lock().clear();
    let stored = [Stored { revision: revision.clone(), created: now }];
    assert_eq!(resolver().wanted(&key_of, &signed, &stored, now).as_ref(), Ok(&revision));
    let bare = resolver().wanted(&key_of, &model(&[]), &[], now).unwrap();
    assert_eq!((bare.name, bare.found), (revision.name, None), "by digest, and nobody asks who");
    // A key that did not sign what is stored.
    let other = resolver();
    let asked = other.wanted(&key_of, &model(&[key(2)]), &stored, now);
    assert_eq!(asked.unwrap_err(), Unknown::Asking);
    futures::StreamExt::next(&mut turns).await.unwrap();
    let unsigned = other.wanted(&key_of, &model(&[key(2)]), &stored, now).unwrap_err();
    assert!(matches!(unsigned, Unknown::Unsigned(_)), "{unsigned:?}");
    assert!(other.again(&key_of).is_some());
}

#[test]
fn accounts_are_found_in_every_form_that_docker_writes() {
    let config = br#"{"auths": {
        "https://index.docker.io/v1/": {"auth": "aHViOmtleQ=="},
        "registry.example:5000": {"username": "me", "password": "secret"},
        "broken.example": {"auth": "!"}
    }}"#;
    let account = |registry| account(config, registry);
    let pair = |user: &str, password: &str| Some((user.to_owned(), password.to_owned()));
    assert_eq!(account("registry.example:5000"), pair("me", "secret"));
    assert_eq!(account("docker.io"), pair("hub", "key"));
    assert_eq!(account("broken.example"), None);
    assert_eq!(account("registry.example"), None);
    assert_eq!(super::account(b"no json", "a"), None);
}
