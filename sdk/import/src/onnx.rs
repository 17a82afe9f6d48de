//! ONNX files as far as an import needs them: what goes in and out, and where the weights are.
//! Gigabytes of weights are passed over; no backend is asked, and none needs to be there.

mod inline;
mod model;
mod types;
mod walk;

pub use inline::{InlineError, MAX_INLINE, Plan};
pub use model::{Model, ModelError, external_files};
pub use types::{Declared, TypeError};
pub use walk::WalkError;
