//! The calls of the protocol, each turned into what REST does for the same question.

use std::pin::Pin;

use futures::Stream;
use tonic::{Request, Response, Status, Streaming};
use wick_package::{Dim, TensorSpec};

use super::infer::{self, Caller};
use super::meter::Meter;
use super::proto::grpc_inference_service_server::GrpcInferenceService;
use super::proto::model_metadata_response::TensorMetadata;
use super::proto::repository_index_response::ModelIndex;
use super::proto::*;
use super::stream;
use crate::auth::Grant;
use crate::extensions::{self, Configuration, IndexEntry};
use crate::metadata::{ModelJson, ServerJson};
use crate::respond::Failure;
use crate::routes::App;

/// The service over what the handlers share.
pub(super) struct Inference {
    app: App,
}

type Answer<T> = Result<Response<T>, Status>;

// === impl Inference ===

impl Inference {
    pub fn new(app: App) -> Self {
        Self { app }
    }
}

/// A version, if one is named.
pub(super) fn version(text: &str) -> Option<&str> {
    (!text.is_empty()).then_some(text)
}

fn answered<T>(result: Result<T, Failure>) -> Answer<T> {
    result.map(Response::new).map_err(|failure| failure.to_status())
}

/// What the call may do.
fn grant<T>(request: &Request<T>) -> Grant {
    Grant::of(request.extensions())
}

/// What was counted of a call's messages.
fn meter<T>(request: &Request<T>) -> Result<Meter, Status> {
    let meter = request.extensions().get::<Meter>().cloned();
    meter.ok_or_else(|| Status::internal("the call was not metered"))
}

/// KServe's clients put the model's name into the first field.
fn named(model: String, repository: String) -> String {
    if model.is_empty() { repository } else { model }
}

#[tonic::async_trait]
impl GrpcInferenceService for Inference {
    async fn server_live(&self, _: Request<ServerLiveRequest>) -> Answer<ServerLiveResponse> {
        Ok(Response::new(ServerLiveResponse { live: true }))
    }

    async fn server_ready(&self, _: Request<ServerReadyRequest>) -> Answer<ServerReadyResponse> {
        Ok(Response::new(ServerReadyResponse { ready: self.app.repository.is_ready() }))
    }

    async fn model_ready(&self, request: Request<ModelReadyRequest>) -> Answer<ModelReadyResponse> {
        let grant = grant(&request);
        let ModelReadyRequest { name, version: asked } = request.into_inner();
        let ready = self.app.model_ready(&grant, &name, version(&asked));
        answered(ready.map(|ready| ModelReadyResponse { ready }))
    }

    async fn server_metadata(
        &self,
        _: Request<ServerMetadataRequest>,
    ) -> Answer<ServerMetadataResponse> {
        let server = ServerJson::new();
        Ok(Response::new(ServerMetadataResponse {
            name: server.name.to_owned(),
            version: server.version.to_owned(),
            extensions: server.extensions.map(str::to_owned).to_vec(),
        }))
    }

    async fn model_metadata(
        &self,
        request: Request<ModelMetadataRequest>,
    ) -> Answer<ModelMetadataResponse> {
        let grant = grant(&request);
        let ModelMetadataRequest { name, version: asked } = request.into_inner();
        let live = self.app.peek(&grant, &name, version(&asked));
        answered(live.map(|live| {
            let versions = self.app.repository.versions(&name);
            let model = ModelJson::new(&live, &versions);
            let tensors = |specs: &[TensorSpec]| specs.iter().map(tensor).collect();
            ModelMetadataResponse {
                name: model.name.to_owned(),
                versions: model.versions.into_iter().map(str::to_owned).collect(),
                platform: model.platform.to_owned(),
                inputs: tensors(model.inputs),
                outputs: tensors(model.outputs),
            }
        }))
    }

    async fn model_infer(&self, request: Request<ModelInferRequest>) -> Answer<ModelInferResponse> {
        let meter = meter(&request)?;
        let caller = Caller::of(&request);
        let message = request.into_inner();
        answered(infer::answer(&self.app, &caller, message, meter.take(), meter.left()).await)
    }

    type ModelStreamInferStream =
        Pin<Box<dyn Stream<Item = Result<ModelStreamInferResponse, Status>> + Send + 'static>>;

    async fn model_stream_infer(
        &self,
        request: Request<Streaming<ModelInferRequest>>,
    ) -> Answer<Self::ModelStreamInferStream> {
        let meter = meter(&request)?;
        let caller = Caller::of(&request);
        let answers = stream::answers(self.app.clone(), caller, meter, request.into_inner());
        Ok(Response::new(Box::pin(answers)))
    }

    async fn model_config(
        &self,
        request: Request<ModelConfigRequest>,
    ) -> Answer<ModelConfigResponse> {
        let grant = grant(&request);
        let ModelConfigRequest { name, version: asked } = request.into_inner();
        let live = self.app.peek(&grant, &name, version(&asked));
        answered(live.map(|live| {
            let config = Configuration::of(&live).into();
            ModelConfigResponse { config: Some(config) }
        }))
    }

