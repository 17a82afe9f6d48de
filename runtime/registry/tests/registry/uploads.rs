//! Pushes to a registry that misbehaves. That they work with a real one is tested in `real`.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use hyper::Method;
use wick_package::Reason as _;
use wick_registry::{Registry, RegistryError, Settings};

use crate::liar::{Act, Liar};
use crate::support::{Meter, Scratch, client, quiet, settings, weights_layer};

#[tokio::test(flavor = "multi_thread")]
async fn a_blob_whose_upload_fails_is_sent_again_from_a_new_place() {
    let (scratch, liar) = (Scratch::new(), Liar::start().await);
    let layout = scratch.layout("a", "one", 300_000);
    liar.rule_for(Method::PUT, "/upload/1", 2, Act::Answer(503, vec![], String::new()));
    let meter = Arc::new(Meter::default());
    let pushed = client().push_layout(&layout, &liar.reference("1"), meter.clone()).await.unwrap();
    assert!(pushed.moved > 300_000);
    assert!(meter.undone.load(Ordering::Relaxed) > 0);
    let begun = liar.seen().iter().filter(|seen| seen.method == Method::POST).count();
    // A blob for each config, the code and the weights, and two that failed.
    assert_eq!(begun, 4 + 2);
    let last = liar.seen().last().unwrap().clone();
    assert_eq!((last.method, last.path.as_str()), (Method::PUT, "/v2/team/app/manifests/1"));
}

#[tokio::test(flavor = "multi_thread")]
async fn credentials_do_not_follow_an_upload_to_another_host() {
    let (scratch, liar, elsewhere) = (Scratch::new(), Liar::start().await, Liar::start().await);
    let layout = scratch.layout("a", "one", 1000);
    let basic = vec![("www-authenticate", "Basic realm=\"x\"".to_owned())];
    liar.rule_for(Method::HEAD, "/blobs/", 1, Act::Answer(401, basic, String::new()));
    let place = format!("http://{}/elsewhere", elsewhere.addr);
    let begin = Act::Answer(202, vec![("location", place)], String::new());
    liar.rule_for(Method::POST, "/blobs/uploads/", 99, begin);
    let credentials = liar.known("ann", "secret");
    let client = Registry::new(Settings { credentials, ..settings() }).unwrap();
    client.push_layout(&layout, &liar.reference("1"), quiet()).await.unwrap();
    let there = elsewhere.seen();
    assert_eq!(there.len(), 4);
    assert!(there.iter().all(|seen| seen.authorization.is_none()), "{there:?}");
    let puts = liar.seen().into_iter().filter(|seen| seen.method == Method::PUT);
    assert!(puts.into_iter().all(|seen| seen.authorization.is_some()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_push_that_is_not_permitted_sends_no_blob() {
    let (scratch, liar) = (Scratch::new(), Liar::start().await);
    let layout = scratch.layout("a", "one", 1000);
    liar.rule_for(Method::POST, "/blobs/uploads/", 99, Act::Answer(403, vec![], String::new()));
    let error = client().push_layout(&layout, &liar.reference("1"), quiet()).await.unwrap_err();
    assert_eq!(error.code(), "forbidden", "{error}");
    assert!(liar.seen().iter().all(|seen| seen.method != Method::PUT));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_is_damaged_on_disk_is_not_pushed() {
    let (scratch, liar) = (Scratch::new(), Liar::start().await);
    let layout = scratch.layout("a", "one", 1000);
    let weights = layout.join("blobs/sha256").join(weights_layer(&layout).0.hex());
    std::fs::write(weights, b"short").unwrap();
    let error = client().push_layout(&layout, &liar.reference("1"), quiet()).await.unwrap_err();
    assert!(matches!(error, RegistryError::Layout(_)), "{error}");
    assert_eq!(error.code(), "damaged-layout");
}
