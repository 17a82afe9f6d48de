//! Who is called: a server by its URL, or a package loaded into this process.

use std::path::Path;
use std::time::{Duration, Instant};

use wick_engine::{Grants, InferRequest, InferResponse, Model, ModelKind};
use wick_package::TensorSpec;

use crate::client::{Prepared, RemoteArgs, Server};
use crate::failure::{Failure, Outcome};
use crate::host::{self, HostArgs};

/// Something that answers requests.
#[derive(Clone)]
pub enum Target {
    Remote { server: Box<Server>, model: String, inputs: Vec<TensorSpec> },
    Local { model: Model, timeout: Duration },
}

/// What a target is sent, ready to be sent again.
#[derive(Clone)]
pub enum Call {
    Remote(Prepared),
    Local(InferRequest),
}

/// Whether this names a server. Everything else is a path.
pub fn is_url(text: &str) -> bool {
    text.contains("://")
}

// === impl Target ===

impl Target {
    /// Reach a server and read the model's metadata, or load a package.
    ///
    /// # Errors
    /// There is no such server, model or package.
    pub async fn open(
        at: &str,
        model: Option<&str>,
        host: &HostArgs,
        remote: &RemoteArgs,
        timeout: Duration,
    ) -> Outcome<Self> {
        if is_url(at) {
            let (server, in_url) = Server::parse(at, remote, timeout)?;
            let model = match model.map(str::to_owned).or(in_url) {
                Some(model) => model,
                None => server.only_model().await?,
            };
            let metadata = server.metadata(&model).await?;
            let inputs = metadata.inputs().map_err(Failure::input)?;
            return Ok(Self::Remote { server: Box::new(server), model, inputs });
        }
        let package = host::open(Path::new(at))?;
        let name = package.manifest().name.to_string();
        if let Some(model) = model
            && model != name
        {
            return Err(Failure::usage(format_args!(
                "{at} holds the model `{name}`, not `{model}`"
            ))
            .help("leave the name out"));
        }
        let model = host.host()?.load(package, Grants::default()).await?;
        Self::local(model, timeout)
    }

    /// Call a model that was loaded into this process.
    ///
    /// # Errors
    /// It is not called with tensors.
    pub fn local(model: Model, timeout: Duration) -> Outcome<Self> {
        let what = match model.kind() {
            ModelKind::Passthrough | ModelKind::Handler => {
                let timeout = timeout.min(model.manifest().limits.timeout);
                return Ok(Self::Local { model, timeout });
            }
            ModelKind::Http => "answers HTTP itself: serve it with `wick run` and use curl",
            ModelKind::Command => "is a command: run it with `wick run PACKAGE -- ARGUMENTS`",
        };
        Err(Failure::usage(format_args!("`{}` {what}", model.manifest().name)))
    }

    pub fn inputs(&self) -> &[TensorSpec] {
        match self {
            Self::Remote { inputs, .. } => inputs,
            Self::Local { model, .. } => model.inputs(),
        }
    }

    pub fn model(&self) -> &str {
        match self {
            Self::Remote { model, .. } => model,
            Self::Local { model, .. } => model.manifest().name.as_str(),
        }
    }

    pub fn prepare(&self, request: InferRequest, binary: bool) -> Call {
        match self {
            Self::Remote { model, .. } => Call::Remote(Prepared::new(model, &request, binary)),
            Self::Local { .. } => Call::Local(request),
        }
    }

    /// # Errors
    /// The request is refused, or not answered in time.
    pub async fn infer(&self, call: &Call) -> Outcome<InferResponse> {
        match (self, call) {
            (Self::Remote { server, .. }, Call::Remote(request)) => server.infer(request).await,
            (Self::Local { model, timeout }, Call::Local(request)) => {
                let deadline = Instant::now() + *timeout;
                let answer = model.infer(request.clone(), deadline).await;
                answer.map_err(|error| Failure::of(&error))
            }
            _ => Err(Failure::usage("the request was prepared for another target")),
        }
    }
}
