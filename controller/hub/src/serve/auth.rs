//! Who asks, by a bearer token, and whether they may.

use axum::extract::FromRequestParts;
use axum::http::header::AUTHORIZATION;
use axum::http::request::Parts;

use super::{Api, Refused};
use crate::hub::now;
use crate::token::Role;

/// Longest token that is looked up.
const MAX_TOKEN: usize = 256;

/// Whoever asks.
pub(super) struct Caller {
    pub(super) name: String,
    role: Role,
}

// === impl Caller ===

impl Caller {
    /// # Errors
    /// The token's role is too low.
    pub(super) fn must(&self, role: Role) -> Result<(), Refused> {
        if self.role >= role {
            return Ok(());
        }
        let (has, needs) = (self.role.as_str(), role.as_str());
        Err(Refused::new("role", format!("your token's role is {has}, and this needs {needs}")))
    }
}

impl FromRequestParts<Api> for Caller {
    type Rejection = Refused;

    async fn from_request_parts(parts: &mut Parts, api: &Api) -> Result<Self, Refused> {
        let missing =
            || Refused::new("token", "give a token that holds, as `Authorization: Bearer …`");
        let header = parts.headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok());
        let text = header.and_then(|text| text.strip_prefix("Bearer ")).ok_or_else(missing)?;
        if text.len() > MAX_TOKEN {
            return Err(missing());
        }
        let token = api.shared.token(text)?.ok_or_else(missing)?;
        let role = token.role(now()).ok_or_else(missing)?;
        Ok(Self { name: token.name, role })
    }
}
