//! A graph while it is written: nodes in order, constants once each, weights by where they lie in their file.

use std::collections::HashSet;

use prost::Message;

use crate::onnx::{
    AttributeProto, DimensionProto, EXTERNAL, FLOAT, GraphProto, INT, INT64, INTS, ModelProto, NodeProto,
    OperatorSetIdProto, StringStringEntryProto, TensorProto, TensorShapeProto, TensorTypeProto, TypeProto,
    ValueInfoProto,
};
use crate::weights::{self, Layout};

/// The operators' version: the newest that every provider's documentation covers.
const OPSET: i64 = 17;
/// The format's version that came with it.
const IR_VERSION: i64 = 8;

/// An input's or output's name, element type and shape.
pub(crate) type Port = (String, i32, Vec<usize>);

/// What is written so far. Values are named; a method that adds a node gives the name of what it computes.
pub(crate) struct Graph<'a> {
    layout: &'a Layout,
    nodes: Vec<NodeProto>,
    initializers: Vec<TensorProto>,
    known: HashSet<String>,
}

impl<'a> Graph<'a> {
    /// An empty graph over the weights of a file.
    pub(crate) fn new(layout: &'a Layout) -> Self {
        Self { layout, nodes: Vec::new(), initializers: Vec::new(), known: HashSet::new() }
    }

    /// An operation with one output and no attributes.
    pub(crate) fn op(&mut self, kind: &str, inputs: &[&str]) -> String {
        self.op_with(kind, inputs, Vec::new())
    }

    /// The same with attributes.
    pub(crate) fn op_with(&mut self, kind: &str, inputs: &[&str], attributes: Vec<AttributeProto>) -> String {
        self.ops(kind, inputs, attributes, 1).swap_remove(0)
    }

    /// An operation with several outputs.
    pub(crate) fn ops(
        &mut self,
        kind: &str,
        inputs: &[&str],
        attribute: Vec<AttributeProto>,
        outputs: usize,
    ) -> Vec<String> {
        let name = format!("{kind}.{}", self.nodes.len());
        let output: Vec<String> = (0..outputs).map(|i| format!("{name}.{i}")).collect();
        self.nodes.push(NodeProto {
            input: inputs.iter().map(|&input| input.to_owned()).collect(),
            output: output.clone(),
            name,
            op_type: kind.to_owned(),
            attribute,
        });
        output
    }

    /// Gives the newest node's one output a name from outside.
    pub(crate) fn name_newest(&mut self, name: &str) {
        if let Some(output) = self.nodes.last_mut().and_then(|node| node.output.first_mut()) {
            *output = name.to_owned();
        }
    }

    /// A number.
    pub(crate) fn scalar(&mut self, name: &str, value: f32) -> String {
        self.constant(name, FLOAT, &[], value.to_le_bytes().to_vec())
    }

    /// Sizes.
    fn sizes(&mut self, sizes: &[usize]) -> String {
        let name = sizes.iter().fold("sizes".to_owned(), |name, size| format!("{name}.{size}"));
        let bytes = sizes.iter().flat_map(|size| (*size as i64).to_le_bytes()).collect();
        self.constant(&name, INT64, &[sizes.len()], bytes)
    }

    fn constant(&mut self, name: &str, data_type: i32, dims: &[usize], raw: Vec<u8>) -> String {
        if self.known.insert(name.to_owned()) {
            let dims = dims.iter().map(|size| *size as i64).collect();
            let raw_data = Some(raw);
            self.initializers.push(TensorProto { dims, data_type, name: name.into(), raw_data, ..Default::default() });
        }
        name.to_owned()
    }

