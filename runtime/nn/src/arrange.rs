//! Puts named inputs into the model's order and checks them.

use wick_package::{GraphName, TensorSpec};

use crate::error::InferError;
use crate::tensor::Tensor;

/// Inputs in the order of `specs`, each with the datatype and a shape that its
/// specification takes.
///
/// # Errors
/// [`InferError::BadInput`] naming the graph, the input, what came and what is
/// wanted.
pub(crate) fn arrange(
    graph: &GraphName,
    specs: &[TensorSpec],
    inputs: Vec<(String, Tensor)>,
) -> Result<Vec<Tensor>, InferError> {
    let bad = |text: String| InferError::BadInput(format!("graph `{graph}`: {text}"));
    let mut places: Vec<Option<Tensor>> = vec![None; specs.len()];
    for (name, tensor) in inputs {
        let place = specs.iter().position(|spec| spec.name == name).ok_or_else(|| {
            bad(format!("there is no input `{name}`; the model takes {}", names(specs)))
        })?;
        specs[place]
            .check(tensor.datatype(), tensor.shape())
            .map_err(|error| bad(format!("input {error}")))?;
        if places[place].replace(tensor).is_some() {
            return Err(bad(format!("input `{name}` is given twice")));
        }
    }
    let missing = |index: usize| bad(format!("input `{}` is missing", specs[index].name));
    let filled = places.into_iter().enumerate();
    filled.map(|(index, place)| place.ok_or_else(|| missing(index))).collect()
}

fn names(specs: &[TensorSpec]) -> String {
    let names: Vec<_> = specs.iter().map(|spec| format!("`{}`", spec.name)).collect();
    if names.is_empty() { "none".to_owned() } else { names.join(", ") }
}

#[cfg(test)]
mod tests {
    use wick_package::{Datatype, Dim};

    use super::*;

    fn check(inputs: &[(&str, &[f32])]) -> Result<Vec<Vec<f32>>, String> {
        let spec = |name: &str| TensorSpec {
            name: name.to_owned(),
            datatype: Datatype::Fp32,
            shape: vec![Dim::Fixed(2)],
        };
        let inputs = inputs.iter().map(|(name, values)| {
            let shape = [values.len() as u64];
            ((*name).to_owned(), Tensor::from_vec(&shape, values.to_vec()).unwrap())
        });
        let graph = "g".parse().unwrap();
        let arranged = arrange(&graph, &[spec("a"), spec("b")], inputs.collect());
        let arranged = arranged.map_err(|error| error.to_string())?;
        Ok(arranged.iter().map(|tensor| tensor.as_slice().unwrap().to_vec()).collect())
    }

    #[test]
    fn inputs_may_come_in_any_order() {
        let want = Ok(vec![vec![1.0, 2.0], vec![3.0, 4.0]]);
        assert_eq!(check(&[("b", &[3.0, 4.0]), ("a", &[1.0, 2.0])]), want);
    }

    #[test]
    fn every_mistake_names_the_input_and_what_is_wanted() {
        let a: (&str, &[f32]) = ("a", &[1.0, 2.0]);
        let cases = [
            (vec![a], "graph `g`: input `b` is missing"),
            (vec![a, a], "graph `g`: input `a` is given twice"),
            (vec![a, ("c", &[])], "graph `g`: there is no input `c`; the model takes `a`, `b`"),
            (vec![a, ("b", &[1.0])], "graph `g`: input `b` has shape [1], and the model takes [2]"),
        ];
        for (inputs, want) in cases {
            assert_eq!(check(&inputs), Err(want.to_owned()));
        }
    }
}
