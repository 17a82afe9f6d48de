//! The client of registries: what it was told, and where a reference leads.

use std::sync::Arc;

use reqwest::Url;
use wick_package::Reference;

use crate::api::Repository;
use crate::error::RegistryError;
use crate::settings::Settings;
use crate::transport::Transport;

/// Docker Hub is not where its images' names say.
const HUB: &str = "docker.io";
const HUB_HOST: &str = "registry-1.docker.io";

/// Reaches registries. Cheap to clone; clones share connections and tokens.
#[derive(Clone)]
pub struct Registry {
    pub(crate) transport: Arc<Transport>,
}

// === impl Registry ===

impl Registry {
    /// # Errors
    /// A certificate of the settings can't be used.
    pub fn new(settings: Settings) -> Result<Self, RegistryError> {
        Ok(Self { transport: Arc::new(Transport::new(settings)?) })
    }

    pub(crate) fn settings(&self) -> &Settings {
        &self.transport.settings
    }

    /// The repository of a reference at its own registry.
    pub(crate) fn repository(&self, of: &Reference) -> Result<Repository, RegistryError> {
        let host = if of.registry() == HUB { HUB_HOST } else { of.registry() };
        self.repository_at(of, of.registry(), host)
    }

    /// Where a reference may be read: mirrors, then its own registry.
    pub(crate) fn readable(&self, of: &Reference) -> Result<Vec<Repository>, RegistryError> {
        let mirrors = self.settings().mirrors.get(of.registry()).into_iter().flatten();
        let mirrors = mirrors.map(|host| self.repository_at(of, host, host));
        mirrors.chain([self.repository(of)]).collect()
    }

    fn repository_at(
        &self,
        of: &Reference,
        registry: &str,
        host: &str,
    ) -> Result<Repository, RegistryError> {
        let plain = self.settings().plain_http.permits(registry);
        let scheme = if plain { "http" } else { "https" };
        let base: Result<Url, _> = format!("{scheme}://{host}/v2/{}/", of.repository()).parse();
        let base = base.map_err(|error| RegistryError::Answer {
            host: host.to_owned(),
            what: of.to_string(),
            why: format!("{error}"),
        })?;
        Ok(Repository {
            registry: registry.to_owned(),
            name: of.repository().to_owned(),
            origin: base.origin().ascii_serialization(),
            base,
        })
    }
}
