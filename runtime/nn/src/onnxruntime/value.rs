//! Tensors between wick and ONNX Runtime, without a copy where that is possible.
#![allow(unsafe_code, reason = "ort's safe API copies and locks; this is its C interface")]

use std::marker::PhantomData;
use std::ops::Range;
use std::ptr::{self, NonNull};
use std::slice;
use std::sync::Arc;

use bytes::Bytes;
use ort::memory::{Allocator, MemoryInfo};
use ort::session::SharedSessionInner;
use ort::sys::{ONNXTensorElementDataType as Onnx, OrtValue};
use ort::value::TensorElementType;
use ort::{AsPointer as _, ortsys};
use wick_package::Datatype;

use crate::tensor::{Shape, Tensor};

/// An ONNX Runtime value that we own.
pub(super) struct Value(NonNull<OrtValue>);

/// A value over the memory of a tensor, which it must not outlive.
pub(super) struct Borrowed<'t> {
    value: Value,
    tensor: PhantomData<&'t Tensor>,
}

/// The memory of an output.
//
// Invariant: data and len describe memory that the value holds, that nobody writes
// to any more, and that stays where it is as long as the value and the session
// live. Field order: the value goes before the session that made it.
struct Memory {
    data: NonNull<u8>,
    len: usize,
    _value: Value,
    _session: Arc<SharedSessionInner>,
}

// SAFETY: an OrtValue is a reference-counted handle without thread affinity; we
// only read what it holds, and release it once.
unsafe impl Send for Value {}
// SAFETY: as above; `&Value` gives no way to write.
unsafe impl Sync for Value {}
// SAFETY: the memory is only read, see the invariant.
unsafe impl Send for Memory {}
// SAFETY: as above.
unsafe impl Sync for Memory {}

/// Our datatype for ONNX Runtime's; none for what the protocol lacks.
pub(super) fn datatype(element: TensorElementType) -> Option<Datatype> {
    Some(match element {
        TensorElementType::Bool => Datatype::Bool,
        TensorElementType::Uint8 => Datatype::Uint8,
        TensorElementType::Uint16 => Datatype::Uint16,
        TensorElementType::Uint32 => Datatype::Uint32,
        TensorElementType::Uint64 => Datatype::Uint64,
        TensorElementType::Int8 => Datatype::Int8,
        TensorElementType::Int16 => Datatype::Int16,
        TensorElementType::Int32 => Datatype::Int32,
        TensorElementType::Int64 => Datatype::Int64,
        TensorElementType::Float16 => Datatype::Fp16,
        TensorElementType::Bfloat16 => Datatype::Bf16,
        TensorElementType::Float32 => Datatype::Fp32,
        TensorElementType::Float64 => Datatype::Fp64,
        TensorElementType::String => Datatype::Bytes,
        _ => return None,
    })
}

fn onnx(datatype: Datatype) -> Onnx {
    match datatype {
        Datatype::Bool => Onnx::ONNX_TENSOR_ELEMENT_DATA_TYPE_BOOL,
        Datatype::Uint8 => Onnx::ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT8,
        Datatype::Uint16 => Onnx::ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT16,
        Datatype::Uint32 => Onnx::ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT32,
        Datatype::Uint64 => Onnx::ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT64,
        Datatype::Int8 => Onnx::ONNX_TENSOR_ELEMENT_DATA_TYPE_INT8,
        Datatype::Int16 => Onnx::ONNX_TENSOR_ELEMENT_DATA_TYPE_INT16,
        Datatype::Int32 => Onnx::ONNX_TENSOR_ELEMENT_DATA_TYPE_INT32,
        Datatype::Int64 => Onnx::ONNX_TENSOR_ELEMENT_DATA_TYPE_INT64,
        Datatype::Fp16 => Onnx::ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT16,
        Datatype::Bf16 => Onnx::ONNX_TENSOR_ELEMENT_DATA_TYPE_BFLOAT16,
        Datatype::Fp32 => Onnx::ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT,
        Datatype::Fp64 => Onnx::ONNX_TENSOR_ELEMENT_DATA_TYPE_DOUBLE,
        Datatype::Bytes => Onnx::ONNX_TENSOR_ELEMENT_DATA_TYPE_STRING,
    }
}

