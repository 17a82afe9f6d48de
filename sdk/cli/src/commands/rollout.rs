//! `wick rollout`: how traffic moves to a new revision of a Model, and what people say to it.
//! The operator does it; here it is asked, and what it says is shown.

use std::time::Duration;

use kube::api::{Api, Patch, PatchParams};
use kube::{Client, Config};
use serde_json::json;
use wick_api::{Model, ModelStatus, RevisionStatus};
use wick_operator::shell::COMMAND;

use crate::commands::operator::run::client;
use crate::exit::Exit;
use crate::failure::{Failure, Outcome};
use crate::output::{self, Format};
use crate::registries::block_on;

/// How long the operator may take to see a command.
const SEEN: Duration = Duration::from_secs(30);

/// How often the Model is looked at meanwhile.
const LOOK: Duration = Duration::from_millis(250);

/// How traffic moves to a new revision of a Model
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  wick rollout status filetype
  wick rollout status filetype --watch
  wick rollout promote filetype -n vision    # the new revision gets all requests now
  wick rollout abort filetype                # back to the revision before
  wick rollout undo filetype                 # after it is complete: back to the one before
  wick rollout pause filetype
As a kubectl plugin: ln -s $(command -v wick) /usr/local/bin/kubectl-wick; kubectl wick rollout …")]
pub struct RolloutArgs {
    #[command(subcommand)]
    command: RolloutCommand,
}

#[derive(Debug, clap::Subcommand)]
enum RolloutCommand {
    /// Show where it is
    Status {
        #[command(flatten)]
        model: ModelArgs,
        /// Go on until it is complete or has failed, which is this command's result
        #[arg(short, long)]
        watch: bool,
    },
    /// Give the new revision all requests now
    Promote(ModelArgs),
    /// Leave the new revision
    Abort(ModelArgs),
    /// Go back to the revision before
    Undo(ModelArgs),
    /// Stay at the present step; gates are watched all the same
    Pause(ModelArgs),
    /// Go on after a pause
    Resume(ModelArgs),
}

#[derive(Debug, clap::Args)]
struct ModelArgs {
    /// The Model
    #[arg(value_name = "MODEL")]
    name: String,
    /// Its namespace; that of the kubeconfig's context otherwise
    #[arg(short, long, value_name = "NAMESPACE")]
    namespace: Option<String>,
}

pub fn run(args: &RolloutArgs, format: Format) -> Outcome {
    block_on(async {
        match &args.command {
            RolloutCommand::Status { model, watch } => status(model, *watch, format).await,
            RolloutCommand::Promote(model) => ask(model, "promote", format).await,
            RolloutCommand::Abort(model) => ask(model, "abort", format).await,
            RolloutCommand::Undo(model) => ask(model, "undo", format).await,
            RolloutCommand::Pause(model) => pause(model, true, format).await,
            RolloutCommand::Resume(model) => pause(model, false, format).await,
        }
    })
}

async fn status(args: &ModelArgs, watch: bool, format: Format) -> Outcome {
    let models = args.models().await?;
    let mut model = args.get(&models).await?;
    let mut last = String::new();
    loop {
        let line = line(&model);
        if !watch || line != last {
            show(&model, format);
            last = line;
        }
        if !watch {
            return Ok(());
        }
        match reason(&model, "Progressing") {
            Some("Complete") => return verdict(&model),
            _ => tokio::time::sleep(LOOK).await,
        }
        model = args.get(&models).await?;
    }
}

/// Whether what is complete is what was wanted.
fn verdict(model: &Model) -> Outcome {
    match condition(model, "Degraded") {
        Some(("True", reason, message)) => {
            Err(Failure::new(Exit::Refused, "rollout-failed", format!("{reason}: {message}")))
        }
        _ => Ok(()),
    }
}

