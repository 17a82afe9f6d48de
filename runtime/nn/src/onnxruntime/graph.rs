//! A loaded graph and its inferences.
#![allow(unsafe_code, reason = "the C interface is the only way to run without a lock")]

use std::ffi::{CString, c_char};
use std::ptr;
use std::sync::Arc;

use ort::session::{RunOptions, Session as OrtSession};
use ort::value::{Outlet, ValueType};
use ort::{AsPointer as _, ortsys};
use smallvec::SmallVec;
use wick_package::{Dim, TensorSpec};

use super::NAME;
use super::library::Library;
use super::value::{Borrowed, Value, datatype};
use crate::backend::{Cancel, DeviceUse, Graph, GraphSource, Session};
use crate::error::{InferError, LoadError};
use crate::tensor::Tensor;

/// A graph on ONNX Runtime.
pub(super) struct OrtGraph {
    shared: Arc<Shared>,
}

struct Shared {
    name: String,
    library: Arc<Library>,
    session: OrtSession,
    inputs: Vec<TensorSpec>,
    outputs: Vec<TensorSpec>,
    input_names: Vec<CString>,
    output_names: Vec<CString>,
    device: DeviceUse,
}

/// Runs on the shared session; it has no state of its own.
struct Run {
    shared: Arc<Shared>,
}

/// Pointers of one side of a call; most models have few inputs and outputs.
type Pointers<T> = SmallVec<[T; 8]>;

// === impl OrtGraph ===

impl OrtGraph {
    pub(super) fn new(
        library: Arc<Library>,
        session: OrtSession,
        source: &GraphSource,
        device: DeviceUse,
    ) -> Result<Self, LoadError> {
        let specs = |outlets: &[Outlet], what| {
            outlets.iter().map(|outlet| spec(outlet, what, source)).collect::<Result<Vec<_>, _>>()
        };
        let inputs = specs(session.inputs(), "input")?;
        let outputs = specs(session.outputs(), "output")?;
        if let Some(name) = input_without_shape(&session) {
            let need = format!("a declared shape of input `{name}`");
            return Err(source.unsupported(need, "it has none: export it with shapes"));
        }
        let names = |specs: &[TensorSpec]| {
            specs.iter().map(|spec| CString::new(spec.name.as_str())).collect::<Result<Vec<_>, _>>()
        };
        let invalid = |_| source.invalid(NAME, "a name holds a zero byte");
        let (input_names, output_names) =
            (names(&inputs).map_err(invalid)?, names(&outputs).map_err(invalid)?);
        let name = source.name.to_string();
        let shared =
            Shared { name, library, session, inputs, outputs, input_names, output_names, device };
        Ok(Self { shared: Arc::new(shared) })
    }
}

fn spec(outlet: &Outlet, what: &str, source: &GraphSource) -> Result<TensorSpec, LoadError> {
    let name = outlet.name().to_owned();
    let ValueType::Tensor { ty, shape, .. } = outlet.dtype() else {
        let need = format!("tensors for inputs and outputs, and {what} `{name}` is none");
        return Err(source.unsupported(need, "wick has nothing else"));
    };
    let Some(datatype) = datatype(*ty) else {
        let need = format!("the type {ty} for {what} `{name}`");
        return Err(source.unsupported(need, "the Open Inference Protocol lacks it"));
    };
    let dims = shape.iter().map(|&size| u64::try_from(size).map_or(Dim::Any, Dim::Fixed));
    Ok(TensorSpec { name, datatype, shape: dims.collect() })
}

impl Graph for OrtGraph {
    fn inputs(&self) -> &[TensorSpec] {
        &self.shared.inputs
    }

    fn outputs(&self) -> &[TensorSpec] {
        &self.shared.outputs
    }

    fn device(&self) -> &DeviceUse {
        &self.shared.device
    }

    fn session(&self) -> Result<Box<dyn Session>, InferError> {
        Ok(Box::new(Run { shared: Arc::clone(&self.shared) }))
    }
}

// === impl Run ===

