//! The host's imports, and the way in from its call.

use bindings::wasi::nn::{errors, graph as nn};
use bindings::wick::model::types;

use crate::{Datatype, Error, ErrorKind, Parameter, Request, Response, Result, Tensors};

/// Generated from `sdk/wit`.
#[allow(clippy::all, clippy::mem_forget, reason = "generated code")]
pub mod bindings {
    wit_bindgen::generate!({
        path: "../wit",
        world: "model",
        generate_all,
        pub_export_macro: true,
        default_bindings_module: "wick_guest::__private::bindings",
    });
}

/// A tensor in the host's memory.
pub(crate) struct Tensor(types::Tensor);

/// A graph that the host has loaded.
#[derive(Debug)]
pub(crate) struct Graph(nn::Graph);

/// Call a handler with the host's request, and give the host its answer.
///
/// # Errors
/// Those of the handler.
pub fn answer(
    request: types::Request,
    handler: impl FnOnce(Request) -> Result<Response>,
) -> std::result::Result<types::Response, types::Error> {
    let request = Request {
        id: request.id,
        parameters: request.parameters.into_iter().map(from_parameter).collect(),
        inputs: request.inputs.into_iter().map(from_tensor).collect(),
        outputs: request.outputs,
    };
    let response = handler(request).map_err(into_wit_error)?;
    Ok(types::Response {
        parameters: response.parameters.into_iter().map(into_parameter).collect(),
        outputs: response.outputs.into_iter().map(|(name, t)| (name, t.inner.0)).collect(),
    })
}

// === impl Tensor ===

impl Tensor {
    pub(crate) fn new(datatype: Datatype, shape: &[u64], data: &[u8]) -> Result<Self> {
        types::Tensor::new(datatype.into(), shape, data).map(Self).map_err(from_wit_error)
    }

    pub(crate) fn datatype(&self) -> Datatype {
        self.0.datatype().into()
    }

    pub(crate) fn shape(&self) -> Vec<u64> {
        self.0.shape()
    }

    pub(crate) fn byte_size(&self) -> u64 {
        self.0.byte_size()
    }

    pub(crate) fn read(&self, offset: u64, len: u64) -> Vec<u8> {
        self.0.read(offset, len)
    }

    pub(crate) fn duplicate(&self) -> Self {
        Self(self.0.clone())
    }
}

// === impl Graph ===

impl Graph {
    pub(crate) fn load(name: &str) -> Result<Self> {
        nn::load_by_name(name).map(Self).map_err(|error| from_nn_error(name, &error))
    }

    pub(crate) fn run(&self, name: &str, inputs: Tensors) -> Result<Tensors> {
        let mut own = Vec::with_capacity(inputs.len());
        for (input, tensor) in inputs {
            let tensor = tensor.inner.0.to_nn().map_err(|error| {
                let error = from_wit_error(error);
                Error::internal(format_args!("input `{input}` of graph `{name}`: {error}"))
            })?;
            own.push((input, tensor));
        }
        let context =
            self.0.init_execution_context().map_err(|error| from_nn_error(name, &error))?;
        let outputs = context.compute(own).map_err(|error| from_nn_error(name, &error))?;
        let mut tensors = Tensors::new();
        for (output, tensor) in outputs {
            let tensor = types::Tensor::from_nn(&tensor).map_err(from_wit_error)?;
            tensors.push(output, crate::Tensor { inner: Tensor(tensor) });
        }
        Ok(tensors)
    }
}

// === conversions ===

/// Both enums have the same names.
macro_rules! same_datatypes {
    ($($own:ident = $wit:ident),* $(,)?) => {
        impl From<Datatype> for types::Datatype {
            fn from(datatype: Datatype) -> Self {
                match datatype {
                    $(Datatype::$own => Self::$wit,)*
                }
            }
        }

        impl From<types::Datatype> for Datatype {
            fn from(datatype: types::Datatype) -> Self {
                match datatype {
                    $(types::Datatype::$wit => Self::$own,)*
                }
            }
        }
    };
}

same_datatypes! {
    Bool = BoolType,
    Uint8 = Uint8, Uint16 = Uint16, Uint32 = Uint32, Uint64 = Uint64,
    Int8 = Int8, Int16 = Int16, Int32 = Int32, Int64 = Int64,
    Fp16 = Fp16, Bf16 = Bf16, Fp32 = Fp32, Fp64 = Fp64,
    Bytes = Bytes,
}

// `Error` converts from everything that implements `std::error::Error`, and the
// generated type does: this gives the specific kinds instead.
fn from_wit_error(error: types::Error) -> Error {
    let (kind, message) = match error {
        types::Error::BadInput(message) => (ErrorKind::BadInput, message),
        types::Error::NotFound(message) => (ErrorKind::NotFound, message),
        types::Error::TooLarge(message) => (ErrorKind::TooLarge, message),
        types::Error::Unavailable(message) => (ErrorKind::Unavailable, message),
        types::Error::Deadline(message) => (ErrorKind::Deadline, message),
        types::Error::Internal(message) => (ErrorKind::Internal, message),
    };
    Error::new(kind, message)
}

fn into_wit_error(error: Error) -> types::Error {
    let message = error.message().to_owned();
    match error.kind() {
        ErrorKind::BadInput => types::Error::BadInput(message),
        ErrorKind::NotFound => types::Error::NotFound(message),
        ErrorKind::TooLarge => types::Error::TooLarge(message),
        ErrorKind::Unavailable => types::Error::Unavailable(message),
        ErrorKind::Deadline => types::Error::Deadline(message),
        ErrorKind::Internal => types::Error::Internal(message),
    }
}

fn from_nn_error(graph: &str, error: &errors::Error) -> Error {
    let kind = match error.code() {
        errors::ErrorCode::Timeout => ErrorKind::Deadline,
        errors::ErrorCode::TooLarge => ErrorKind::TooLarge,
        // Whatever else it is, the handler or the host brought it about.
        _ => ErrorKind::Internal,
    };
    Error::new(kind, format_args!("graph `{graph}`: {}", error.data()))
}

fn from_tensor((name, tensor): (String, types::Tensor)) -> (String, crate::Tensor) {
    (name, crate::Tensor { inner: Tensor(tensor) })
}

fn from_parameter((name, value): (String, types::Parameter)) -> (String, Parameter) {
    let value = match value {
        types::Parameter::Boolean(value) => Parameter::Bool(value),
        types::Parameter::Integer(value) => Parameter::Int(value),
        types::Parameter::Float(value) => Parameter::Float(value),
        types::Parameter::Text(value) => Parameter::Text(value),
    };
    (name, value)
}

fn into_parameter((name, value): (String, Parameter)) -> (String, types::Parameter) {
    let value = match value {
        Parameter::Bool(value) => types::Parameter::Boolean(value),
        Parameter::Int(value) => types::Parameter::Integer(value),
        Parameter::Float(value) => types::Parameter::Float(value),
        Parameter::Text(value) => types::Parameter::Text(value),
    };
    (name, value)
}
