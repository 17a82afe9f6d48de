//! `wasi:nn/tensor`: seven datatypes, 32-bit dimensions, and a constructor that
//! can't fail, so that a tensor whose length is wrong is found out when it is used.

use std::sync::Arc;

use bytes::Bytes;
use wasmtime::component::Resource;
use wick_nn::Tensor;
use wick_package::Datatype;

use crate::account::Charge;
use crate::bindings::wasi::nn::errors::ErrorCode;
use crate::bindings::wasi::nn::tensor::{Host, HostTensor as Methods, TensorType};
use crate::host::{Held, NnError};
use crate::state::State;

/// A tensor of `wasi:nn`.
pub struct NnTensor(Form);

enum Form {
    Checked(Held),
    /// Bytes that don't fit the dimensions, as the guest gave them.
    Mismatched {
        dimensions: Vec<u32>,
        ty: TensorType,
        data: Bytes,
        reason: String,
        _charge: Arc<Charge>,
    },
}

// === impl NnTensor ===

impl NnTensor {
    /// A tensor whose dimensions fit 32 bits.
    ///
    /// # Errors
    /// They don't.
    pub(crate) fn new(held: Held) -> Result<Self, String> {
        match held.tensor.shape().iter().find(|&&dim| u32::try_from(dim).is_err()) {
            Some(dim) => Err(format!("the dimension {dim} is over 32 bits, which wasi:nn has")),
            None => Ok(Self(Form::Checked(held))),
        }
    }

    /// The tensor, if its length fits its dimensions.
    ///
    /// # Errors
    /// Says how many bytes the dimensions need.
    pub(crate) fn held(&self) -> Result<&Held, String> {
        match &self.0 {
            Form::Checked(held) => Ok(held),
            Form::Mismatched { reason, .. } => Err(reason.clone()),
        }
    }
}

impl Host for State {}

impl Methods for State {
    fn new(
        &mut self,
        dimensions: Vec<u32>,
        ty: TensorType,
        data: Vec<u8>,
    ) -> wasmtime::Result<Resource<NnTensor>> {
        let data = Bytes::from(data);
        let charge = self.account.charge(data.len() as u64)?;
        let shape: Vec<u64> = dimensions.iter().map(|&dim| u64::from(dim)).collect();
        let form = match Tensor::new(datatype(ty), &shape, data.clone()) {
            Ok(tensor) => Form::Checked(Held { tensor, charge: Some(charge) }),
            Err(error) => Form::Mismatched {
                dimensions,
                ty,
                data,
                reason: error.to_string(),
                _charge: charge,
            },
        };
        Ok(self.table.push(NnTensor(form))?)
    }

    fn dimensions(&mut self, tensor: Resource<NnTensor>) -> wasmtime::Result<Vec<u32>> {
        Ok(match &self.table.get(&tensor)?.0 {
            Form::Checked(held) => {
                let dims = held.tensor.shape().iter();
                dims.map(|&dim| u32::try_from(dim).unwrap_or(u32::MAX)).collect()
            }
            Form::Mismatched { dimensions, .. } => dimensions.clone(),
        })
    }

    fn ty(&mut self, tensor: Resource<NnTensor>) -> wasmtime::Result<TensorType> {
        match &self.table.get(&tensor)?.0 {
            Form::Checked(held) => {
                let datatype = held.tensor.datatype();
                tensor_type(datatype).ok_or_else(|| {
                    wasmtime::format_err!(
                        "a graph's output has datatype {datatype}, which wasi:nn does not know; \
                         read it by `wick:model` (`tensor.from-nn`)"
                    )
                })
            }
            Form::Mismatched { ty, .. } => Ok(*ty),
        }
    }

    fn data(&mut self, tensor: Resource<NnTensor>) -> wasmtime::Result<Vec<u8>> {
        Ok(match &self.table.get(&tensor)?.0 {
            Form::Checked(held) => held.tensor.data().to_vec(),
            Form::Mismatched { data, .. } => data.to_vec(),
        })
    }

    fn drop(&mut self, tensor: Resource<NnTensor>) -> wasmtime::Result<()> {
        self.table.delete(tensor)?;
        Ok(())
    }
}

impl From<String> for NnError {
    fn from(reason: String) -> Self {
        Self::new(ErrorCode::InvalidArgument, reason)
    }
}

/// The datatype of `wasi:nn` that carries `datatype`. BOOL is one byte an element,
/// as U8 is, so guests read it as that.
pub(crate) fn tensor_type(datatype: Datatype) -> Option<TensorType> {
    Some(match datatype {
        Datatype::Fp16 => TensorType::Fp16,
        Datatype::Fp32 => TensorType::Fp32,
        Datatype::Fp64 => TensorType::Fp64,
        Datatype::Bf16 => TensorType::Bf16,
        Datatype::Uint8 | Datatype::Bool => TensorType::U8,
        Datatype::Int32 => TensorType::I32,
        Datatype::Int64 => TensorType::I64,
        _ => return None,
    })
}

fn datatype(ty: TensorType) -> Datatype {
    match ty {
        TensorType::Fp16 => Datatype::Fp16,
        TensorType::Fp32 => Datatype::Fp32,
        TensorType::Fp64 => Datatype::Fp64,
        TensorType::Bf16 => Datatype::Bf16,
        TensorType::U8 => Datatype::Uint8,
        TensorType::I32 => Datatype::Int32,
        TensorType::I64 => Datatype::Int64,
    }
}
