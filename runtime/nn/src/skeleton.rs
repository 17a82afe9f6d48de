//! The skeleton of an ONNX file: which operators it has and whether its weights
//! are elsewhere, read without touching the weights.

use std::collections::BTreeSet;

use prost::Message;

/// What is known of a model without its weights.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Skeleton {
    /// Names of all operators, those in subgraphs and functions included.
    pub operators: BTreeSet<String>,
    /// Whether some weights are in other files.
    pub external_data: bool,
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
    #[prost(message, repeated, tag = "11")]
    graphs: Vec<Graph>,
}

#[derive(Clone, PartialEq, Message)]
struct Weights {
    /// 1 says that the data is in another file.
    #[prost(int32, tag = "14")]
    location: i32,
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

    // The depth of the recursion is bounded: the decoder refuses messages nested
    // more than 100 deep.
    fn add(&mut self, graph: &Graph) {
        self.external_data |= graph.initializer.iter().any(|weights| weights.location == 1);
        graph.node.iter().for_each(|node| self.add_node(node));
    }

    fn add_node(&mut self, node: &Node) {
        if !self.operators.contains(&node.op_type) {
            self.operators.insert(node.op_type.clone());
        }
        for attribute in &node.attribute {
            self.external_data |=
                attribute.tensor.as_ref().is_some_and(|weights| weights.location == 1);
            attribute.graph.iter().chain(&attribute.graphs).for_each(|graph| self.add(graph));
        }
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
        assert!(!skeleton.external_data);
    }

    #[test]
    fn weights_in_other_files_are_noticed() {
        assert!(Skeleton::of(&onnx::external_data("weights.bin")).unwrap().external_data);
    }

    #[test]
    fn what_is_no_model_is_refused() {
        for bytes in [&b""[..], b"not a model at all", b"\x08\x08"] {
            assert!(Skeleton::of(bytes).is_err(), "{bytes:?}");
        }
    }
}
