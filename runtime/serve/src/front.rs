//! The way in. Where most requests go is told by their path alone, and they are taken there at once. The router, which
//! knows every path, would wrap and box them several times on the same way, which costs more than a small model.

use std::convert::Infallible;

use axum::Router;
use axum::extract::Request;
use axum::response::Response;
use http::Method;
use tower::Service as _;

use crate::auth::{Auth, Grant};
use crate::edge;
use crate::forward;
use crate::grpc;
use crate::page;
use crate::repository::Repository;
use crate::routes::{self, App};
use crate::settings::ServeSettings;

/// What answers requests, shared by all connections.
pub(crate) struct Front {
    router: Router,
    app: App,
    auth: Option<Auth>,
    /// The grant of a server that asks for no tokens.
    everything: Grant,
    /// Whether answers get nothing on their way back that only the router's edge adds.
    is_bare: bool,
}

/// Where a request goes that the router need not see.
#[derive(Debug, PartialEq, Eq)]
enum Way<'a> {
    /// To a model, to be inferred by it.
    Infer { model: &'a str, version: Option<&'a str> },
    /// To a model that answers HTTP itself, if there is one: the path is not the server's own.
    Model,
}

// === impl Front ===

impl Front {
    pub fn new(repository: Repository, settings: &ServeSettings) -> Self {
        let app = App::new(repository, settings);
        Self {
            router: routes::of(app.clone(), settings),
            app,
            auth: settings.auth.clone(),
            everything: Grant::everything(),
            is_bare: settings.cors_origins.is_empty(),
        }
    }

    pub async fn answer(&self, request: Request) -> Response {
        let (mut head, body) = request.into_parts();
        let is_direct = self.is_bare && !grpc::is_grpc(&head.headers);
        let is_page = self.app.page && page::is_front_door(&head.method, head.uri.path());
        let way = (is_direct && !is_page).then(|| Way::of(&head.method, head.uri.path()));
        let Some(way) = way.flatten() else {
            let Ok::<_, Infallible>(answer) =
                self.router.clone().call(Request::from_parts(head, body)).await;
            return answer;
        };
        let grant = match &self.auth {
            None => self.everything.clone(),
            Some(auth) => match edge::grant(auth, &head.uri, &mut head.headers) {
                Ok(grant) => grant,
                Err(failure) => {
                    return edge::refuse(failure, Request::from_parts(head, body)).await;
                }
            },
        };
        // Boxed, so that each request carries what its own way takes and no more.
        match way {
            Way::Infer { model, version } => {
                let headers = &head.headers;
                Box::pin(routes::infer_at(&self.app, &grant, model, version, headers, body)).await
            }
            Way::Model => {
                let request = Request::from_parts(head, body);
                Box::pin(forward::answer(&self.app, &grant, request)).await
            }
        }
    }
}

// === impl Way ===

impl<'a> Way<'a> {
    /// None is wherever the router finds.
    fn of(method: &Method, path: &'a str) -> Option<Self> {
        if !routes::is_own(path) && !grpc::is_own(path) {
            // Neither has an answer with a body, which the router sees to.
            let bodiless = matches!(*method, Method::HEAD | Method::CONNECT);
            return (!bodiless).then_some(Self::Model);
        }
        let inner = path.strip_prefix("/v2/models/").and_then(|path| path.strip_suffix("/infer"));
        // A name with signs that a path can't have is decoded by the router.
        let inner = inner.filter(|inner| method == Method::POST && !inner.contains('%'))?;
        let (model, version) = match inner.split_once('/') {
            None => (inner, None),
            Some((model, rest)) => {
                let version = rest.strip_prefix("versions/");
                (model, Some(version.filter(|version| !version.contains('/'))?))
            }
        };
        let is_named = !model.is_empty() && version != Some("");
        is_named.then_some(Self::Infer { model, version })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn inferences_and_paths_of_models_go_straight_there() {
        let infer = |model, version| Way::Infer { model, version };
        let table = [
            ("/v2/models/a/infer", infer("a", None)),
            ("/v2/models/versions/infer", infer("versions", None)),
            ("/v2/models/a/versions/2/infer", infer("a", Some("2"))),
            ("/", Way::Model),
            ("/v2x", Way::Model),
            ("/a/infer", Way::Model),
            ("*", Way::Model),
        ];
        for (path, want) in table {
            assert_eq!(Way::of(&Method::POST, path), Some(want), "{path}");
        }
    }

    #[test]
    fn whatever_is_not_plain_is_for_the_router() {
        let paths = [
            "/v2",
            "/v2/models/infer",
            "/v2/models//infer",
            "/v2/models/a/infer/",
            "/v2/models/a/b/infer",
            "/v2/models/a/versions/infer",
            "/v2/models/a/versions//infer",
            "/v2/models//versions/1/infer",
            "/v2/models/a/versions/1/2/infer",
            "/v2/models/a%20b/infer",
            "/v2/repository/models/a/infer",
            "/metrics",
            "/inference.GRPCInferenceService/ModelInfer",
            "/grpc.health.v1.Health/Check",
        ];
        for path in paths {
            assert_eq!(Way::of(&Method::POST, path), None, "{path}");
        }
        assert_eq!(Way::of(&Method::GET, "/v2/models/a/infer"), None);
        assert_eq!(Way::of(&Method::HEAD, "/"), None);
    }
}
