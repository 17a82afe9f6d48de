//! Tensors and graphs without a host. Tensors obey the host's rules, so that a handler
//! which passes its tests natively meets no new errors inside WebAssembly.

use std::sync::Arc;

use crate::testing::{self, Run};
use crate::{Datatype, Error, Result, Tensors};

/// Most dimensions of a tensor, as in the host.
const MAX_RANK: usize = 16;

/// Most bytes of a tensor, as in the host.
const MAX_TENSOR_BYTES: u64 = 1 << 40;

/// A tensor in memory that clones share.
#[derive(Clone)]
pub(crate) struct Tensor {
    datatype: Datatype,
    shape: Arc<[u64]>,
    data: Arc<[u8]>,
}

/// A graph of this thread's [`testing::Graphs`].
pub(crate) struct Graph(Run);

// === impl Tensor ===

impl Tensor {
    pub(crate) fn new(datatype: Datatype, shape: &[u64], data: &[u8]) -> Result<Self> {
        let count = element_count(datatype, shape)?;
        match datatype.size() {
            Some(size) => {
                let want = count * size as u64;
                if want != data.len() as u64 {
                    return Err(Error::bad_input(format_args!(
                        "shape {shape:?} of {datatype} needs {want} bytes, and {} were given",
                        data.len()
                    )));
                }
            }
            None => check_strings(shape, count, data)?,
        }
        if datatype == Datatype::Bool
            && let Some(value) = data.iter().find(|&&byte| byte > 1)
        {
            return Err(Error::bad_input(format_args!(
                "BOOL data holds the byte {value}; only 0 and 1 are allowed"
            )));
        }
        Ok(Self { datatype, shape: shape.into(), data: data.into() })
    }

    pub(crate) fn datatype(&self) -> Datatype {
        self.datatype
    }

    pub(crate) fn shape(&self) -> Vec<u64> {
        self.shape.to_vec()
    }

    pub(crate) fn byte_size(&self) -> u64 {
        self.data.len() as u64
    }

    pub(crate) fn read(&self, offset: u64, len: u64) -> Vec<u8> {
        let size = self.byte_size();
        let start = offset.min(size);
        let end = start + len.min(size - start);
        // Both are at most the data's length, which is a `usize`.
        self.data[start as usize..end as usize].to_vec()
    }

    pub(crate) fn duplicate(&self) -> Self {
        self.clone()
    }
}

// === impl Graph ===

impl Graph {
    pub(crate) fn load(name: &str) -> Result<Self> {
        testing::find(name).map(Self)
    }

    pub(crate) fn run(&self, _name: &str, inputs: Tensors) -> Result<Tensors> {
        self.0(&inputs)
    }
}

impl std::fmt::Debug for Graph {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Graph")
    }
}

fn element_count(datatype: Datatype, shape: &[u64]) -> Result<u64> {
    if shape.len() > MAX_RANK {
        return Err(Error::bad_input(format_args!(
            "a shape of {} dimensions; at most {MAX_RANK} are allowed",
            shape.len()
        )));
    }
    // A zero must not hide an overflow of the other dimensions.
    let size = datatype.size().unwrap_or(4) as u64;
    let bound = shape.iter().try_fold(size, |total, &dim| total.checked_mul(dim.max(1)));
    match bound {
        Some(total) if total <= MAX_TENSOR_BYTES => Ok(shape.iter().product()),
        _ => Err(Error::bad_input(format_args!("shape {shape:?} of {datatype} is too large"))),
    }
}

fn check_strings(shape: &[u64], count: u64, data: &[u8]) -> Result<()> {
    let broken = |how| Error::bad_input(format_args!("BYTES data of shape {shape:?} {how}"));
    let mut rest = data;
    for _ in 0..count {
        let (len, tail) = rest.split_first_chunk::<4>().ok_or_else(|| broken("breaks off"))?;
        rest = tail.get(u32::from_le_bytes(*len) as usize..).ok_or_else(|| broken("breaks off"))?;
    }
    if rest.is_empty() { Ok(()) } else { Err(broken("is too long")) }
}
