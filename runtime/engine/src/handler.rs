//! One request through a `wick:model` handler: a fresh instance, a call, its answer.

use std::time::Instant;

use wasmtime::Store;

use crate::bindings::exports::wick::model::handler::{Request, Response};
use crate::bindings::wick::model::types::Error;
use crate::bindings::{Model as Instance, ModelPre};
use crate::check;
use crate::error::InferError;
use crate::failure::failed;
use crate::host::{Held, HostTensor};
use crate::model::Inner;
use crate::output::Output;
use crate::request::{InferRequest, InferResponse};
use crate::state::{self, State};

/// Answer `request`, which is already checked.
pub(crate) async fn infer(
    model: &Inner,
    pre: &ModelPre<State>,
    request: InferRequest,
    deadline: Instant,
) -> Result<InferResponse, InferError> {
    let started = Instant::now();
    // Taken first and so given back last, after the store.
    let _slot = model.engine.slot().await;
    let output = Output::new(model.guest.model.clone(), false);
    let guest_failed = |error: &wasmtime::Error, store: &Store<State>| {
        let limits = &store.data().limits;
        failed(&model.guest.model, error, limits, &output, started.elapsed())
    };
    let mut store = store(model, &output, deadline)?;
    let wanted = request.outputs.clone();
    let answer = match call(&mut store, pre, request).await {
        Ok(answer) => answer,
        Err(error) => return Err(guest_failed(&error, &store)),
    };
    let response = answer.map_err(|error| refused(error, started))?;
    let response = collect(&mut store, response).map_err(|error| guest_failed(&error, &store))?;
    let outputs = check::outputs(&model.outputs, &wanted, response.outputs)
        .map_err(|detail| InferError::Guest { model: model.guest.model.to_string(), detail })?;
    Ok(InferResponse { parameters: response.parameters, outputs })
}

/// Make an instance, ready to be called, and drop it.
pub(crate) async fn instantiate(model: &Inner, pre: &ModelPre<State>) -> Result<(), InferError> {
    let started = Instant::now();
    let _slot = model.engine.slot().await;
    let output = Output::new(model.guest.model.clone(), false);
    let mut store = store(model, &output, started + model.manifest.limits.timeout)?;
    match pre.instantiate_async(&mut store).await {
        Ok(_) => Ok(()),
        Err(error) => {
            let limits = &store.data().limits;
            Err(failed(&model.guest.model, &error, limits, &output, started.elapsed()))
        }
    }
}

fn store(
    model: &Inner,
    output: &std::sync::Arc<Output>,
    deadline: Instant,
) -> Result<Store<State>, InferError> {
    let state = State::new(&model.guest, output, &[]).map_err(|error| {
        InferError::Unavailable(format!(
            "a folder of model `{}` can't be opened: {error:#}",
            model.guest.model
        ))
    })?;
    Ok(state::store(model.engine.wasm(), state, deadline))
}

async fn call(
    store: &mut Store<State>,
    pre: &ModelPre<State>,
    request: InferRequest,
) -> wasmtime::Result<Result<Response, Error>> {
    let instance: Instance = pre.instantiate_async(&mut *store).await?;
    let table = &mut store.data_mut().table;
    let mut inputs = Vec::with_capacity(request.inputs.len());
    for (name, tensor) in request.inputs {
        inputs.push((name, table.push(HostTensor(Held::given(tensor)))?));
    }
    let parameters = request.parameters.into_iter();
    let request = Request {
        id: request.id,
        parameters: parameters.map(|(name, value)| (name, value.into())).collect(),
        inputs,
        outputs: request.outputs,
    };
    instance.wick_model_handler().call_infer(&mut *store, &request).await
}

/// Take the tensors of an answer out of the instance.
fn collect(store: &mut Store<State>, response: Response) -> wasmtime::Result<InferResponse> {
    let table = &mut store.data_mut().table;
    let mut outputs = Vec::with_capacity(response.outputs.len());
    for (name, tensor) in response.outputs {
        outputs.push((name, table.delete(tensor)?.0.tensor));
    }
    let parameters = response.parameters.into_iter();
    let parameters = parameters.map(|(name, value)| (name, value.into())).collect();
    Ok(InferResponse { parameters, outputs })
}

/// The handler's own word on a request.
fn refused(error: Error, started: Instant) -> InferError {
    match error {
        Error::BadInput(text) => InferError::BadInput(text),
        Error::NotFound(text) => InferError::NotFound(text),
        Error::TooLarge(text) => InferError::TooLarge(text),
        Error::Unavailable(text) => InferError::Unavailable(text),
        Error::Deadline(_) => InferError::Deadline(started.elapsed()),
        Error::Internal(text) => InferError::Internal(text),
    }
}
