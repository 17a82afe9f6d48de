//! Answers for people, and for programs.

use serde_json::{Map, Value, json};
use wick_engine::InferResponse;
use wick_nn::Tensor;
use wick_package::Datatype;

use crate::output;
use crate::tensor_json;
use crate::wire;

/// Elements that a table shows in full; of longer tensors it shows the largest.
const SHOWN: usize = 16;

/// Largest values that are listed of a long tensor: what one wants of a classifier.
const TOP: usize = 5;

/// Longest text of one element in a table, in characters.
const MAX_TEXT: usize = 200;

/// Most elements of which the largest are looked for; beyond it a table only begins.
const MAX_SCAN: u64 = 10_000_000;

/// The answer in the protocol's JSON, complete.
pub fn json(model: &str, response: &InferResponse) -> Value {
    let output = |(name, tensor): &(String, Tensor)| {
        json!({
            "name": name,
            "datatype": tensor.datatype(),
            "shape": tensor.shape(),
            "data": tensor_json::values(tensor),
        })
    };
    let outputs: Vec<_> = response.outputs.iter().map(output).collect();
    let mut json = json!({ "model_name": model, "outputs": outputs });
    if !response.parameters.is_empty() {
        let parameters = response.parameters.iter();
        let parameters: Map<_, _> =
            parameters.map(|(name, value)| (name.clone(), wire::to_json(value))).collect();
        json["parameters"] = parameters.into();
    }
    json
}

/// The answer as a table.
pub fn table(response: &InferResponse) -> String {
    let mut table = output::table(["OUTPUT", "TYPE", "SHAPE", "VALUE"]);
    for (name, tensor) in &response.outputs {
        let shape = format!("{:?}", tensor.shape());
        table.add_row([name.clone(), tensor.datatype().to_string(), shape, summary(tensor)]);
    }
    for (name, value) in &response.parameters {
        let value = wire::to_json(value).to_string();
        table.add_row([name.clone(), "parameter".to_owned(), String::new(), value]);
    }
    table.trim_fmt()
}

/// The bytes of the only output: elements of BYTES as they are, one after another.
pub fn raw(tensor: &Tensor) -> Vec<u8> {
    match tensor.strings() {
        Some(strings) => strings.flatten().copied().collect(),
        None => tensor.data().to_vec(),
    }
}

fn summary(tensor: &Tensor) -> String {
    let count = tensor.len();
    let scannable = tensor.datatype() != Datatype::Bytes && count <= MAX_SCAN;
    if count > SHOWN as u64 && scannable {
        return top(tensor);
    }
    let values = (0..SHOWN).map_while(tensor_json::elements(tensor));
    let mut text: Vec<_> = values.map(|value| plain(&value)).collect();
    if count > SHOWN as u64 {
        text.push(format!("… {} more", count - SHOWN as u64));
    }
    text.join(", ")
}

/// The largest values of a long tensor with their indices, and its range.
fn top(tensor: &Tensor) -> String {
    let values = (0..).map_while(tensor_json::elements(tensor));
    let numbers = values.map(|value| value.as_f64().unwrap_or(f64::NAN));
    let mut best: Vec<(usize, f64)> = Vec::with_capacity(TOP + 1);
    let mut least = f64::INFINITY;
    for (index, value) in numbers.enumerate().filter(|(_, value)| !value.is_nan()) {
        least = least.min(value);
        if best.len() < TOP || best.last().is_some_and(|(_, last)| value > *last) {
            let at = best.partition_point(|(_, other)| *other >= value);
            best.insert(at, (index, value));
            best.truncate(TOP);
        }
    }
    let lines = best.iter().map(|(index, value)| format!("[{index}] {value:.6}"));
    let mut lines: Vec<_> = lines.collect();
    lines.push(format!("top {} of {}; least {least:.6}", best.len(), tensor.len()));
    lines.join("\n")
}

/// An element without quotes, short, and without control characters.
fn plain(value: &Value) -> String {
    let text = match value {
        Value::String(text) => text.clone(),
        _ => value.to_string(),
    };
    let mut shown: String = text
        .chars()
        .take(MAX_TEXT)
        .map(|char| if char.is_control() && char != '\n' { '\u{fffd}' } else { char })
        .collect();
    if text.chars().nth(MAX_TEXT).is_some() {
        shown.push('…');
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_outputs_show_their_largest_values_first() {
        let values: Vec<f32> = (0..100).map(|i| if i == 7 { 0.9 } else { 0.001 }).collect();
        let text = summary(&Tensor::from_vec(&[1, 100], values).unwrap());
        assert!(text.starts_with("[7] 0.900000\n[0] 0.001000"), "{text}");
        assert!(text.ends_with("top 5 of 100; least 0.001000"), "{text}");
    }

    #[test]
    fn short_outputs_are_shown_in_full() {
        let tensor = Tensor::from_strings(&[2], &["cat\u{1b}[0m", "dog"]).unwrap();
        assert_eq!(summary(&tensor), "cat\u{fffd}[0m, dog");
        let tensor = Tensor::from_vec(&[2], vec![1_i32, -2]).unwrap();
        assert_eq!(summary(&tensor), "1, -2");
    }

    #[test]
    fn raw_strings_have_no_lengths_between_them() {
        let tensor = Tensor::from_strings(&[2], &["ab", "c"]).unwrap();
        assert_eq!(raw(&tensor), b"abc");
    }
}
