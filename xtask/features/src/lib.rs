//! No code: the features that the whole workspace uses, see `.config/hakari.toml`.
