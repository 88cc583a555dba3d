//! `specula generate`, `specula exactness` and `specula watermark` as a user runs them.

use std::process::{Command, Output};

use serde_json::Value;

use crate::answer::{self, Answer};
use crate::binary::specula;
use crate::folder::Folder;

/// What `specula generate --json` printed.
#[derive(Debug, Clone)]
pub struct Generated {
    /// Token ids.
    pub tokens: Vec<u64>,
    /// The rest.
    pub answer: Answer,
    /// The whole JSON.
    pub json: Value,
}

/// Runs `specula generate --json` with more arguments; it must succeed.
pub fn generate(args: &[&str]) -> Generated {
    let output = run(&[&["generate", "--json"], args].concat());
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "specula generate {args:?}: {}: {told}", output.status);
    let json: Value = serde_json::from_slice(&output.stdout).expect("JSON and nothing else on stdout");
    let text = |field: &str| json[field].as_str().unwrap_or_else(|| panic!("`{field}` in {json}")).to_owned();
    let tokens = json["tokens"].as_array().expect("token ids").iter();
    Generated {
        tokens: tokens.map(|id| id.as_u64().expect("a token id")).collect(),
        answer: Answer {
            text: text("text"),
            finish_reason: text("finish_reason"),
            usage: answer::usage(&json["usage"]),
            report: answer::report(&json["specula"]),
        },
        json,
    }
}

/// Runs `specula generate` with arguments that it must refuse; gives what it says on stderr.
pub fn refused(args: &[&str]) -> String {
    refused_by(&[&["generate"], args].concat())
}

/// The same of `specula bench`.
pub fn refused_bench(args: &[&str]) -> String {
    refused_by(&[&["bench"], args].concat())
}

fn refused_by(args: &[&str]) -> String {
    let output = run(args);
    assert!(!output.status.success(), "specula {args:?} was not refused");
    assert!(output.stdout.is_empty(), "a refusal prints no answer: {}", String::from_utf8_lossy(&output.stdout));
    String::from_utf8(output.stderr).expect("messages are UTF-8")
}

/// Runs `specula bench` with more arguments; it must succeed. Gives the folder of its files.
pub fn bench(args: &[&str]) -> Folder {
    let folder = Folder::new();
    let output = run(&[&["bench", "--out", folder.text()], args].concat());
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "specula bench {args:?}: {}: {told}", output.status);
    folder
}

/// Runs `specula exactness` with more arguments; it must find no difference. Gives its counts.
pub fn exactness(args: &[&str]) -> Value {
    let folder = Folder::new();
    let out = folder.path().to_str().expect("a readable path");
    let output = run(&[&["exactness", "--out", out], args].concat());
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "specula exactness {args:?}: {}: {told}", output.status);
    let counts = std::fs::read(folder.path().join("exactness.json")).expect("the counts");
    serde_json::from_slice(&counts).expect("JSON")
}

/// Runs `specula watermark` with more arguments; it must succeed. Gives what it prints.
pub fn watermark(args: &[&str]) -> String {
    let output = run(&[&["watermark"], args].concat());
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "specula watermark {args:?}: {}: {told}", output.status);
    String::from_utf8(output.stdout).expect("reports are UTF-8")
}

fn run(args: &[&str]) -> Output {
    let mut command = Command::new(specula());
    command.args(args);
    // Of the environment only the tests' own arguments shall count.
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("SPECULA_")) {
        command.env_remove(name);
    }
    command.output().expect("the binary runs")
}
