//! A draft's graphs on a provider, each compiled when it is first wanted, and their runs.

use std::borrow::Cow;
use std::collections::HashMap;
use std::fmt::Debug;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use ort::session::{Session, SessionInputValue};
use ort::value::{PrimitiveTensorElementType, TensorRef};
use specula_decoding::ModelError;
use specula_models::{DenseWeights, Model, ModelConfig};

use crate::bucket::Bucket;
use crate::columns::{Cache, Columns};
use crate::export::Exporter;
use crate::folder::{file_name, write_weights};
use crate::graph::Port;
use crate::inputs::Inputs;
use crate::kept;
use crate::provider::Provider;
use crate::runtime::{Libraries, Order, Runtime, failure};
use crate::shared::Shared;
use crate::variant::Variant;
use crate::weights;

/// On what a draft runs, and where its files are kept.
#[derive(Debug, Clone)]
pub struct Place {
    /// The provider.
    pub provider: Provider,
    /// `None`: the provider's own ([`Provider::variant`]).
    pub variant: Option<Variant>,
    /// ONNX Runtime, and the provider's own library.
    pub libraries: Libraries,
    /// A folder for graphs, weights and what providers compile, by the model's digest.
    pub cache: PathBuf,
}

/// A draft's graphs. One thread runs them.
pub struct Graphs {
    runtime: &'static Runtime,
    place: Place,
    exporter: Exporter,
    /// Of this draft and variant.
    folder: PathBuf,
    shared: Option<Shared>,
    compiled: HashMap<Bucket, Compiled>,
    compiling: Arc<AtomicBool>,
}

struct Compiled {
    session: Session,
    /// Inputs in order.
    inputs: Vec<Port>,
}

