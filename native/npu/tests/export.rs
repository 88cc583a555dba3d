//! Graphs of every architecture and variant as files, without a runtime: only operators that the providers have, static
//! shapes alone, every value known before it is used, weights where the graphs say they are.

#[path = "../../models/tests/random/mod.rs"]
mod random;

use std::collections::{BTreeSet, HashMap, HashSet};
use std::path::Path;

use candle_core::{DType, Device, Tensor};
use prost::Message;
use random::{Model, fresh};
use specula_models::{LoadedModel, Streams, read_dense};
use specula_npu::export::{CONTRACT, Exporter};
use specula_npu::onnx::{FLOAT, FLOAT16, GraphProto, INT8, INT64, ModelProto, TensorProto, ValueInfoProto};
use specula_npu::{Bucket, Variant, write_folder};

/// What drafts need of CoreML's ML programs, all of it in ONNX Runtime's list of them.
const CORE_ML: [&str; 15] = [
    "Add",
    "Cast",
    "Concat",
    "Div",
    "MatMul",
    "Mul",
    "Pow",
    "ReduceMean",
    "Reshape",
    "Sigmoid",
    "Softmax",
    "Split",
    "Sqrt",
    "Transpose",
    "Unsqueeze",
];
/// And of Qualcomm's HTP, by its execution provider's list.
const QNN: [&str; 15] = CORE_ML;
/// What the int8 variants need besides, of ONNX Runtime's CPU provider and of OpenVINO.
const INT8_OPS: [&str; 3] = ["DequantizeLinear", "DynamicQuantizeLinear", "MatMulInteger"];

struct Exported {
    exporter: Exporter,
    weights: Vec<u8>,
}

fn streams(hidden: usize) -> Streams {
    let values = (0..2 * hidden).map(|i| (i * 37 % 101) as f32 * 0.01 - 0.5).collect::<Vec<_>>();
    Streams { embeddings: Tensor::from_vec(values, (2, hidden), &Device::Cpu).expect("that many"), layers: 1 }
}

fn open(model: &Model, name: &str) -> (std::path::PathBuf, LoadedModel) {
    let path = fresh(name);
    model.write_folder(&path, DType::F32, 1);
    let mut loaded = random::open(&path);
    loaded.model.set_streams(&streams(model.hidden)).expect("of its shape");
    (path, loaded)
}

fn exported(model: &Model, variant: Variant) -> Exported {
    let (path, loaded) = open(model, &format!("{}-{}", model.name, variant.name()));
    let read = read_dense(&path, |dense| {
        let exporter = Exporter::new(&loaded.model, dense, variant)?;
        let mut weights = Vec::new();
        exporter.write_weights(dense, &mut weights)?;
        Ok(Exported { exporter, weights })
    });
    std::fs::remove_dir_all(path).expect("removed");
    read.unwrap_or_else(|error| panic!("{error}"))
}

/// Models that the graphs can say: all but OPT.
fn all() -> Vec<Model> {
    random::all().into_iter().filter(|model| model.architecture != "opt").collect()
}

fn parse(bytes: &[u8]) -> (ModelProto, GraphProto) {
    let model = ModelProto::decode(bytes).expect("a model");
    let graph = model.graph.clone().expect("a graph");
    (model, graph)
}

fn shape(port: &ValueInfoProto) -> Vec<i64> {
    let tensor = port.r#type.as_ref().and_then(|t| t.tensor_type.as_ref()).expect("a tensor");
    tensor.shape.as_ref().expect("a shape").dim.iter().map(|dim| dim.dim_value.expect("a static size")).collect()
}

fn buckets(exporter: &Exporter) -> Vec<Bucket> {
    Bucket::all(exporter.config().context_length, exporter.streams())
}

#[test]
fn graphs_use_only_what_their_providers_have() {
    for model in all() {
        for variant in Variant::ALL {
            let Exported { exporter, .. } = exported(&model, variant);
            for bucket in buckets(&exporter) {
                let (file, graph) = parse(&exporter.graph(bucket));
                assert_eq!((file.ir_version, file.opset_import.len(), file.opset_import[0].version), (8, 1, 17));
                let used: BTreeSet<&str> = graph.node.iter().map(|node| node.op_type.as_str()).collect();
                let int8 = matches!(variant, Variant::W8 | Variant::Dyn8);
                let lists =
                    if int8 { vec![[&CORE_ML[..], &INT8_OPS].concat()] } else { vec![CORE_ML.into(), QNN.into()] };
                for list in lists {
                    let missing: Vec<_> = used.iter().filter(|op| !list.contains(op)).collect();
                    assert!(missing.is_empty(), "{} {} {}: {missing:?}", model.name, variant.name(), bucket.name());
                }
                assert_eq!(
                    used.contains("Cast"),
                    matches!(variant, Variant::F16 | Variant::Dyn8),
                    "{}",
                    variant.name()
                );
            }
        }
    }
}