// === impl Borrowed ===

impl<'t> Borrowed<'t> {
    /// A value that reads the tensor's own memory; strings are copied.
    pub(super) fn new(tensor: &'t Tensor, memory: &MemoryInfo<'_>) -> ort::Result<Self> {
        let shape = tensor.shape().iter().map(|&size| i64::try_from(size));
        let shape: smallvec::SmallVec<[i64; 6]> =
            shape.collect::<Result<_, _>>().map_err(ort::Error::wrap)?;
        let value = if tensor.datatype() == Datatype::Bytes {
            string_value(tensor, &shape)?
        } else {
            let data = tensor.data();
            let mut value = ptr::null_mut();
            // SAFETY: the memory lives as long as `'t`, is aligned to its elements
            // and as long as shape and datatype say, which `Tensor` guarantees.
            // ONNX Runtime never writes to inputs.
            ortsys![unsafe CreateTensorWithDataAsOrtValue(
                memory.ptr(),
                data.as_ptr().cast_mut().cast(),
                data.len(),
                shape.as_ptr(),
                shape.len(),
                onnx(tensor.datatype()),
                &mut value
            )?];
            Value::own(value)?
        };
        Ok(Self { value, tensor: PhantomData })
    }

    pub(super) fn as_ptr(&self) -> *const OrtValue {
        self.value.0.as_ptr()
    }
}

fn string_value(tensor: &Tensor, shape: &[i64]) -> ort::Result<Value> {
    let mut value = ptr::null_mut();
    let allocator = Allocator::default();
    // SAFETY: the pointers are valid for the call, and the shape has that length.
    ortsys![unsafe CreateTensorAsOrtValue(
        allocator.ptr().cast_mut(),
        shape.as_ptr(),
        shape.len(),
        onnx(Datatype::Bytes),
        &mut value
    )?];
    let value = Value::own(value)?;
    for (index, text) in tensor.strings().into_iter().flatten().enumerate() {
        let mut buffer = ptr::null_mut();
        // SAFETY: the tensor has as many elements as its shape says, so the index
        // is in range.
        ortsys![unsafe GetResizedStringTensorElementBuffer(
            value.0.as_ptr(),
            index,
            text.len(),
            &mut buffer
        )?];
        // SAFETY: the buffer was just made `text.len()` bytes long.
        unsafe { ptr::copy_nonoverlapping(text.as_ptr(), buffer.cast(), text.len()) };
    }
    Ok(value)
}

// === impl Value ===

impl Value {
    /// Take ownership of what a function of ONNX Runtime returned.
    pub(super) fn own(value: *mut OrtValue) -> ort::Result<Self> {
        NonNull::new(value).map(Self).ok_or_else(|| ort::Error::new("it returned no value"))
    }

    /// The output as a tensor over ONNX Runtime's own memory. What is only an
    /// input handed through is copied: its memory goes away with the request.
    pub(super) fn into_tensor(
        self,
        session: &Arc<SharedSessionInner>,
        inputs: &[Tensor],
    ) -> ort::Result<Tensor> {
        let (datatype, shape) = self.kind()?;
        if datatype == Datatype::Bytes {
            return self.strings(&shape);
        }
        let size = datatype.size().unwrap_or(1);
        let count = crate::tensor::element_count(datatype, &shape).map_err(ort::Error::wrap)?;
        let len = usize::try_from(count).map_err(ort::Error::wrap)? * size;
        let mut data = ptr::null_mut();
        // SAFETY: the value is a tensor, as `kind` has found.
        ortsys![unsafe GetTensorMutableData(self.0.as_ptr(), &mut data)?];
        let bytes = match NonNull::new(data.cast::<u8>()) {
            Some(data) if len > 0 => {
                if inputs.iter().any(|input| range(input).contains(&(data.as_ptr() as usize))) {
                    // SAFETY: a tensor holds as many bytes as its kind says.
                    Bytes::copy_from_slice(unsafe { slice::from_raw_parts(data.as_ptr(), len) })
                } else {
                    let session = Arc::clone(session);
                    let memory = Memory { data, len, _value: self, _session: session };
                    Bytes::from_owner(memory)
                }
            }
            _ => Bytes::new(),
        };
        Tensor::new(datatype, &shape, bytes).map_err(ort::Error::wrap)
    }