/// Writes a command, and waits until the operator has seen it.
async fn ask(args: &ModelArgs, command: &str, format: Format) -> Outcome {
    let models = args.models().await?;
    let model = args.get(&models).await?;
    // Another text than the last, so that the same may be asked twice.
    let version = model.metadata.resource_version.unwrap_or_default();
    let text = format!("{command}/{version}");
    let patch = json!({"metadata": {"annotations": {COMMAND: text}}});
    args.patch(&models, &patch).await?;
    let seen = async {
        loop {
            let model = args.get(&models).await?;
            let rollout = model.status.as_ref().and_then(|status| status.rollout.as_ref());
            if rollout.and_then(|rollout| rollout.obeyed.as_deref()) == Some(text.as_str()) {
                return Outcome::Ok(model);
            }
            tokio::time::sleep(LOOK).await;
        }
    };
    match tokio::time::timeout(SEEN, seen).await {
        Ok(model) => {
            show(&model?, format);
            Ok(())
        }
        Err(_) => {
            let name = &args.name;
            let message =
                format!("{name}: the operator has not seen it within {} s", SEEN.as_secs());
            Err(Failure::new(Exit::Unavailable, "no-operator", message).help(
                "look at its pods: kubectl -n wick-system get pods; it obeys when it is back",
            ))
        }
    }
}

async fn pause(args: &ModelArgs, paused: bool, format: Format) -> Outcome {
    let models = args.models().await?;
    let patch = json!({"spec": {"rollout": {"paused": paused}}});
    let model = args.patch(&models, &patch).await?;
    show(&model, format);
    Ok(())
}

fn show(model: &Model, format: Format) {
    if format == Format::Json {
        output::json(&model.status.clone().unwrap_or_default());
    } else {
        output::line(line(model));
    }
}

/// One line: what is going on, and who gets what.
fn line(model: &Model) -> String {
    let status = model.status.clone().unwrap_or_default();
    let name = model.metadata.name.clone().unwrap_or_default();
    let going = reason(model, "Progressing").unwrap_or("Unknown");
    let ready = reason(model, "Ready").unwrap_or("Unknown");
    let mut text = format!("{name}: {going}, {ready}");
    for revision in revisions(&status) {
        let RevisionStatus { name, weight, replicas, ready_replicas, .. } = revision;
        text += &format!("; {name} {weight} % ({ready_replicas}/{replicas} pods)");
    }
    if let Some((status, reason, message)) = condition(model, "Degraded")
        && status == "True"
    {
        text += &format!("; {reason}: {message}");
    }
    text
}

fn revisions(status: &ModelStatus) -> impl Iterator<Item = &RevisionStatus> {
    status.active.iter().chain(&status.candidate)
}

fn reason<'a>(model: &'a Model, type_: &str) -> Option<&'a str> {
    condition(model, type_).map(|(_, reason, _)| reason)
}

fn condition<'a>(model: &'a Model, type_: &str) -> Option<(&'a str, &'a str, &'a str)> {
    let conditions = &model.status.as_ref()?.conditions;
    let one = conditions.iter().find(|condition| condition.type_ == type_)?;
    Some((one.status.as_str(), &one.reason, &one.message))
}

// === impl ModelArgs ===

impl ModelArgs {
    async fn models(&self) -> Outcome<Api<Model>> {
        let client = client().await?;
        let namespace = match &self.namespace {
            Some(namespace) => namespace.clone(),
            None => default_namespace(&client).await,
        };
        Ok(Api::namespaced(client, &namespace))
    }

    async fn get(&self, models: &Api<Model>) -> Outcome<Model> {
        models.get(&self.name).await.map_err(|error| self.failed(&error))
    }

    async fn patch(&self, models: &Api<Model>, patch: &serde_json::Value) -> Outcome<Model> {
        let params =
            PatchParams { field_manager: Some("wick".to_owned()), ..PatchParams::default() };
        let patched = models.patch(&self.name, &params, &Patch::Merge(patch)).await;
        patched.map_err(|error| self.failed(&error))
    }

    fn failed(&self, error: &kube::Error) -> Failure {
        let name = &self.name;
        match error {
            kube::Error::Api(status) if status.code == 404 => {
                Failure::new(Exit::NotFound, "no-model", format!("there is no Model {name}"))
                    .help("kubectl get models --all-namespaces")
            }
            _ => {
                let message = format!("{name}: the API server has refused");
                Failure::new(Exit::Unavailable, "api-server", message).caused_by(Some(error))
            }
        }
    }
}

async fn default_namespace(client: &Client) -> String {
    match Config::infer().await {
        Ok(config) => config.default_namespace,
        Err(_) => client.default_namespace().to_owned(),
    }
}