impl Graphs {
    /// Loads the runtime and writes what graphs need into the cache's folder, unless it is there.
    ///
    /// # Errors
    /// If the runtime or the provider is not here, or the folder cannot be written.
    pub fn open((model, dense): (&Model, &DenseWeights<'_>), place: Place) -> Result<Self, String> {
        let runtime = Runtime::load(&place.libraries)?;
        if let Some(plugin) = &place.libraries.plugin {
            runtime.register(&place.provider, plugin)?;
        }
        if !runtime.has(&place.provider) {
            let Place { provider, .. } = place;
            return Err(format!("{} has no {}; {}", runtime.version(), provider.full_name(), provider.how_to_get()));
        }
        let exporter = Exporter::new(model, dense, place.variant.unwrap_or(place.provider.variant()))?;
        let folder = place.cache.join(exporter.digest()).join(exporter.variant().name());
        fs::create_dir_all(&folder).map_err(|error| format!("{}: {error}", folder.display()))?;
        let weights = folder.join(weights::FILE);
        if !kept::is_whole(&weights) {
            kept::keep(&weights, |draft| write_weights(&exporter, dense, draft))?;
        }
        // Accelerators have weights of their own; a CPU computes from what is there.
        let on_cpu = place.provider == Provider::Cpu;
        let shared = on_cpu.then(|| Shared::read(exporter.layout(), &weights)).transpose()?;
        let compiling = Arc::default();
        Ok(Self { runtime, place, exporter, folder, shared, compiled: HashMap::new(), compiling })
    }

    /// The draft's shape.
    pub fn config(&self) -> &ModelConfig {
        self.exporter.config()
    }

    /// Who computes, for people.
    pub fn computed_by(&self) -> String {
        format!("{}, {}, {}", self.place.provider, self.exporter.variant().name(), self.runtime.version())
    }

    /// Whether a graph is being compiled, which takes longer than a step, now that a step wants it.
    pub fn compiling(&self) -> Arc<AtomicBool> {
        self.compiling.clone()
    }

    /// η.
    pub(crate) fn streams(&self) -> usize {
        self.exporter.streams()
    }

    /// An empty cache.
    pub(crate) fn cache(&self) -> Cache {
        let c = self.config();
        match self.exporter.variant() {
            Variant::F16 => Cache::Half(Columns::new(c.layers, c.kv_heads, c.head_dim)),
            _ => Cache::Single(Columns::new(c.layers, c.kv_heads, c.head_dim)),
        }
    }

    /// Compiles all graphs over the smallest cache, so that the first steps need not wait for that.
    ///
    /// # Errors
    /// As for a run.
    pub fn prepare(&mut self) -> Result<(), ModelError> {
        for bucket in Bucket::with_past(Bucket::past_for(0), self.streams()) {
            self.compile(bucket)?;
        }
        Ok(())
    }

    fn compile(&mut self, bucket: Bucket) -> Result<(), ModelError> {
        if self.compiled.contains_key(&bucket) {
            return Ok(());
        }
        let path = self.folder.join(file_name(bucket));
        let graph = self.exporter.graph(bucket);
        let kept = self.kept()?;
        if fs::read(&path).ok().as_ref() != Some(&graph) {
            write_whole(&path, &graph).map_err(|error| broken(&path, &error))?;
        }
        let Place { provider, libraries, .. } = &self.place;
        let variant = self.exporter.variant();
        let (shared, plugin) = (self.shared.as_ref(), libraries.plugin.as_deref());
        let order = Order { provider, variant, graph: &path, shared, plugin, cache: &kept };
        self.compiling.store(true, Ordering::Relaxed);
        let session = self.runtime.compile(&order);
        self.compiling.store(false, Ordering::Relaxed);
        let session = session.map_err(|why| ModelError(format!("{provider}: graph {}: {why}", bucket.name())))?;
        self.compiled.insert(bucket, Compiled { session, inputs: self.exporter.inputs(bucket) });
        Ok(())
    }

    /// The folder of what the provider compiles, by all that it depends on beside the draft.
    fn kept(&self) -> Result<PathBuf, ModelError> {
        use sha2::{Digest, Sha256};
        let mut hash = Sha256::new();
        hash.update(format!("{} {}", self.place.provider, self.runtime.version()));
        if let Some(plugin) = &self.place.libraries.plugin {
            let told = fs::metadata(plugin).map(|file| (file.len(), file.modified().ok()));
            hash.update(format!("{} {told:?}", plugin.display()));
        }
        let name: String = hash.finalize().iter().take(8).map(|byte| format!("{byte:02x}")).collect();
        let folder = self.folder.join(format!("{}-{name}", self.place.provider).replace([':', ','], "-"));
        fs::create_dir_all(&folder).map_err(|error| broken(&folder, &error))?;
        Ok(folder)
    }

    /// Runs a bucket's graph and takes the first `count` of its new columns into the cache, at slots from `first` on. Gives
    /// the logits `[q + f, V]`, if the bucket has any.
    ///
    /// # Errors
    /// The provider's; the cache is as it was then.
    pub(crate) fn run(
        &mut self,
        bucket: Bucket,
        inputs: &Inputs,
        cache: &mut Cache,
        (first, count): (usize, usize),
    ) -> Result<Vec<f32>, ModelError> {
        self.compile(bucket)?;
        let Some(compiled) = self.compiled.get_mut(&bucket) else { return Err(ModelError("not compiled".into())) };
        match cache {
            Cache::Single(columns) => compiled.run(bucket, inputs, columns, (first, count)),
            Cache::Half(columns) => compiled.run(bucket, inputs, columns, (first, count)),
        }
    }
}

impl Compiled {
    fn run<T: PrimitiveTensorElementType + Copy + Default + Debug + 'static>(
        &mut self,
        bucket: Bucket,
        inputs: &Inputs,
        columns: &mut Columns<T>,
        (first, count): (usize, usize),
    ) -> Result<Vec<f32>, ModelError> {
        let Inputs { embeddings, cos, sin, mask, stream_rows, stream_embeddings } = inputs;
        let mut plain = vec![embeddings, cos, sin, mask];
        if bucket.ahead > 0 {
            plain.extend([stream_rows, stream_embeddings]);
        }
        let mut values: Vec<(Cow<'_, str>, SessionInputValue<'_>)> = Vec::with_capacity(self.inputs.len());
        for ((name, _, shape), data) in self.inputs.iter().zip(&plain) {
            let tensor = TensorRef::from_array_view((shape.as_slice(), data.as_slice())).map_err(failure)?;
            values.push((name.as_str().into(), tensor.into()));
        }
        for ((name, _, shape), data) in self.inputs[plain.len()..].iter().zip(columns.layers()) {
            let tensor = TensorRef::from_array_view((shape.as_slice(), data.as_slice())).map_err(failure)?;
            values.push((name.as_str().into(), tensor.into()));
        }
        let outputs = self.session.run(values).map_err(failure)?;
        let output =
            |name: &str| outputs.get(name).ok_or_else(|| ModelError(format!("the graph's output `{name}` is missing")));
        let keys = output("new_k")?.try_extract_tensor::<T>().map_err(failure)?.1;
        let values = output("new_v")?.try_extract_tensor::<T>().map_err(failure)?.1;
        let logits = match bucket.head {
            true => output("logits")?.try_extract_tensor::<f32>().map_err(failure)?.1.to_vec(),
            false => Vec::new(),
        };
        columns.write((first, count), bucket.rows, [keys, values]);
        Ok(logits)
    }
}

/// Writes a file that is there whole or not at all: other processes may be at the same.
fn write_whole(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let draft = path.with_extension(format!("{}.draft", std::process::id()));
    fs::write(&draft, bytes)?;
    fs::rename(&draft, path)
}

fn broken(path: &Path, error: &std::io::Error) -> ModelError {
    ModelError(format!("{}: {error}", path.display()))
}