    fn kind(&self) -> ort::Result<(Datatype, Shape)> {
        let mut is_tensor = 0;
        // SAFETY: the value is valid.
        ortsys![unsafe IsTensor(self.0.as_ptr(), &mut is_tensor)?];
        if is_tensor == 0 {
            return Err(ort::Error::new("an output is no tensor"));
        }
        let (mut element, mut dims, mut rank) =
            (Onnx::ONNX_TENSOR_ELEMENT_DATA_TYPE_UNDEFINED, ptr::null(), 0);
        // SAFETY: the value is a tensor.
        ortsys![unsafe GetTensorElementTypeAndShapeDataReference(
            self.0.as_ptr(),
            &mut element,
            &mut dims,
            &mut rank
        )?];
        let dims = if rank == 0 {
            &[]
        } else {
            // SAFETY: the value holds `rank` sizes there, as long as it lives.
            unsafe { slice::from_raw_parts(dims, rank) }
        };
        let shape = dims.iter().map(|&size| u64::try_from(size)).collect::<Result<_, _>>();
        let datatype = datatype(element.into())
            .ok_or_else(|| ort::Error::new(format!("an output has the type {element:?}")))?;
        Ok((datatype, shape.map_err(ort::Error::wrap)?))
    }

    fn strings(&self, shape: &[u64]) -> ort::Result<Tensor> {
        let count = crate::tensor::element_count(Datatype::Bytes, shape);
        let count = usize::try_from(count.map_err(ort::Error::wrap)?).map_err(ort::Error::wrap)?;
        let mut len = 0;
        // SAFETY: the value is a tensor of strings.
        ortsys![unsafe GetStringTensorDataLength(self.0.as_ptr(), &mut len)?];
        let (mut text, mut offsets) = (vec![0_u8; len], vec![0_usize; count]);
        // SAFETY: both buffers have the lengths that are passed.
        ortsys![unsafe GetStringTensorContent(
            self.0.as_ptr(),
            text.as_mut_ptr().cast(),
            len,
            offsets.as_mut_ptr(),
            count
        )?];
        let ends = offsets.iter().skip(1).copied().chain([len]);
        let parts = offsets.iter().zip(ends).map(|(&start, end)| text.get(start..end));
        let parts: Option<Vec<&[u8]>> = parts.collect();
        let parts = parts.ok_or_else(|| ort::Error::new("an output's strings overlap"))?;
        Tensor::from_strings(shape, &parts).map_err(ort::Error::wrap)
    }
}

impl Drop for Value {
    fn drop(&mut self) {
        // SAFETY: we own the value and release it once.
        ortsys![unsafe ReleaseValue(self.0.as_ptr())];
    }
}

/// The addresses of a tensor's memory.
fn range(tensor: &Tensor) -> Range<usize> {
    let data = tensor.data().as_ptr_range();
    data.start as usize..data.end as usize
}

// === impl Memory ===

impl AsRef<[u8]> for Memory {
    fn as_ref(&self) -> &[u8] {
        // SAFETY: see the invariant.
        unsafe { slice::from_raw_parts(self.data.as_ptr(), self.len) }
    }
}