    /// A tensor of the weights' file.
    pub(crate) fn weights(&mut self, name: &str) -> String {
        let stored = self.layout.stored(name);
        debug_assert!(stored.is_some(), "`{name}` is not stored");
        if let Some(stored) = stored.filter(|_| self.known.insert(name.to_owned())) {
            let places = [
                ("location", weights::FILE.to_owned()),
                ("offset", stored.offset.to_string()),
                ("length", stored.length.to_string()),
            ];
            self.initializers.push(TensorProto {
                dims: stored.dims.iter().map(|size| *size as i64).collect(),
                data_type: stored.data_type,
                name: name.to_owned(),
                raw_data: None,
                external_data: places.map(|(key, value)| entry(key, value)).into(),
                data_location: EXTERNAL,
            });
        }
        name.to_owned()
    }

    pub(crate) fn reshape(&mut self, x: &str, shape: &[usize]) -> String {
        let shape = self.sizes(shape);
        self.op("Reshape", &[x, &shape])
    }

    pub(crate) fn transpose(&mut self, x: &str, order: &[i64]) -> String {
        let perm = AttributeProto { name: "perm".into(), ints: order.to_vec(), r#type: INTS, i: 0 };
        self.op_with("Transpose", &[x], vec![perm])
    }

    /// Parts of these sizes along an axis.
    pub(crate) fn split(&mut self, x: &str, axis: i64, sizes: &[usize]) -> Vec<String> {
        let parts = self.sizes(sizes);
        self.ops("Split", &[x, &parts], vec![int("axis", axis)], sizes.len())
    }

    pub(crate) fn concat(&mut self, parts: &[&str], axis: i64) -> String {
        self.op_with("Concat", parts, vec![int("axis", axis)])
    }

    pub(crate) fn cast(&mut self, x: &str, to: i32) -> String {
        self.op_with("Cast", &[x], vec![int("to", to.into())])
    }

    /// x / √(mean(x²) + ε) · weights over the last axis, written as runtimes recognise it.
    pub(crate) fn norm(&mut self, x: &str, weights: &str, epsilon: f32) -> String {
        let (two, epsilon) = (self.scalar("two", 2.0), self.scalar("epsilon", epsilon));
        let weights = self.weights(weights);
        let squares = self.op("Pow", &[x, &two]);
        let axes = AttributeProto { name: "axes".into(), ints: vec![-1], r#type: INTS, i: 0 };
        let mean = self.op_with("ReduceMean", &[&squares], vec![axes, int("keepdims", 1)]);
        let mean = self.op("Add", &[&mean, &epsilon]);
        let root = self.op("Sqrt", &[&mean]);
        let normed = self.op("Div", &[x, &root]);
        self.op("Mul", &[&normed, &weights])
    }

    /// The file's bytes.
    pub(crate) fn encode(self, inputs: Vec<Port>, outputs: Vec<Port>, notes: &[(&str, String)]) -> Vec<u8> {
        let graph = GraphProto {
            node: self.nodes,
            name: "draft".into(),
            initializer: self.initializers,
            input: inputs.into_iter().map(port).collect(),
            output: outputs.into_iter().map(port).collect(),
        };
        let model = ModelProto {
            ir_version: IR_VERSION,
            producer_name: "specula".into(),
            graph: Some(graph),
            opset_import: vec![OperatorSetIdProto { domain: String::new(), version: OPSET }],
            metadata_props: notes.iter().map(|(key, value)| entry(key, value.clone())).collect(),
        };
        model.encode_to_vec()
    }
}

pub(crate) fn int(name: &str, i: i64) -> AttributeProto {
    AttributeProto { name: name.into(), i, ints: Vec::new(), r#type: INT }
}

fn entry(key: &str, value: String) -> StringStringEntryProto {
    StringStringEntryProto { key: key.to_owned(), value }
}

fn port((name, elem_type, shape): Port) -> ValueInfoProto {
    let dim = shape.into_iter().map(|size| DimensionProto { dim_value: Some(size as i64) }).collect();
    let tensor = TensorTypeProto { elem_type, shape: Some(TensorShapeProto { dim }) };
    ValueInfoProto { name, r#type: Some(TypeProto { tensor_type: Some(tensor) }) }
}
