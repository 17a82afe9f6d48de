//! What happens before and after the model: four scores in, a label out.

use wick_guest::{Error, Response, Result, Tensor, graph, handler};

/// What the model's classes are called.
const LABELS: [&str; 4] = ["north", "east", "south", "west"];

/// Answer one request. The argument is the input of the same name in wick.toml.
///
/// # Errors
/// `Error::bad_input` becomes status 400; every other error is status 500.
#[handler]
pub fn infer(scores: Tensor) -> Result<Response> {
    let values: Vec<f32> = scores.to_vec()?;
    if values.iter().any(|value| !value.is_finite()) {
        return Err(Error::bad_input("scores must be finite numbers"));
    }

    let out = graph("model")?.run([("x", Tensor::new(&[1, 4], values)?)])?;
    let probabilities: Vec<f32> = out.get("y")?.to_vec()?;

    let classes = LABELS.into_iter().zip(probabilities);
    let best = classes.max_by(|(_, a), (_, b)| a.total_cmp(b));
    let (label, probability) = best.ok_or_else(|| Error::internal("the model said nothing"))?;
    Ok(Response::new()
        .output("label", Tensor::from_strings(&[1], &[label])?)
        .output("probability", Tensor::new(&[1], [probability])?))
}

#[cfg(test)]
mod tests {
    use wick_guest::Tensors;
    use wick_guest::testing::Graphs;

    use super::*;

    #[test]
    fn the_most_probable_class_is_the_answer() {
        let graphs = Graphs::new().fake("model", |inputs| {
            assert_eq!(inputs.get("x")?.shape(), [1, 4]);
            let y = Tensor::new(&[1, 4], [0.1_f32, 0.7, 0.1, 0.1])?;
            Ok(Tensors::new().with("y", y))
        });
        let _installed = graphs.install();

        let scores = Tensor::new(&[4], [0.0_f32, 2.0, 0.0, 0.0]).unwrap();
        let answer = infer(scores).unwrap();
        assert_eq!(answer.get("probability").unwrap().to_vec::<f32>().unwrap(), [0.7]);
        assert_eq!(answer.get("label").unwrap().to_strings().unwrap(), ["east"]);
    }

    #[test]
    fn odd_scores_are_the_callers_mistake() {
        let scores = Tensor::new(&[4], [f32::NAN, 0.0, 0.0, 0.0]).unwrap();
        assert_eq!(infer(scores).unwrap_err().kind(), wick_guest::ErrorKind::BadInput);
    }
}
