//! Where ONNX Runtime is, and the embedded draft on it.
#![allow(dead_code, reason = "each test uses its part")]

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

use specula_decoding::{LanguageModel, ModelError};
use specula_models::{Compute, Form, LoadedModel, Model, Streams, read_dense};
use specula_npu::admission::{Trial, examine};
use specula_npu::{Device, Graphs, Libraries, Place, Provider, Variant};

/// The file that a variable names; without it a test has nothing to run on, and says so.
pub(crate) fn library(variable: &str) -> Option<PathBuf> {
    let file = std::env::var_os(variable).map(PathBuf::from);
    if file.is_none() {
        eprintln!("left out: {variable} names no library (`cargo xtask onnxruntime` tells more)");
    }
    file
}

/// A folder of a test's own for what is compiled; it begins empty.
pub(crate) fn cache() -> PathBuf {
    static CALLS: AtomicUsize = AtomicUsize::new(0);
    let call = CALLS.fetch_add(1, Ordering::Relaxed).to_string();
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(env!("CARGO_CRATE_NAME")).join("cache").join(call);
    let _ = std::fs::remove_dir_all(&path);
    path
}

/// A place with an empty cache.
pub(crate) fn place(provider: Provider, variant: Option<Variant>, libraries: Libraries) -> Place {
    Place { provider, variant, libraries, cache: cache() }
}

/// A model's graphs there.
pub(crate) fn graphs(path: &Path, model: &Model, place: Place) -> Graphs {
    let opened = read_dense(path, |dense| Graphs::open((model, dense), place));
    opened.unwrap_or_else(|error| panic!("{error}"))
}

pub(crate) fn weights(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../weights").join(name)
}

/// The embedded draft with its streams, in f32.
pub(crate) fn draft(compute: Compute) -> LoadedModel {
    let form = Form { dequantised: true, compute, ..Form::default() };
    let mut draft = LoadedModel::open_as(&weights("draft.gguf"), form).expect("embedded weights");
    draft.model.set_streams(&Streams::open(&weights("streams.safetensors")).expect("streams")).expect("of its shape");
    draft
}

/// The embedded draft on a device, compared with candle's decoder.
pub(crate) fn compare_draft(place: Place) -> Result<Trial, ModelError> {
    let draft = draft(Compute::Candle);
    let device = Device::new(draft.model.clone(), graphs(&weights("draft.gguf"), &draft.model, place));
    let reference = || draft.model.session();
    examine(&|| Ok::<Box<dyn LanguageModel>, _>(device.session()), &reference)
}
