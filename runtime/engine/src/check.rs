//! Requests and answers against what a package says of them. Pure: no guest runs.

use wick_nn::Tensor;
use wick_package::TensorSpec;

use crate::error::InferError;

/// Longest part of a caller's name that an error repeats.
const MAX_QUOTED: usize = 64;

/// Check the inputs of a request: each known input once, and no other.
///
/// # Errors
/// Names the input and what is wrong with it.
pub(crate) fn inputs(specs: &[TensorSpec], given: &[(String, Tensor)]) -> Result<(), InferError> {
    let bad = |text: String| Err(InferError::BadInput(text));
    for (index, (name, tensor)) in given.iter().enumerate() {
        let Some(spec) = specs.iter().find(|spec| spec.name == *name) else {
            return bad(format!("there is no input `{}`; {}", quoted(name), list(specs, "inputs")));
        };
        if given[..index].iter().any(|(other, _)| other == name) {
            return bad(format!("input `{name}` is given twice"));
        }
        if let Err(error) = spec.check(tensor.datatype(), tensor.shape()) {
            return bad(format!("input {error}"));
        }
    }
    // Names are known and differ, so equal numbers mean that all are there.
    if given.len() == specs.len() {
        return Ok(());
    }
    let missing = specs.iter().find(|spec| given.iter().all(|(name, _)| *name != spec.name));
    let missing = missing.map_or("?", |spec| spec.name.as_str());
    bad(format!("input `{missing}` is missing; {}", list(specs, "inputs")))
}

/// Check the names of the outputs that a caller asks for.
///
/// # Errors
/// Names the output that does not exist or is asked for twice.
pub(crate) fn wanted(specs: &[TensorSpec], wanted: &[String]) -> Result<(), InferError> {
    for (index, name) in wanted.iter().enumerate() {
        if specs.iter().all(|spec| spec.name != *name) {
            return Err(InferError::BadInput(format!(
                "there is no output `{}`; {}",
                quoted(name),
                list(specs, "outputs")
            )));
        }
        if wanted[..index].contains(name) {
            return Err(InferError::BadInput(format!("output `{name}` is asked for twice")));
        }
    }
    Ok(())
}

/// Check what came back, and keep what was asked for (everything if `wanted` is
/// empty), in the order of `wanted` or of the package.
///
/// # Errors
/// Says what is wrong with the answer.
pub(crate) fn outputs(
    specs: &[TensorSpec],
    wanted: &[String],
    mut returned: Vec<(String, Tensor)>,
) -> Result<Vec<(String, Tensor)>, String> {
    for (index, (name, tensor)) in returned.iter().enumerate() {
        let Some(spec) = specs.iter().find(|spec| spec.name == *name) else {
            return Err(format!(
                "it returned an output `{}`, and the package has none of that name; {}",
                quoted(name),
                list(specs, "outputs")
            ));
        };
        if returned[..index].iter().any(|(other, _)| other == name) {
            return Err(format!("it returned the output `{name}` twice"));
        }
        spec.check(tensor.datatype(), tensor.shape())
            .map_err(|error| format!("it returned a wrong output: {error}"))?;
    }
    let mut take = |name: &str| {
        let index = returned.iter().position(|(other, _)| other == name);
        let index = index.ok_or_else(|| format!("it did not return the output `{name}`"))?;
        Ok(returned.swap_remove(index))
    };
    if wanted.is_empty() {
        specs.iter().map(|spec| take(&spec.name)).collect()
    } else {
        wanted.iter().map(|name| take(name)).collect()
    }
}

/// A name from outside, short enough for a message.
pub(crate) fn quoted(name: &str) -> String {
    let mut text: String = name.chars().take(MAX_QUOTED).flat_map(char::escape_debug).collect();
    if name.chars().nth(MAX_QUOTED).is_some() {
        text.push('…');
    }
    text
}

fn list(specs: &[TensorSpec], what: &str) -> String {
    let names: Vec<_> = specs.iter().map(|spec| format!("`{}`", spec.name)).collect();
    match names.as_slice() {
        [] => format!("the model has no {what}"),
        names => format!("the model's {what} are {}", names.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use wick_package::{Datatype, Dim};

    use super::*;

    fn specs() -> Vec<TensorSpec> {
        let spec = |name: &str, shape: &[Dim]| TensorSpec {
            name: name.into(),
            datatype: Datatype::Fp32,
            shape: shape.to_vec(),
        };
        vec![spec("a", &[Dim::Any, Dim::Fixed(2)]), spec("b", &[Dim::Fixed(1)])]
    }

    fn tensor(name: &str, shape: &[u64]) -> (String, Tensor) {
        (name.to_owned(), Tensor::zeros(Datatype::Fp32, shape).unwrap())
    }

    #[track_caller]
    fn refused(given: &[(String, Tensor)], want: &str) {
        let error = inputs(&specs(), given).unwrap_err().to_string();
        assert!(error.contains(want), "{error}");
    }

    #[test]
    fn inputs_are_complete_known_and_fit() {
        assert!(inputs(&specs(), &[tensor("b", &[1]), tensor("a", &[7, 2])]).is_ok());
        refused(&[tensor("a", &[7, 2])], "`b` is missing");
        refused(&[], "`a` is missing");
        refused(&[tensor("c", &[1])], "no input `c`; the model's inputs are `a`, `b`");
        refused(&[tensor("a", &[7, 2]), tensor("a", &[7, 2])], "`a` is given twice");
        refused(&[tensor("a", &[7, 3]), tensor("b", &[1])], "[-1, 2]");
        let wrong = ("b".to_owned(), Tensor::zeros(Datatype::Int32, &[1]).unwrap());
        refused(&[tensor("a", &[7, 2]), wrong], "INT32");
    }

    #[test]
    fn long_names_are_cut() {
        refused(&[tensor(&"x\n".repeat(10_000), &[1])], "\\n");
        let error = inputs(&specs(), &[tensor(&"x".repeat(10_000), &[1])]).unwrap_err();
        assert!(error.to_string().len() < 200);
    }

    #[test]
    fn asked_for_outputs_exist() {
        assert!(wanted(&specs(), &["b".into()]).is_ok());
        assert!(wanted(&specs(), &["c".into()]).is_err());
        assert!(wanted(&specs(), &["b".into(), "b".into()]).is_err());
    }

    #[test]
    fn answers_are_checked_and_filtered() {
        let answer = || vec![tensor("b", &[1]), tensor("a", &[1, 2])];
        let names = |wanted: &[String]| -> Vec<_> {
            outputs(&specs(), wanted, answer()).unwrap().into_iter().map(|(name, _)| name).collect()
        };
        assert_eq!(names(&[]), ["a", "b"]);
        assert_eq!(names(&["b".into()]), ["b"]);
        let wrong = [
            (vec![tensor("b", &[1])], "did not return the output `a`"),
            (vec![tensor("c", &[1])], "output `c`"),
            (vec![tensor("b", &[1]), tensor("b", &[1])], "`b` twice"),
            (vec![tensor("b", &[2])], "wrong output"),
        ];
        for (answer, want) in wrong {
            let error = outputs(&specs(), &[], answer).unwrap_err();
            assert!(error.contains(want), "{error}");
        }
    }
}