    async fn model_statistics(
        &self,
        request: Request<ModelStatisticsRequest>,
    ) -> Answer<ModelStatisticsResponse> {
        let grant = grant(&request);
        let ModelStatisticsRequest { name, version: asked } = request.into_inner();
        let live = extensions::counted(&self.app, &grant, version(&name), version(&asked));
        answered(live.map(|live| {
            let model_stats =
                live.iter().map(|live| extensions::Statistics::of(live).into()).collect();
            ModelStatisticsResponse { model_stats }
        }))
    }

    async fn repository_index(
        &self,
        request: Request<RepositoryIndexRequest>,
    ) -> Answer<RepositoryIndexResponse> {
        let grant = grant(&request);
        let entries = extensions::entries(&self.app, &grant, request.into_inner().ready);
        let models = entries.into_iter().map(ModelIndex::from).collect();
        Ok(Response::new(RepositoryIndexResponse { models }))
    }

    async fn repository_model_load(
        &self,
        request: Request<RepositoryModelLoadRequest>,
    ) -> Answer<RepositoryModelLoadResponse> {
        let grant = grant(&request);
        let message = request.into_inner();
        let model = named(message.model_name, message.repository_name);
        let parameters = message.parameters.keys().map(String::as_str);
        let loaded = match self.app.check_control(&grant, &model) {
            Ok(()) => extensions::load_model(&self.app, &model, parameters).await,
            Err(failure) => Err(failure),
        };
        answered(
            loaded.map(|()| RepositoryModelLoadResponse { model_name: model, is_loaded: true }),
        )
    }

    async fn repository_model_unload(
        &self,
        request: Request<RepositoryModelUnloadRequest>,
    ) -> Answer<RepositoryModelUnloadResponse> {
        let grant = grant(&request);
        let message = request.into_inner();
        let model = named(message.model_name, message.repository_name);
        let unloaded = match self.app.check_control(&grant, &model) {
            Ok(()) => extensions::unload_model(&self.app, &model).await,
            Err(failure) => Err(failure),
        };
        answered(
            unloaded
                .map(|()| RepositoryModelUnloadResponse { model_name: model, is_unloaded: true }),
        )
    }
}

// === impl From ===

fn tensor(spec: &TensorSpec) -> TensorMetadata {
    TensorMetadata {
        name: spec.name.clone(),
        datatype: spec.datatype.to_string(),
        shape: sizes(&spec.shape),
    }
}

fn sizes(shape: &[Dim]) -> Vec<i64> {
    shape.iter().map(|dim| extensions::size(*dim)).collect()
}

impl From<Configuration<'_>> for ModelConfig {
    fn from(model: Configuration<'_>) -> Self {
        let latest = model_version_policy::Latest { num_versions: model.versions };
        let policy_choice = Some(model_version_policy::PolicyChoice::Latest(latest));
        let datatype = |spec: &TensorSpec| {
            let name = extensions::datatype(spec.datatype);
            DataType::from_str_name(&name).unwrap_or(DataType::TypeInvalid).into()
        };
        Self {
            name: model.name.to_owned(),
            platform: model.platform.to_owned(),
            version_policy: Some(ModelVersionPolicy { policy_choice }),
            max_batch_size: 0,
            input: (model.inputs.iter())
                .map(|spec| ModelInput {
                    name: spec.name.clone(),
                    data_type: datatype(spec),
                    dims: sizes(&spec.shape),
                })
                .collect(),
            output: (model.outputs.iter())
                .map(|spec| ModelOutput {
                    name: spec.name.clone(),
                    data_type: datatype(spec),
                    dims: sizes(&spec.shape),
                })
                .collect(),
            backend: model.backend.to_owned(),
        }
    }
}

impl From<extensions::Statistics<'_>> for ModelStatistics {
    fn from(model: extensions::Statistics<'_>) -> Self {
        let stats = &model.inference_stats;
        let took = |time: &extensions::Duration| {
            Some(StatisticDuration { count: time.count, ns: time.ns })
        };
        Self {
            name: model.name.to_owned(),
            version: model.version.to_owned(),
            last_inference: model.last_inference,
            inference_count: model.inference_count,
            execution_count: model.execution_count,
            inference_stats: Some(InferStatistics {
                success: took(&stats.success),
                fail: took(&stats.fail),
                queue: took(&stats.queue),
                compute_input: took(&stats.compute_input),
                compute_infer: took(&stats.compute_infer),
                compute_output: took(&stats.compute_output),
                cache_hit: took(&stats.cache_hit),
                cache_miss: took(&stats.cache_miss),
            }),
        }
    }
}

impl From<IndexEntry> for ModelIndex {
    fn from(model: IndexEntry) -> Self {
        Self {
            name: model.name,
            version: model.version.unwrap_or_default(),
            state: model.state.to_owned(),
            reason: model.reason,
        }
    }
}