#[test]
fn shapes_are_static_and_values_known_before_they_are_used() {
    for model in all() {
        let Exported { exporter, .. } = exported(&model, Variant::F32);
        for bucket in buckets(&exporter) {
            let (_, graph) = parse(&exporter.graph(bucket));
            let constants: HashMap<&str, &TensorProto> =
                graph.initializer.iter().map(|tensor| (tensor.name.as_str(), tensor)).collect();
            assert_eq!(constants.len(), graph.initializer.len(), "each constant once");
            let mut known: HashSet<&str> = constants.keys().copied().collect();
            known.extend(graph.input.iter().map(|port| port.name.as_str()));
            for node in &graph.node {
                for input in &node.input {
                    assert!(known.contains(input.as_str()), "{}: `{input}` comes from nowhere", node.name);
                }
                for output in &node.output {
                    assert!(known.insert(output), "{}: `{output}` was there already", node.name);
                }
                if ["Reshape", "Split"].contains(&node.op_type.as_str()) {
                    let sizes = constants[node.input[1].as_str()];
                    assert_eq!(sizes.data_type, INT64);
                    let raw = sizes.raw_data.as_ref().expect("inline");
                    let sizes = raw.as_chunks().0.iter().map(|bytes| i64::from_le_bytes(*bytes));
                    assert!(sizes.clone().count() > 0 && sizes.clone().all(|size| size > 0), "{}", node.name);
                }
            }
            for port in graph.input.iter().chain(&graph.output) {
                assert!(known.contains(port.name.as_str()), "`{}` is not computed", port.name);
                assert!(shape(port).iter().all(|size| *size > 0), "`{}` is not static", port.name);
            }
        }
    }
}

#[test]
fn inputs_and_outputs_are_the_contracts() {
    let model = all().into_iter().find(|model| model.name == "qwen3").expect("there");
    let (hidden, kv, dim, rows) =
        (model.hidden as i64, model.kv_heads as i64, model.head_dim as i64, model.rows as i64);
    let layers = random::LAYERS as i64;
    for (variant, element) in [(Variant::F32, FLOAT), (Variant::F16, FLOAT16), (Variant::W8, FLOAT)] {
        let Exported { exporter, .. } = exported(&model, variant);
        let bucket = *buckets(&exporter).iter().find(|b| b.rows == 4 && b.ahead == 8 && b.past == 512).expect("there");
        let (file, graph) = parse(&exporter.graph(bucket));
        let (q, f, t) = (4, 8, 512);
        let mut due = vec![
            ("inputs_embeds".to_owned(), FLOAT, vec![1, q, hidden]),
            ("cos".into(), FLOAT, vec![1, 1, q + f, dim]),
            ("sin".into(), FLOAT, vec![1, 1, q + f, dim]),
            ("attention_mask".into(), FLOAT, vec![1, 1, q + f, t + q + f]),
            ("stream_rows".into(), FLOAT, vec![1, f, q]),
            ("stream_embeds".into(), FLOAT, vec![1, f, hidden]),
        ];
        for name in ["past_k", "past_v"] {
            due.extend((0..layers).map(|i| (format!("{name}_{i}"), element, vec![1, kv, t, dim])));
        }
        let ports = |ports: &[ValueInfoProto]| -> Vec<(String, i32, Vec<i64>)> {
            let kind = |port: &ValueInfoProto| port.r#type.as_ref()?.tensor_type.as_ref().map(|t| t.elem_type);
            ports.iter().map(|port| (port.name.clone(), kind(port).expect("a tensor"), shape(port))).collect()
        };
        assert_eq!(ports(&graph.input), due);
        let new = vec![layers, 1, kv, q, dim];
        assert_eq!(
            ports(&graph.output),
            [
                ("logits".to_owned(), FLOAT, vec![1, q + f, rows]),
                ("new_k".into(), element, new.clone()),
                ("new_v".into(), element, new),
            ]
        );
        let notes: HashMap<&str, &str> =
            file.metadata_props.iter().map(|entry| (entry.key.as_str(), entry.value.as_str())).collect();
        assert_eq!(notes["contract"], CONTRACT);
        assert_eq!(notes["model"], exporter.digest());
        assert_eq!((notes["variant"], notes["bucket"]), (variant.name(), "q4-f8-t512"));
        let prefill = *buckets(&exporter).iter().find(|b| !b.head).expect("there");
        let (_, graph) = parse(&exporter.graph(prefill));
        assert_eq!(graph.output.iter().map(|port| &port.name).collect::<Vec<_>>(), ["new_k", "new_v"]);
    }
}

