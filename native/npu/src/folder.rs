//! A folder that other tools can run a draft from: graphs, the weights that they share, what the host looks up for them,
//! and a description of it all.

use std::fs;
use std::io::{BufWriter, Write};
use std::path::Path;

use safetensors::tensor::{Dtype, TensorView};
use serde::Serialize;
use specula_models::{DenseWeights, Model};

use crate::bucket::Bucket;
use crate::export::{CONTRACT, Exporter};
use crate::variant::Variant;
use crate::weights;

/// The description's name in the folder.
pub const MANIFEST: &str = "draft.json";
/// What the host looks up: `embed_tokens` `[V, hidden]` and, with streams, `stream_embeddings` `[η, hidden]`, in f32.
pub const EMBEDDINGS: &str = "embeddings.safetensors";

/// What [`MANIFEST`] says.
#[derive(Debug, Serialize)]
pub struct Manifest {
    /// The contract's name and version.
    pub contract: &'static str,
    /// SHA-256 of the model's shape and weights.
    pub model: String,
    /// The variant.
    pub variant: Variant,
    /// V.
    pub vocab_size: usize,
    /// Width of the embeddings.
    pub hidden: usize,
    /// N.
    pub layers: usize,
    /// K.
    pub kv_heads: usize,
    /// D.
    pub head_dim: usize,
    /// Most tokens that a path may have.
    pub context_length: usize,
    /// Angle of each pair of dimensions per position, radians, `[D / 2]`.
    pub rope_frequencies: Vec<f32>,
    /// η.
    pub streams: usize,
    /// File of what the host looks up.
    pub embeddings: &'static str,
    /// File of the weights that all graphs share, and its bytes.
    pub weights: (&'static str, u64),
    /// The graphs.
    pub graphs: Vec<GraphFile>,
}

/// A graph in the folder.
#[derive(Debug, Serialize)]
pub struct GraphFile {
    /// Its name in the folder.
    pub file: String,
    /// Its shape.
    #[serde(flatten)]
    pub bucket: Bucket,
}

/// Writes everything into a folder, which is made if it is not there. Nothing else in it is touched.
///
/// # Errors
/// A tensor that cannot be read, or a file that cannot be written, by name.
pub fn write_folder(
    (model, weights): (&Model, &DenseWeights<'_>),
    variant: Variant,
    folder: &Path,
) -> Result<Manifest, String> {
    let exporter = Exporter::new(model, weights, variant)?;
    fs::create_dir_all(folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    let write = |name: &str, bytes: &[u8]| {
        fs::write(folder.join(name), bytes).map_err(|error| format!("{}: {error}", folder.join(name).display()))
    };
    write_weights(&exporter, weights, &folder.join(weights::FILE))?;
    let c = exporter.config();
    let mut graphs = Vec::new();
    for bucket in Bucket::all(c.context_length, exporter.streams()) {
        let file = file_name(bucket);
        write(&file, &exporter.graph(bucket))?;
        graphs.push(GraphFile { file, bucket });
    }
    write(EMBEDDINGS, &embeddings(model)?)?;
    let manifest = Manifest {
        contract: CONTRACT,
        model: exporter.digest().to_owned(),
        variant,
        vocab_size: c.vocab_size,
        hidden: c.hidden,
        layers: c.layers,
        kv_heads: c.kv_heads,
        head_dim: c.head_dim,
        context_length: c.context_length,
        rope_frequencies: c.rope_frequencies.clone(),
        streams: exporter.streams(),
        embeddings: EMBEDDINGS,
        weights: (weights::FILE, exporter.weights_length()),
        graphs,
    };
    let json = serde_json::to_string_pretty(&manifest).map_err(|error| error.to_string())?;
    write(MANIFEST, (json + "\n").as_bytes())?;
    Ok(manifest)
}

/// A graph's name in a folder.
pub(crate) fn file_name(bucket: Bucket) -> String {
    format!("{}.onnx", bucket.name())
}

/// Writes the weights' file.
pub(crate) fn write_weights(exporter: &Exporter, weights: &DenseWeights<'_>, path: &Path) -> Result<(), String> {
    let broken = |error: std::io::Error| format!("{}: {error}", path.display());
    let mut file = BufWriter::new(fs::File::create(path).map_err(broken)?);
    exporter.write_weights(weights, &mut file)?;
    file.flush().map_err(broken)
}

fn embeddings(model: &Model) -> Result<Vec<u8>, String> {
    let c = model.config();
    let tokens: Vec<u32> = (0..c.vocab_size as u32).collect();
    let table = model.embed(&tokens).map_err(|error| error.to_string())?;
    let streams = model.stream_embeddings().map(|(embeddings, _)| embeddings);
    let tables = [("embed_tokens", Some(table)), ("stream_embeddings", streams)];
    let tables: Vec<(&str, Vec<u8>)> = tables
        .into_iter()
        .filter_map(|(name, table)| Some((name, table?.iter().flat_map(|value| value.to_le_bytes()).collect())))
        .collect();
    let views = tables.iter().map(|(name, bytes)| {
        let shape = vec![bytes.len() / 4 / c.hidden, c.hidden];
        TensorView::new(Dtype::F32, shape, bytes).map(|view| (*name, view))
    });
    let views = views.collect::<Result<Vec<_>, _>>().map_err(|error| error.to_string())?;
    safetensors::serialize(views, None).map_err(|error| error.to_string())
}
