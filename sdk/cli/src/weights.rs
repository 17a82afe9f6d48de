//! Models that keep weights in files beside themselves. An image has the files that the `wick.toml`
//! names, and no others: such a model would lose its weights in it.
//!
//! What the model is otherwise is for who loads it to say.

use std::path::Path;

use wick_import::{ModelError, external_files};
use wick_package::{Blob, FileRole, Package};

use crate::exit::Exit;
use crate::failure::{Failure, Outcome};

/// Refuse a package that can't become an image as a whole.
///
/// # Errors
/// A model has weights in another file.
pub fn check_packable(package: &Package) -> Outcome {
    check(package, |_, _| false)
}

/// Refuse a package that can't be run from where it is: files beside a model are there in a
/// directory, and in no image.
///
/// # Errors
/// A model has weights in a file that is not there.
pub fn check_runnable(package: &Package) -> Outcome {
    check(package, |model, file| {
        let folder = model.path.parent().unwrap_or_else(|| Path::new(""));
        model.offset == 0 && folder.join(file).is_file()
    })
}

fn check(package: &Package, is_well: impl Fn(&Blob, &str) -> bool) -> Outcome {
    let files = package.manifest().files().into_iter();
    for model in files.filter(|file| file.role == FileRole::Weights) {
        let Ok(blob) = package.file(model.path) else { continue };
        let Ok(reader) = blob.open() else { continue };
        let outside = match external_files(reader) {
            Ok(files) => files.iter().find(|file| !is_well(&blob, file.as_str())).map(|file| {
                format!("the model `{}` has weights in another file, `{file}`", model.path)
            }),
            Err(error @ (ModelError::Outside { .. } | ModelError::External { .. })) => {
                Some(format!("the model `{}`: {error}", model.path))
            }
            Err(_) => None,
        };
        if let Some(text) = outside {
            let help = format!(
                "an image has models of one file: make one with `wick import`, or with \
                 `python3 -c \"import onnx; onnx.save(onnx.load('{0}'), '{0}')\"`; a model with \
                 more than 2 GiB can't be one file, and runs from a directory only",
                model.path
            );
            return Err(Failure::new(Exit::BadData, "weights-elsewhere", text).help(help));
        }
    }
    Ok(())
}