#[test]
fn weights_lie_where_graphs_say_and_are_as_small_as_the_variant_makes_them() {
    for model in all() {
        let sizes = Variant::ALL.map(|variant| {
            let Exported { exporter, weights } = exported(&model, variant);
            assert_eq!(weights.len() as u64, exporter.weights_length());
            let (_, graph) = parse(&exporter.graph(buckets(&exporter)[2]));
            let mut ends = Vec::new();
            for tensor in graph.initializer.iter().filter(|tensor| tensor.raw_data.is_none()) {
                let place = |key: &str| {
                    let entry = tensor.external_data.iter().find(|entry| entry.key == key).expect(key);
                    entry.value.clone()
                };
                let number = |key: &str| place(key).parse::<usize>().expect("a number");
                let (offset, length) = (number("offset"), number("length"));
                let size = match tensor.data_type {
                    INT8 => 1,
                    FLOAT16 => 2,
                    _ => 4,
                };
                assert_eq!(place("location"), "weights.bin");
                assert_eq!(length, tensor.dims.iter().product::<i64>() as usize * size, "{}", tensor.name);
                assert!(offset.is_multiple_of(4096) && offset + length <= weights.len());
                ends.push((offset, offset + length));
            }
            ends.sort_unstable();
            assert!(ends.windows(2).all(|pair| pair[0].1 <= pair[1].0), "no two share bytes");
            // All that is not inline is somewhere in the file, and the graph itself is small.
            let inline: usize = graph.initializer.iter().filter_map(|t| t.raw_data.as_ref()).map(Vec::len).sum();
            assert!(inline < 1024, "{inline} bytes inline");
            weights.len()
        });
        assert!(sizes[1] < sizes[0] * 6 / 10 && sizes[2] < sizes[1] * 7 / 10, "{sizes:?}");
        assert_eq!(sizes[2], sizes[3]);
    }
}

#[test]
fn digests_tell_models_apart_and_variants_not() {
    let models = all();
    let digest = |model: &Model, variant| exported(model, variant).exporter.digest().to_owned();
    let of_each: BTreeSet<String> = models.iter().map(|model| digest(model, Variant::F32)).collect();
    assert_eq!(of_each.len(), models.len());
    assert_eq!(digest(&models[0], Variant::F32), digest(&models[0], Variant::W8));
}

#[test]
fn a_folder_describes_itself() {
    let model = all().swap_remove(0);
    let (path, loaded) = open(&model, "described");
    let out = fresh("exported").join("draft");
    let written = read_dense(&path, |dense| write_folder((&loaded.model, dense), Variant::F16, &out));
    let written = written.unwrap_or_else(|error| panic!("{error}"));
    let json: serde_json::Value =
        serde_json::from_slice(&std::fs::read(out.join("draft.json")).expect("there")).expect("JSON");
    assert_eq!(json["contract"], CONTRACT);
    assert_eq!(json["variant"], "f16");
    assert_eq!((json["streams"].as_u64(), json["hidden"].as_u64()), (Some(2), Some(model.hidden as u64)));
    let size = |name: &str| std::fs::metadata(Path::new(&out).join(name)).expect(name).len();
    assert_eq!(json["weights"], serde_json::json!(["weights.bin", size("weights.bin")]));
    assert_eq!(json["graphs"].as_array().map(Vec::len), Some(written.graphs.len()));
    for graph in json["graphs"].as_array().expect("a list") {
        let (_, parsed) = parse(&std::fs::read(out.join(graph["file"].as_str().expect("a name"))).expect("there"));
        let rows = shape(&parsed.input[0])[1] as u64;
        assert_eq!((graph["rows"].as_u64(), graph["past"].as_u64().is_some()), (Some(rows), true));
    }
    let tables = candle_core::safetensors::load(out.join("embeddings.safetensors"), &Device::Cpu).expect("tensors");
    assert_eq!(tables["embed_tokens"].dims(), [model.rows, model.hidden]);
    assert_eq!(tables["stream_embeddings"].dims(), [2, model.hidden]);
}

#[test]
fn what_graphs_cannot_say_is_refused() {
    let model = random::all().into_iter().find(|model| model.name == "opt").expect("there");
    let (path, loaded) = open(&model, "opt");
    let exported = read_dense(&path, |dense| Exporter::new(&loaded.model, dense, Variant::F32).map(drop));
    let refused = exported.expect_err("other norms and positions").to_string();
    assert!(refused.contains("`opt` models are not exported"), "{refused}");
}
