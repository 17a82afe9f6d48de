//! `MLmodel`, the YAML file that says what a model folder of MLflow holds. Pure.

use std::collections::BTreeMap;

use crate::error::ImportError;
use crate::format::Format;

/// Its name.
pub(crate) const FILE: &str = "MLmodel";

/// Longest file that is read. Signatures of wide tables take some hundred kilobytes.
pub(crate) const MAX_LEN: usize = 4 << 20;

/// MLflow's folder for the bytes of a model that does not say.
const DEFAULT_FILE: &str = "model.onnx";

#[derive(Debug, serde::Deserialize)]
struct MlModel {
    #[serde(default)]
    flavors: BTreeMap<String, Flavour>,
}

/// What a flavour says; every other key is for its own library.
#[derive(Debug, Default, serde::Deserialize)]
struct Flavour {
    data: Option<String>,
}

/// The ONNX file that the folder holds, relative to it.
///
/// # Errors
/// It is no `MLmodel`, or a model of another library: what converts it is said.
pub(crate) fn onnx_file(text: &str, place: &str) -> Result<String, ImportError> {
    let model: MlModel = serde_saphyr::from_str(text).map_err(|error| ImportError::Registry {
        place: place.to_owned(),
        system: "MLflow",
        why: format!("its {FILE} cannot be read: {error}"),
    })?;
    if let Some(onnx) = model.flavors.get("onnx") {
        return Ok(onnx.data.clone().unwrap_or_else(|| DEFAULT_FILE.to_owned()));
    }
    let names: Vec<&str> = model.flavors.keys().map(String::as_str).collect();
    let advice = names.iter().copied().find_map(advice);
    Err(ImportError::Flavour {
        place: place.to_owned(),
        flavours: if names.is_empty() { "none".to_owned() } else { names.join(", ") },
        advice: advice.unwrap_or(
            "log the model with `mlflow.onnx.log_model` after converting it to ONNX, and register \
             that",
        ),
    })
}

/// What converts a model of a flavour.
fn advice(flavour: &str) -> Option<&'static str> {
    Some(match flavour {
        "sklearn" => Format::ScikitLearn.advice(),
        "pytorch" => Format::PyTorch.advice(),
        "tensorflow" => Format::SavedModel.advice(),
        "keras" => Format::KerasZip.advice(),
        "xgboost" => Format::XgBoost.advice(),
        "lightgbm" => Format::LightGbm.advice(),
        "catboost" => Format::CatBoost.advice(),
        "paddle" => Format::Paddle.advice(),
        "transformers" | "sentence_transformers" => {
            "convert it: `optimum-cli export onnx --model DIR OUT`"
        }
        "spark" => "convert it with `onnxmltools.convert_sparkml(model, ...)`",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ONNX: &str = "\
artifact_path: model
flavors:
  onnx:
    code: null
    data: model.onnx
    onnx_version: 1.23.2
    providers:
    - CUDAExecutionProvider
    - CPUExecutionProvider
  python_function:
    loader_module: mlflow.onnx
    python_version: 3.11.7
mlflow_version: 3.17.2
signature:
  inputs: '[{\"type\": \"tensor\"}]'
utc_time_created: '2026-01-01 00:00:00.000000'
";

    #[test]
    fn the_onnx_flavour_names_its_file() {
        assert_eq!(onnx_file(ONNX, "m").unwrap(), "model.onnx");
        let moved = ONNX.replace("data: model.onnx", "data: onnx/net.onnx");
        assert_eq!(onnx_file(&moved, "m").unwrap(), "onnx/net.onnx");
    }

    #[test]
    fn other_flavours_are_refused_with_what_converts_them() {
        for (flavour, tool) in [
            ("sklearn", "skl2onnx"),
            ("pytorch", "torch.onnx"),
            ("tensorflow", "tf2onnx"),
            ("transformers", "optimum-cli"),
            ("prophet", "mlflow.onnx.log_model"),
        ] {
            let text = format!("flavors:\n  python_function: {{}}\n  {flavour}:\n    a: 1\n");
            let error = onnx_file(&text, "models:/m/1").unwrap_err();
            assert!(error.to_string().contains(flavour), "{error}");
            assert!(error.help().unwrap().contains(tool), "{flavour}");
        }
    }

    #[test]
    fn what_is_no_mlmodel_is_an_error() {
        for text in ["- a\n- b\n", "flavors: [1", "flavors: 7"] {
            assert!(matches!(onnx_file(text, "m"), Err(ImportError::Registry { .. })), "{text}");
        }
        assert!(onnx_file("", "m").is_err());
    }

    proptest! {
        #[test]
        fn any_text_is_read_without_a_panic(text: String) {
            let _ = onnx_file(&text, "m");
        }
    }
}
