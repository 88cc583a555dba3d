//! What people see of a run: bars, the log, the plot.

use std::fs::OpenOptions;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use indicatif::{ProgressBar, ProgressStyle};
use plotters::prelude::*;
use serde_json::{Value, json};

/// A bar with its rate and the time left.
pub(crate) fn bar(len: u64, what: &str) -> ProgressBar {
    let style = ProgressStyle::with_template("{bar:30} {pos}/{len} {msg}, {per_sec}, {eta} left");
    let bar = ProgressBar::new(len).with_message(what.to_owned());
    match style {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}

/// `log.jsonl`: a line for each step, and one for each measurement.
pub(crate) struct Log {
    path: PathBuf,
}

impl Log {
    /// Opens the log of a run that goes on after `step` steps; later lines, of a run that was broken off, are dropped.
    pub(crate) fn open(folder: &Path, step: usize) -> Result<Self> {
        let log = Self { path: folder.join("log.jsonl") };
        let kept: Vec<Value> = log.lines()?.into_iter().filter(|l| l["step"].as_u64() <= Some(step as u64)).collect();
        let text: String = kept.iter().map(|line| format!("{line}\n")).collect();
        std::fs::write(&log.path, text).with_context(|| log.path.display().to_string())?;
        Ok(log)
    }

    pub(crate) fn add(&self, line: &Value) -> Result<()> {
        let mut file = OpenOptions::new().append(true).create(true).open(&self.path)?;
        Ok(writeln!(file, "{line}")?)
    }

    fn lines(&self) -> Result<Vec<Value>> {
        if !self.path.exists() {
            return Ok(Vec::new());
        }
        let lines = BufReader::new(std::fs::File::open(&self.path)?).lines();
        // A line that was cut off when the process was killed is no line.
        Ok(lines.filter_map(|line| serde_json::from_str(&line.ok()?).ok()).collect())
    }

    /// Draws `loss.svg` beside the log.
    pub(crate) fn plot(&self) -> Result<()> {
        let lines = self.lines()?;
        let series = |name: &str| -> Vec<(f64, f64)> {
            lines.iter().filter_map(|l| Some((l["step"].as_f64()?, l[name].as_f64()?))).collect()
        };
        let (training, validation) = (smoothed(&series("loss")), series("validation_loss"));
        let all = || training.iter().chain(&validation);
        let (Some(last), Some(low)) = (all().map(|p| p.0).reduce(f64::max), all().map(|p| p.1).reduce(f64::min)) else {
            return Ok(());
        };
        let high = all().map(|p| p.1).fold(low + 1e-6, f64::max);
        let path = self.path.with_file_name("loss.svg");
        let draw = || -> Result<(), Box<dyn std::error::Error>> {
            let area = SVGBackend::new(&path, (900, 500)).into_drawing_area();
            area.fill(&WHITE)?;
            let mut chart = ChartBuilder::on(&area)
                .margin(10)
                .x_label_area_size(40)
                .y_label_area_size(60)
                .build_cartesian_2d(0.0..last.max(1.0), low..high)?;
            chart.configure_mesh().x_desc("step").y_desc("loss").draw()?;
            for (name, points, colour) in [("training", training, BLUE), ("validation", validation, RED)] {
                let drawn = chart.draw_series(LineSeries::new(points, &colour))?;
                drawn.label(name).legend(move |(x, y)| PathElement::new([(x, y), (x + 20, y)], colour));
            }
            chart.configure_series_labels().background_style(WHITE).border_style(BLACK).draw()?;
            Ok(area.present()?)
        };
        draw().map_err(|error| anyhow::anyhow!("cannot draw {}: {error}", path.display()))
    }
}

/// Means of so many neighbouring points that at most 500 are left.
fn smoothed(points: &[(f64, f64)]) -> Vec<(f64, f64)> {
    let mean = |part: &[(f64, f64)]| {
        let n = part.len() as f64;
        (part.iter().map(|p| p.0).sum::<f64>() / n, part.iter().map(|p| p.1).sum::<f64>() / n)
    };
    points.chunks(points.len().div_ceil(500).max(1)).map(mean).collect()
}

/// A step's line.
pub(crate) fn step_line(step: usize, loss: f64, rate: f64, gradient: f64, speed: f64) -> Value {
    json!({"step": step, "loss": loss, "learning_rate": rate, "gradient_norm": gradient, "tokens_per_second": speed})
}