impl Session for Run {
    fn run(&mut self, inputs: &[Tensor], cancel: &Cancel) -> Result<Vec<Tensor>, InferError> {
        let failed = |error: ort::Error| InferError::Backend {
            graph: self.shared.name.clone(),
            backend: NAME.to_owned(),
            detail: error.message().trim().to_owned(),
        };
        let options = Arc::new(RunOptions::new().map_err(failed)?);
        let terminator = Arc::clone(&options);
        cancel.set_hook(move || _ = terminator.terminate());
        let result = self.shared.run(inputs, &options);
        cancel.clear_hook();
        match result {
            Err(_) if cancel.is_cancelled() => Err(InferError::Cancelled),
            result => result.map_err(failed),
        }
    }
}

// === impl Shared ===

impl Shared {
    fn run(&self, inputs: &[Tensor], options: &RunOptions) -> ort::Result<Vec<Tensor>> {
        debug_assert_eq!(inputs.len(), self.inputs.len(), "the caller has checked the inputs");
        let memory = &self.library.host_memory;
        let values = inputs.iter().map(|tensor| Borrowed::new(tensor, memory));
        let values: Pointers<Borrowed<'_>> = values.collect::<ort::Result<_>>()?;
        let pointers: Pointers<_> = values.iter().map(Borrowed::as_ptr).collect();
        let input_names: Pointers<*const c_char> =
            self.input_names.iter().map(|name| name.as_ptr()).collect();
        let output_names: Pointers<*const c_char> =
            self.output_names.iter().map(|name| name.as_ptr()).collect();
        let mut outputs: Pointers<_> = output_names.iter().map(|_| ptr::null_mut()).collect();
        // SAFETY: all arrays have the lengths that are passed and live through the
        // call; the inputs do, by `values`. `Run` may be called from any number of
        // threads on one session: ONNX Runtime documents it. Runs of a provider that
        // can't do two at once wait for each other inside of it.
        let status = unsafe {
            (ort::api().Run)(
                self.session.ptr().cast_mut(),
                options.ptr(),
                input_names.as_ptr(),
                pointers.as_ptr(),
                pointers.len(),
                output_names.as_ptr(),
                output_names.len(),
                outputs.as_mut_ptr(),
            )
        };
        // SAFETY: the status comes from the call and is consumed once.
        unsafe { ort::Error::result_from_status(status) }?;
        // All are owned before any is looked at, so that none leaks on an error.
        let outputs: Pointers<_> = outputs.into_iter().map(Value::own).collect();
        let session = self.session.inner();
        outputs.into_iter().map(|value| value?.into_tensor(&session, inputs)).collect()
    }
}

/// The first input that is declared without a shape, whose rank nobody knows.
fn input_without_shape(session: &OrtSession) -> Option<String> {
    let scalars = session.inputs().iter().enumerate().filter(
        |(_, outlet)| matches!(outlet.dtype(), ValueType::Tensor { shape, .. } if shape.is_empty()),
    );
    let mut unknown = scalars.filter(|(index, _)| !has_shape(session, *index).unwrap_or(true));
    unknown.next().map(|(_, outlet)| outlet.name().to_owned())
}

/// Whether the shape of an input is known; `ort` shows both as no dimensions.
fn has_shape(session: &OrtSession, index: usize) -> ort::Result<bool> {
    let mut info = ptr::null_mut();
    // SAFETY: the index is that of an input of the session.
    ortsys![unsafe SessionGetInputTypeInfo(session.ptr(), index, &mut info)?];
    let mut tensor = ptr::null();
    // SAFETY: `info` is what the call above has made.
    let cast = unsafe { (ort::api().CastTypeInfoToTensorInfo)(info, &mut tensor) };
    // SAFETY: the status comes from the call and is consumed once.
    let cast = unsafe { ort::Error::result_from_status(cast) };
    // SAFETY: a tensor's info that isn't null belongs to `info`, which still lives.
    let has = tensor.is_null() || unsafe { (ort::api().TensorTypeAndShape_HasShape)(tensor) };
    // SAFETY: `info` is ours and released once.
    unsafe { (ort::api().ReleaseTypeInfo)(info) };
    cast.map(|()| has)
}
