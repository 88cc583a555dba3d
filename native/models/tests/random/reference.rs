//! Hugging Face's transformers, run by `reference.py`.

use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use serde_json::Value as Json;

/// The interpreter that has transformers, if there is one: `SPECULA_REFERENCE_PYTHON`, else `python3`.
pub(crate) fn python() -> Option<PathBuf> {
    let python = std::env::var_os("SPECULA_REFERENCE_PYTHON").map_or_else(|| PathBuf::from("python3"), PathBuf::from);
    let check = Command::new(&python)
        .args(["-c", "import torch, transformers, gguf, accelerate"])
        .stderr(Stdio::null())
        .status();
    let found = check.is_ok_and(|status| status.success());
    if !found {
        eprintln!(
            "skipped: no torch, transformers, gguf and accelerate; name an interpreter in SPECULA_REFERENCE_PYTHON"
        );
    }
    found.then_some(python)
}

pub(crate) fn reference(python: PathBuf, flags: &[&str], asked: &Json) -> Json {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/reference.py");
    let mut child = Command::new(python)
        .arg(script)
        .args(flags)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("python starts");
    child.stdin.take().expect("a pipe").write_all(asked.to_string().as_bytes()).expect("it reads");
    let output = child.wait_with_output().expect("it ends");
    assert!(output.status.success(), "reference.py failed");
    serde_json::from_slice(&output.stdout).expect("JSON")
}

pub(crate) fn numbers(rows: &Json) -> Vec<Vec<f32>> {
    serde_json::from_value(rows.clone()).expect("rows of numbers")
}
