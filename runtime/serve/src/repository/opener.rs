//! How packages are opened, which a host may put a policy before.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use wick_package::{OpenError, Package};

type Open = dyn Fn(&Path) -> Result<Package, OpenError> + Send + Sync;

/// Opens packages, at the first load and at each reload. It may block.
#[derive(Clone)]
pub struct Opener(Arc<Open>);

// === impl Opener ===

impl Opener {
    pub fn new(open: impl Fn(&Path) -> Result<Package, OpenError> + Send + Sync + 'static) -> Self {
        Self(Arc::new(open))
    }

    pub(super) fn open(&self, path: &Path) -> Result<Package, OpenError> {
        (self.0)(path)
    }
}

impl Default for Opener {
    fn default() -> Self {
        Self::new(Package::open)
    }
}

impl fmt::Debug for Opener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Opener")
    }
}
