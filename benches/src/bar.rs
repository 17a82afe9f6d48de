//! The line that a bar is reported by.

use serde_json::{Value, json};

/// Print one measured bar.
pub fn report(bar: &str, value: f64, unit: &str, detail: Value) {
    let value = (value * 1000.0).round() / 1000.0;
    println!("{}", json!({"bar": bar, "value": value, "unit": unit, "detail": detail}));
}
