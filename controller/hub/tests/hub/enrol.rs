//! How sites join, stay and leave, and who may ask for what.

use std::time::{Duration, SystemTime};

use serde_json::{Value, json};
use wick_fleet::enrol::{EnrolRequest, RenewRequest};

use crate::bench::{Bench, Caller};
use crate::broker::Broker;
use crate::site::{Site, claim, csr, key, request};

fn seconds() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs()
}

async fn enrol(caller: &Caller, name: &str, token: &str, csr: String) -> (u16, String) {
    let request =
        EnrolRequest { site: name.parse().unwrap(), token: token.to_owned(), csr, place: claim() };
    let (code, answer) = caller.post("/v1/enrol", &json!(request)).await;
    (code, answer["code"].as_str().unwrap_or_default().to_owned())
}

async fn hub() -> (Bench, Broker, wick_hub::Hub, Caller) {
    let bench = Bench::new();
    let broker = Broker::open(&bench.dir());
    let (hub, caller) = bench.hub(broker.url("mqtt")).await;
    (bench, broker, hub, caller)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_is_for_one_site_once() {
    let (_bench, _broker, _hub, caller) = hub().await;
    let token = caller.enrolment("plant-1", false).await;
    let refused = |code: u16, name: &str| (code, name.to_owned());
    let done = (200, String::new());
    let mine = || csr("plant-1", &key(1));
    assert_eq!(enrol(&caller, "plant-1", "wick_nothing", mine()).await, refused(401, "token"));
    assert_eq!(
        enrol(&caller, "plant-2", &token, csr("plant-2", &key(1))).await,
        refused(401, "token")
    );
    // What is wrong with a request does not use its token up.
    assert_eq!(enrol(&caller, "plant-1", &token, "nonsense".to_owned()).await, refused(400, "csr"));
    assert_eq!(
        enrol(&caller, "plant-1", &token, csr("plant-2", &key(1))).await,
        refused(400, "csr")
    );
    let p256 = rcgen::KeyPair::generate().unwrap();
    assert_eq!(
        enrol(&caller, "plant-1", &token, request("plant-1", &p256)).await,
        refused(400, "csr")
    );
    let damaged = mine().replace("MI", "MJ");
    assert_eq!(enrol(&caller, "plant-1", &token, damaged).await, refused(400, "csr"));
    assert_eq!(enrol(&caller, "plant-1", &token, mine()).await, done);
    // The answer was lost: the same again. Another key is another site.
    assert_eq!(enrol(&caller, "plant-1", &token, mine()).await, done);
    assert_eq!(
        enrol(&caller, "plant-1", &token, csr("plant-1", &key(2))).await,
        refused(401, "token")
    );
    // Enrolled already, unless somebody says that it may be again.
    let token = caller.enrolment("plant-1", false).await;
    assert_eq!(
        enrol(&caller, "plant-1", &token, csr("plant-1", &key(2))).await,
        refused(409, "enrolled")
    );
    let used = caller.enrolment("plant-1", true).await;
    assert_eq!(enrol(&caller, "plant-1", &used, csr("plant-1", &key(2))).await, done);
    // Who is revoked does not come back by a token that he has, used or not.
    let unused = caller.enrolment("plant-1", true).await;
    assert_eq!(caller.post("/v1/sites/plant-1/revoke", &json!({})).await.0, 204);
    for token in [&used, &unused] {
        let again = enrol(&caller, "plant-1", token, csr("plant-1", &key(2))).await;
        assert_eq!(again, refused(401, "token"));
    }
    let token = caller.enrolment("hub", false).await;
    assert_eq!(enrol(&caller, "hub", &token, csr("hub", &key(3))).await, refused(400, "name"));
    let large = json!({"site": "plant-1", "token": "x".repeat(100_000)});
    assert_eq!(caller.post("/v1/enrol", &large).await.0, 413);
    assert_eq!(caller.post("/v1/enrol", &json!({"site": "../x"})).await.0, 400);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_is_renewed_by_the_same_key_until_the_site_is_revoked() {
    let (_bench, _broker, _hub, caller) = hub().await;
    let site = Site::enrol(&caller, "plant-1", 1).await;
    let thirty_days = seconds() + 30 * 86_400;
    assert!(site.enrolled.not_after.abs_diff(thirty_days) < 60);
    let renew = async |seed: u8, at: u64, of: u8| {
        let request =
            RenewRequest::new("plant-1".parse().unwrap(), csr("plant-1", &key(of)), at, &key(seed));
        let (code, answer) = caller.post("/v1/renew", &json!(request)).await;
        (code, answer)
    };
    let code = |answer: &Value| answer["code"].as_str().unwrap_or_default().to_owned();
    let (status, answer) = renew(1, seconds(), 1).await;
    assert_eq!(status, 200, "{answer}");
    assert_ne!(answer["certificate"], json!(site.enrolled.certificate));
    let (status, answer) = renew(2, seconds(), 1).await;
    assert_eq!((status, code(&answer)), (403, "signature".to_owned()));
    let (status, answer) = renew(1, seconds(), 2).await;
    assert_eq!((status, code(&answer)), (400, "csr".to_owned()));
    // A clock that is wrong by a year is told so.
    let (status, answer) = renew(1, seconds() - 365 * 86_400, 1).await;
    assert_eq!((status, code(&answer)), (403, "clock".to_owned()));
    assert_eq!(caller.post("/v1/sites/plant-1/revoke", &json!({})).await.0, 204);
    let (status, answer) = renew(1, seconds(), 1).await;
    assert_eq!((status, code(&answer)), (403, "revoked".to_owned()));
    // A new token lets it in again.
    let token = caller.enrolment("plant-1", false).await;
    assert_eq!(enrol(&caller, "plant-1", &token, csr("plant-1", &key(1))).await.0, 200);
    assert_eq!(renew(1, seconds(), 1).await.0, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_may_do_what_is_by_the_tokens_role() {
    let (_bench, _broker, _hub, admin) = hub().await;
    let mut callers = vec![admin.with("wick_nothing")];
    for role in ["viewer", "operator", "admin"] {
        let (code, made) = admin.post("/v1/tokens", &json!({"name": role, "role": role})).await;
        assert_eq!(code, 200, "{made}");
        callers.push(admin.with(made["token"].as_str().unwrap()));
    }
    let nothing = json!({});
    let cases = [
        ("/v1/rollouts/none/pause", nothing.clone(), [401, 403, 404, 404]),
        ("/v1/enrolments", json!({"site": "plant-1"}), [401, 403, 200, 200]),
        ("/v1/sites/none/revoke", nothing.clone(), [401, 403, 403, 404]),
        ("/v1/tokens", json!({"name": "x", "role": "viewer"}), [401, 403, 403, 200]),
        ("/v1/plan", json!({"files": []}), [401, 200, 200, 200]),
        ("/v1/pull", nothing, [202, 202, 202, 202]),
    ];
    for (path, body, expected) in cases {
        for (caller, expected) in callers.iter().zip(expected) {
            assert_eq!(caller.post(path, &body).await.0, expected, "{path}");
        }
    }
    assert!(admin.text("/openapi.json").await.contains("3.1.0"));
    assert!(admin.text("/livez").await.contains("ok"));
    // Without TLS nobody else may be listened to.
    let bench = Bench::new();
    let mut settings = bench.settings("mqtt://127.0.0.1:1".parse().unwrap());
    settings.listen = "0.0.0.0:0".parse().unwrap();
    assert!(wick_hub::Hub::start(settings).await.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_api_speaks_tls_with_the_fleets_own_certificate() {
    let bench = Bench::new();
    let mut settings = bench.settings("mqtt://127.0.0.1:1".parse().unwrap());
    settings.tls = true;
    settings.control = Some("127.0.0.1:0".parse().unwrap());
    let hub = wick_hub::Hub::start(settings).await.unwrap();
    let ca = bench.read(wick_hub::CA_FILE);
    let trust = reqwest::Certificate::from_pem(ca.as_bytes()).unwrap();
    let client =
        reqwest::Client::builder().tls_certs_only([trust]).timeout(Duration::from_secs(10));
    let client = client.build().unwrap();
    let url = format!("https://{}/v1/status", hub.api);
    let status = client.get(&url).bearer_auth(&bench.token).send().await.unwrap();
    assert_eq!(status.status(), 200);
    let other = reqwest::Client::builder().tls_certs_only([]).build().unwrap();
    assert!(other.get(&url).send().await.is_err(), "a stranger's certificate is trusted");
    let plain = format!("http://{}/livez", hub.control.unwrap());
    assert_eq!(client.get(plain).send().await.unwrap().status(), 200);
}
