//! `wick:model/types`: tensors of every Open Inference datatype, whose bytes enter
//! the guest only when it reads them.

use bytes::Bytes;
use wasmtime::component::Resource;
use wick_nn::Tensor;

use crate::account::AccountError;
use crate::bindings::wick::model::types::{
    Datatype, Error, Host, HostTensor as Methods, Parameter,
};
use crate::host::{Held, HostTensor, NnTensor, tensor_type};
use crate::state::{MAX_RESOURCES, State};

impl Host for State {}

impl Methods for State {
    fn new(
        &mut self,
        datatype: Datatype,
        shape: Vec<u64>,
        data: Vec<u8>,
    ) -> wasmtime::Result<Result<Resource<HostTensor>, Error>> {
        let tensor = match Tensor::new(datatype.into(), &shape, Bytes::from(data)) {
            Ok(tensor) => tensor,
            Err(error) => return Ok(Err(Error::BadInput(error.to_string()))),
        };
        Ok(match Held::made(tensor, &self.account) {
            Ok(held) => self.push(held),
            Err(error) => Err(error.into()),
        })
    }

    fn datatype(&mut self, tensor: Resource<HostTensor>) -> wasmtime::Result<Datatype> {
        Ok(self.table.get(&tensor)?.0.tensor.datatype().into())
    }

    fn shape(&mut self, tensor: Resource<HostTensor>) -> wasmtime::Result<Vec<u64>> {
        Ok(self.table.get(&tensor)?.0.tensor.shape().to_vec())
    }

    fn byte_size(&mut self, tensor: Resource<HostTensor>) -> wasmtime::Result<u64> {
        Ok(self.table.get(&tensor)?.0.tensor.data().len() as u64)
    }

    fn read(
        &mut self,
        tensor: Resource<HostTensor>,
        offset: u64,
        len: u64,
    ) -> wasmtime::Result<Vec<u8>> {
        let data = self.table.get(&tensor)?.0.tensor.data();
        let clamp = |at: u64| usize::try_from(at).unwrap_or(usize::MAX).min(data.len());
        Ok(data[clamp(offset)..clamp(offset.saturating_add(len))].to_vec())
    }

    fn clone(&mut self, tensor: Resource<HostTensor>) -> wasmtime::Result<Resource<HostTensor>> {
        let held = self.table.get(&tensor)?.0.clone();
        Ok(self.table.push(HostTensor(held))?)
    }

    fn to_nn(
        &mut self,
        tensor: Resource<HostTensor>,
    ) -> wasmtime::Result<Result<Resource<NnTensor>, Error>> {
        let held = self.table.get(&tensor)?.0.clone();
        let datatype = held.tensor.datatype();
        if tensor_type(datatype).is_none() {
            return Ok(Err(Error::BadInput(format!(
                "wasi:nn has no datatype {datatype}; convert the tensor first"
            ))));
        }
        Ok(match NnTensor::new(held) {
            Ok(tensor) => self.table.push(tensor).map_err(|_| full()),
            Err(reason) => Err(Error::BadInput(reason)),
        })
    }

    fn from_nn(
        &mut self,
        tensor: Resource<NnTensor>,
    ) -> wasmtime::Result<Result<Resource<HostTensor>, Error>> {
        Ok(match self.table.get(&tensor)?.held() {
            Ok(held) => {
                let held = held.clone();
                self.push(held)
            }
            Err(reason) => Err(Error::BadInput(reason)),
        })
    }

    fn drop(&mut self, tensor: Resource<HostTensor>) -> wasmtime::Result<()> {
        self.table.delete(tensor)?;
        Ok(())
    }
}

impl State {
    fn push(&mut self, held: Held) -> Result<Resource<HostTensor>, Error> {
        self.table.push(HostTensor(held)).map_err(|_| full())
    }
}

fn full() -> Error {
    Error::TooLarge(format!("the handler holds {MAX_RESOURCES} resources, and may not hold more"))
}

impl From<AccountError> for Error {
    fn from(error: AccountError) -> Self {
        Self::TooLarge(error.to_string())
    }
}

macro_rules! datatypes {
    ($($wit:ident = $host:ident),* $(,)?) => {
        impl From<Datatype> for wick_package::Datatype {
            fn from(datatype: Datatype) -> Self {
                match datatype { $(Datatype::$wit => Self::$host,)* }
            }
        }

        impl From<wick_package::Datatype> for Datatype {
            fn from(datatype: wick_package::Datatype) -> Self {
                match datatype { $(wick_package::Datatype::$host => Self::$wit,)* }
            }
        }
    };
}

datatypes! {
    BoolType = Bool, Uint8 = Uint8, Uint16 = Uint16, Uint32 = Uint32, Uint64 = Uint64,
    Int8 = Int8, Int16 = Int16, Int32 = Int32, Int64 = Int64,
    Fp16 = Fp16, Bf16 = Bf16, Fp32 = Fp32, Fp64 = Fp64, Bytes = Bytes,
}

impl From<crate::Parameter> for Parameter {
    fn from(parameter: crate::Parameter) -> Self {
        match parameter {
            crate::Parameter::Bool(value) => Self::Boolean(value),
            crate::Parameter::Int(value) => Self::Integer(value),
            crate::Parameter::Float(value) => Self::Float(value),
            crate::Parameter::Text(value) => Self::Text(value),
        }
    }
}

impl From<Parameter> for crate::Parameter {
    fn from(parameter: Parameter) -> Self {
        match parameter {
            Parameter::Boolean(value) => Self::Bool(value),
            Parameter::Integer(value) => Self::Int(value),
            Parameter::Float(value) => Self::Float(value),
            Parameter::Text(value) => Self::Text(value),
        }
    }
}
