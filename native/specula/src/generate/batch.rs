//! Answers to a file of chats, as lines that `train` reads: how a draft gets to see what its target says.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;

use anyhow::{Context, Result};
use indicatif::{ProgressBar, ProgressStyle};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use specula_engine::Engine;
use specula_protocol::{GenerateRequest, Message};
use specula_server::wire;

use super::{GenerateArgs, answer, request, text};

/// A line; what else it holds is kept.
#[derive(Deserialize, Serialize)]
struct Line {
    messages: Vec<Message>,
    #[serde(flatten)]
    rest: Map<String, Value>,
}

pub(super) fn run(engine: &Engine, args: &GenerateArgs, file: &Path) -> Result<()> {
    let lines = read(file)?;
    let asked = request(args)?;
    let style = ProgressStyle::with_template("{bar:30} {pos}/{len} answers, {eta} left")?;
    let progress = ProgressBar::new(lines.len() as u64).with_style(style);
    let mut out = std::io::stdout().lock();
    for (number, mut line) in (0..).zip(lines) {
        line.messages.pop_if(|last| last.role == "assistant");
        let request = GenerateRequest {
            messages: Some(line.messages.clone()),
            seed: asked.seed.map(|seed| seed + number),
            ..asked.clone()
        };
        let mut content = String::new();
        let finished = answer(engine, &request, None, |round| {
            content += &text(&round);
            Ok(())
        })
        .with_context(|| format!("--batch {}, line {}", file.display(), number + 1))?;
        line.messages.push(Message { role: "assistant".into(), content });
        line.rest.insert("seed".into(), finished.report.seed.into());
        line.rest.insert("finish_reason".into(), serde_json::to_value(wire::finish_reason(finished.reason.as_ref()))?);
        serde_json::to_writer(&mut out, &line)?;
        out.write_all(b"\n")?;
        progress.inc(1);
    }
    progress.finish_and_clear();
    Ok(())
}

/// All lines, before the first answer: a bad line at the end must not cost the work before it.
fn read(file: &Path) -> Result<Vec<Line>> {
    let reader = BufReader::new(std::fs::File::open(file).with_context(|| format!("--batch {}", file.display()))?);
    let parse = |(number, line): (usize, std::io::Result<String>)| {
        let parsed = line.map_err(anyhow::Error::from).and_then(|line| Ok(serde_json::from_str(&line)?));
        parsed.with_context(|| format!("--batch {}, line {}", file.display(), number + 1))
    };
    reader.lines().enumerate().map(parse).collect()
}
