//! What a signature says, as an in-toto statement: this digest, under this name, is approved.
//!
//! The predicate type is cosign's, so that `cosign verify` takes it; what wick adds stands in the
//! predicate, which cosign passes over. A statement of any other type, such as a list of
//! materials that a build signed with the same key, approves nothing.

use std::collections::BTreeMap;

use crate::digest::Digest;
use crate::signature::error::SignatureError;
use crate::signature::signed::Claim;
use crate::signature::subject::Subject;

/// The payload type of in-toto statements.
pub(super) const PAYLOAD_TYPE: &str = "application/vnd.in-toto+json";

const STATEMENT_TYPE: &str = "https://in-toto.io/Statement/v1";

/// What cosign's `sign` says with its bundles.
pub(super) const PREDICATE_TYPE: &str = "https://sigstore.dev/cosign/sign/v1";

/// Most subjects of one statement. Ours has one.
const MAX_SUBJECTS: usize = 64;

#[derive(serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "camelCase")]
struct Statement {
    #[serde(rename = "_type")]
    kind: String,
    subject: Vec<ResourceDescriptor>,
    predicate_type: String,
    // Absent in statements of cosign 3.0.
    #[serde(default)]
    predicate: Predicate,
}

#[derive(serde::Serialize, serde::Deserialize)]
struct ResourceDescriptor {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    digest: BTreeMap<String, String>,
}

/// Others' predicates have other fields, which mean nothing here.
#[derive(Default, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "camelCase")]
struct Predicate {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    package: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    version: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    signed_at: Option<String>,
}

/// The statement about a subject, as the bytes that are signed.
pub(super) fn write(subject: &Subject) -> Vec<u8> {
    let digest = BTreeMap::from([("sha256".to_owned(), subject.digest.hex())]);
    let name = Some(subject.image.name());
    let statement = Statement {
        kind: STATEMENT_TYPE.to_owned(),
        subject: vec![ResourceDescriptor { name, digest }],
        predicate_type: PREDICATE_TYPE.to_owned(),
        predicate: Predicate {
            package: subject.package.clone(),
            version: subject.version.clone(),
            signed_at: subject.signed_at.clone(),
        },
    };
    serde_json::to_vec(&statement).expect("a statement has text keys and no failing parts")
}

/// What a statement says of each of its subjects.
pub(super) fn read(payload_type: &str, payload: &[u8]) -> Result<Vec<Claim>, SignatureError> {
    let foreign = |what: &str, text: &str| {
        let text: String = text.chars().take(100).collect();
        Err(SignatureError::Foreign(format!("its {what} is `{}`", text.escape_debug())))
    };
    if payload_type != PAYLOAD_TYPE {
        return foreign("payload", payload_type);
    }
    let json = |source| SignatureError::Json { what: "the statement of a signature", source };
    let statement: Statement = serde_json::from_slice(payload).map_err(json)?;
    if statement.kind != STATEMENT_TYPE {
        return foreign("statement", &statement.kind);
    }
    if statement.predicate_type != PREDICATE_TYPE {
        return foreign("predicate", &statement.predicate_type);
    }
    let count = statement.subject.len();
    if count > MAX_SUBJECTS {
        return Err(SignatureError::Many {
            what: "a statement",
            count,
            parts: "subjects",
            most: MAX_SUBJECTS,
        });
    }
    let Predicate { package, version, signed_at } = statement.predicate;
    let claim = |subject: ResourceDescriptor| {
        let digest = format!("sha256:{}", subject.digest.get("sha256")?);
        Some(Claim {
            digest: digest.parse::<Digest>().ok()?,
            image: subject.name.filter(|name| !name.is_empty()),
            package: package.clone(),
            version: version.clone(),
            signed_at: signed_at.clone(),
        })
    };
    Ok(statement.subject.into_iter().filter_map(claim).collect())
}
