use super::*;
use magika::TYPES;
use wick_guest::testing::{Graphs, Installed};
use wick_guest::{ErrorKind, Tensors};

/// A graph that gives one class this score.
fn scores(label: &'static str, score: f32) -> Installed {
    let graphs = Graphs::new().fake("magika", move |inputs| {
        assert_eq!(inputs.get("bytes")?.shape(), [1, 2048]);
        inputs.get("bytes")?.to_vec::<i32>()?;
        let scores: Vec<f32> =
            TYPES.iter().map(|class| if class.label == label { score } else { 0.001 }).collect();
        let shape = [1, scores.len() as u64];
        Ok(Tensors::new().with("target_label", Tensor::new(&shape, scores)?))
    });
    graphs.install()
}

fn label(file: &[u8]) -> Result<String> {
    assert!(!TYPES.is_empty(), "run `cargo xtask setup`");
    let response = infer(Tensor::new(&[file.len() as u64], file)?)?;
    Ok(response.get("label")?.to_strings()?.remove(0))
}

#[test]
fn a_sure_class_is_believed_and_an_unsure_one_is_not() -> Result<()> {
    let file = b"some text that is long enough";
    for (class, score, expected) in [
        ("python", 0.51, "python"),
        ("python", 0.49, "txt"),
        // Markdown has a threshold of its own.
        ("markdown", 0.74, "txt"),
        ("markdown", 0.76, "markdown"),
        ("png", 0.4, "unknown"),
    ] {
        let _graphs = scores(class, score);
        assert_eq!(label(file)?, expected, "{class} {score}");
    }
    Ok(())
}

#[test]
fn too_little_is_judged_without_the_model() -> Result<()> {
    // No graph is installed: asking for it would fail.
    assert_eq!(label(b"")?, "empty");
    assert_eq!(label(b"yes\n")?, "txt");
    assert_eq!(label(b"\xff\xfe\x00")?, "unknown");
    assert_eq!(label(&[b' '; 9000])?, "txt");
    Ok(())
}

#[test]
fn a_graph_of_another_version_is_an_internal_error() {
    let graphs = Graphs::new().fake("magika", |_| {
        Ok(Tensors::new().with("target_label", Tensor::new(&[1, 2], [0.5_f32, 0.5])?))
    });
    let _installed = graphs.install();
    let error = label(b"some text that is long enough").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Internal);
    assert!(error.message().starts_with("graph `magika` knows 2 types"), "{error}");
}
