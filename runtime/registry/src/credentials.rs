//! Users and passwords: from Docker's and Podman's files and the helpers that those name.
//!
//! Neither is ever logged, and neither leaves for another host than the registry and the token
//! server that the registry itself names.

use std::fs;
use std::io;
use std::path::PathBuf;

use docker_credential::{CredentialRetrievalError, DockerCredential};

use crate::error::RegistryError;
use crate::settings::Credentials;

/// Where Docker's files keep what is for Docker Hub.
const HUB_KEY: &str = "https://index.docker.io/v1/";

/// What a helper prints when it has nothing for a host.
const HELPER_HAS_NONE: &str = "credentials not found";

/// Who calls.
#[derive(Clone)]
pub(crate) enum Secret {
    Password {
        user: String,
        password: String,
    },
    /// For the token server only.
    RefreshToken(String),
}

/// What is known for a registry; none where nothing is.
///
/// # Errors
/// A file or helper is there and can't be used. Going on without would end in a misleading
/// refusal.
pub(crate) async fn find(
    credentials: &Credentials,
    registry: &str,
) -> Result<Option<Secret>, RegistryError> {
    match credentials {
        Credentials::Anonymous => Ok(None),
        Credentials::Given { registry: whose, user, password } => {
            let secret = || Secret::Password { user: user.clone(), password: password.clone() };
            Ok((whose == registry).then(secret))
        }
        Credentials::Files => {
            let name = registry.to_owned();
            // A helper is a program: it may ask a keychain, or a person.
            let found = tokio::task::spawn_blocking(move || from_files(&name)).await;
            let failed =
                |why: String| RegistryError::Credentials { host: registry.to_owned(), why };
            found.map_err(|error| failed(error.to_string()))?.map_err(failed)
        }
    }
}

fn from_files(registry: &str) -> Result<Option<Secret>, String> {
    check_docker_file()?;
    let key = if registry == "docker.io" { HUB_KEY } else { registry };
    let podman = docker_credential::get_podman_credential(key);
    for found in [docker_credential::get_credential(key), podman] {
        match found {
            Ok(DockerCredential::UsernamePassword(user, password)) => {
                return Ok(Some(Secret::Password { user, password }));
            }
            Ok(DockerCredential::IdentityToken(token)) => {
                return Ok(Some(Secret::RefreshToken(token)));
            }
            Err(error) if is_absence(&error) => {}
            Err(error) => return Err(error.to_string()),
        }
    }
    Ok(None)
}

/// A broken file is an error: to go on without it would end in a refusal that nobody
/// understands.
fn check_docker_file() -> Result<(), String> {
    let home = || std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".docker"));
    let folder = std::env::var_os("DOCKER_CONFIG").map(PathBuf::from).or_else(home);
    let Some(path) = folder.map(|folder| folder.join("config.json")) else { return Ok(()) };
    let text = match fs::read(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(format!("{}: {error}", path.display())),
    };
    let parsed = serde_json::from_slice::<serde::de::IgnoredAny>(&text);
    parsed.map(drop).map_err(|error| format!("{}: {error}", path.display()))
}

fn is_absence(error: &CredentialRetrievalError) -> bool {
    match error {
        CredentialRetrievalError::NoCredentialConfigured
        | CredentialRetrievalError::ConfigNotFound => true,
        // Said of a file that is not there; of a broken one too, which was looked for.
        CredentialRetrievalError::ConfigReadError => true,
        CredentialRetrievalError::HelperFailure { stdout, stderr, .. } => {
            stdout.contains(HELPER_HAS_NONE) || stderr.contains(HELPER_HAS_NONE)
        }
        _ => false,
    }
}
