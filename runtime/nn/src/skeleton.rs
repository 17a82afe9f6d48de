//! The skeleton of an ONNX file: which operators it has and which files hold weights of it,
//! read without touching the weights.

use std::collections::BTreeSet;

use prost::Message;
use wick_package::RelPath;

use crate::backend::{GraphSource, SourceBytes};
use crate::error::LoadError;

/// Says where weights are, in the list of such texts.
const LOCATION: &str = "location";

/// Letters of a file's name that an error repeats.
const MAX_NAME: usize = 200;

/// What is known of a model without its weights.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Skeleton {
    /// Names of all operators, those in subgraphs and functions included.
    pub operators: BTreeSet<String>,
    /// Other files that hold weights, as the model writes them.
    pub external: BTreeSet<String>,
}

// Only the fields that are looked at; protobuf skips the others without a copy.

#[derive(Clone, PartialEq, Message)]
struct Model {
    #[prost(message, optional, tag = "7")]
    graph: Option<Graph>,
    #[prost(message, repeated, tag = "25")]
    functions: Vec<Function>,
}

#[derive(Clone, PartialEq, Message)]
struct Graph {
    #[prost(message, repeated, tag = "1")]
    node: Vec<Node>,
    #[prost(message, repeated, tag = "5")]
    initializer: Vec<Weights>,
    #[prost(message, repeated, tag = "12")]
    output: Vec<Output>,
    #[prost(message, repeated, tag = "15")]
    sparse: Vec<Sparse>,
}

#[derive(Clone, PartialEq, Message)]
struct Function {
    #[prost(message, repeated, tag = "7")]
    node: Vec<Node>,
}

#[derive(Clone, PartialEq, Message)]
struct Node {
    #[prost(string, tag = "4")]
    op_type: String,
    #[prost(message, repeated, tag = "5")]
    attribute: Vec<Attribute>,
}

#[derive(Clone, PartialEq, Message)]
struct Attribute {
    #[prost(message, optional, tag = "5")]
    tensor: Option<Weights>,
    #[prost(message, optional, tag = "6")]
    graph: Option<Graph>,
    #[prost(message, repeated, tag = "10")]
    tensors: Vec<Weights>,
    #[prost(message, repeated, tag = "11")]
    graphs: Vec<Graph>,
    #[prost(message, optional, tag = "22")]
    sparse: Option<Sparse>,
    #[prost(message, repeated, tag = "23")]
    sparses: Vec<Sparse>,
}

#[derive(Clone, PartialEq, Message)]
struct Weights {
    /// Where the data is, if it is elsewhere.
    #[prost(message, repeated, tag = "13")]
    place: Vec<Entry>,
    /// 1 says that the data is in another file.
    #[prost(int32, tag = "14")]
    location: i32,
}

#[derive(Clone, PartialEq, Message)]
struct Sparse {
    #[prost(message, optional, tag = "1")]
    values: Option<Weights>,
    #[prost(message, optional, tag = "2")]
    indices: Option<Weights>,
}

#[derive(Clone, PartialEq, Message)]
struct Entry {
    #[prost(string, tag = "1")]
    key: String,
    #[prost(string, tag = "2")]
    value: String,
}

#[derive(Clone, PartialEq, Message)]
struct Output {
    #[prost(string, tag = "1")]
    name: String,
}

// === impl Skeleton ===

impl Skeleton {
    /// Look at a model's bytes.
    ///
    /// # Errors
    /// They are empty, no protobuf message, or a message without a graph that has
    /// outputs: text for a detail.
    pub(crate) fn of(bytes: &[u8]) -> Result<Self, String> {
        if bytes.is_empty() {
            return Err("the file is empty".to_owned());
        }
        let model = Model::decode(bytes).map_err(|error| format!("no ONNX message: {error}"))?;
        let graph = model.graph.ok_or("the file holds no ONNX graph")?;
        if graph.output.is_empty() {
            return Err("the graph has no outputs".to_owned());
        }
        let mut skeleton = Self::default();
        skeleton.add(&graph);
        let functions = model.functions.iter().flat_map(|function| &function.node);
        functions.for_each(|node| skeleton.add_node(node));
        Ok(skeleton)
    }

    /// Check that weights in other files can be had: these must be beside the model, and so the
    /// model a file of its own. One in an image is not, and libraries would look for its weights
    /// in the folder that this process happens to be in.
    ///
    /// # Errors
    /// One is not there, or its name leads out of the model's folder.
    pub(crate) fn check_weights(&self, source: &GraphSource) -> Result<(), LoadError> {
        let folder = match &source.bytes {
            SourceBytes::File { path, offset: 0, .. } => path.parent(),
            _ => None,
        };
        let beside = |name: &str| {
            let name = name.strip_prefix("./").unwrap_or(name).parse::<RelPath>().ok();
            name.zip(folder).is_some_and(|(name, folder)| folder.join(name.as_str()).is_file())
        };
        match self.external.iter().find(|name| !beside(name)) {
            None => Ok(()),
            Some(file) => Err(LoadError::WeightsElsewhere {
                graph: source.name.to_string(),
                file: file.chars().filter(|letter| !letter.is_control()).take(MAX_NAME).collect(),
            }),
        }
    }

    // The depth of the recursion is bounded: the decoder refuses messages nested
    // more than 100 deep.
    fn add(&mut self, graph: &Graph) {
        graph.initializer.iter().for_each(|weights| self.add_weights(weights));
        graph.sparse.iter().for_each(|sparse| self.add_sparse(sparse));
        graph.node.iter().for_each(|node| self.add_node(node));
    }

    fn add_node(&mut self, node: &Node) {
        if !self.operators.contains(&node.op_type) {
            self.operators.insert(node.op_type.clone());
        }
        for attribute in &node.attribute {
            let weights = attribute.tensor.iter().chain(&attribute.tensors);
            weights.for_each(|weights| self.add_weights(weights));
            let sparse = attribute.sparse.iter().chain(&attribute.sparses);
            sparse.for_each(|sparse| self.add_sparse(sparse));
            attribute.graph.iter().chain(&attribute.graphs).for_each(|graph| self.add(graph));
        }
    }

    fn add_sparse(&mut self, sparse: &Sparse) {
        sparse.values.iter().chain(&sparse.indices).for_each(|weights| self.add_weights(weights));
    }

    fn add_weights(&mut self, weights: &Weights) {
        if weights.location != 1 {
            return;
        }
        // Without a name it is in no file at all, which is said as such.
        let named = weights.place.iter().find(|entry| entry.key == LOCATION);
        self.external.insert(named.map(|entry| entry.value.clone()).unwrap_or_default());
    }
}

#[cfg(test)]
mod tests {
    use wick_testing::onnx;

    use super::*;

    #[test]
    fn operators_of_branches_are_found() {
        let skeleton = Skeleton::of(&onnx::with_if()).unwrap();
        assert_eq!(Vec::from_iter(skeleton.operators), ["Add", "If", "Sub"]);
        assert!(skeleton.external.is_empty());
    }

    #[test]
    fn weights_in_other_files_are_noticed() {
        let skeleton = Skeleton::of(&onnx::external_data("weights.bin")).unwrap();
        assert_eq!(Vec::from_iter(skeleton.external), ["weights.bin"]);
    }

    #[test]
    fn what_is_no_model_is_refused() {
        for bytes in [&b""[..], b"not a model at all", b"\x08\x08"] {
            assert!(Skeleton::of(bytes).is_err(), "{bytes:?}");
        }
    }
}
