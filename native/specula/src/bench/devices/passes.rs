//! Passes by the number of their rows, and what a look half-way costs.

use std::time::Instant;

use anyhow::Result;
use serde::Serialize;
use specula_decoding::model::chain_nodes;
use specula_decoding::{LanguageModel, Look, Noise, Reduction, Rows, TokenId};
use specula_models::Accelerator;

use super::shape::Shape;

/// Rows of a pass.
const ROWS: [usize; 4] = [1, 4, 8, 16];
/// Tokens that they follow.
const CONTEXT: usize = 256;
/// Bytes of the copy by which the device's speed is measured; few enough for any device, many for its caches.
const COPIED: usize = 1 << 30;

#[derive(Serialize)]
pub(super) struct Passes {
    pub(super) computed_by: String,
    pub(super) shape: String,
    pub(super) weight_bytes: usize,
    /// Of the copy, read and written.
    pub(super) bytes_per_second: f64,
    /// What reading the weights once takes.
    pub(super) floor_ms: f64,
    pub(super) by_rows: Vec<ByRows>,
}

/// Medians, in milliseconds.
#[derive(Serialize)]
pub(super) struct ByRows {
    pub(super) rows: usize,
    /// A pass of which the draws are told.
    pub(super) drawn_ms: f64,
    /// A pass whose rows come whole.
    pub(super) whole_ms: f64,
    /// The first, with a look after half the layers.
    pub(super) looking_ms: f64,
    /// When the look's candidates were there, since that pass began.
    pub(super) looked_ms: f64,
}

pub(super) fn measure(device: Accelerator, shape: Shape, times: u16) -> Result<Passes> {
    let copied = if shape == Shape::Tiny { COPIED / 64 } else { COPIED };
    let bytes_per_second = device.copy_bandwidth(copied).map_err(anyhow::Error::msg)?;
    let config = shape.config();
    let exit_layer = config.layers / 2;
    let model = device.random_model(config).map_err(anyhow::Error::msg)?;
    let computed_by = model.computed_by();
    let weight_bytes = shape.read_weights() * if computed_by.ends_with("f32") { 4 } else { 2 };
    let mut session = model.session()?;
    let token = |i: usize| (i * 7919 % session.vocab_size()) as TokenId;
    let tokens: Vec<TokenId> = (0..CONTEXT + ROWS[ROWS.len() - 1]).map(token).collect();
    session.prefill(&tokens[..CONTEXT])?;
    let mut by_rows = Vec::new();
    for rows in ROWS {
        let mut bench = Bench { model: &mut *session, tokens: &tokens[CONTEXT..CONTEXT + rows], times };
        let drawn_ms = bench.median(|bench| bench.pass(true, None).map(|(took, _)| took))?;
        let whole_ms = bench.median(|bench| bench.pass(false, None).map(|(took, _)| took))?;
        let looking_ms = bench.median(|bench| bench.pass(true, Some(exit_layer)).map(|(took, _)| took))?;
        let looked_ms = bench.median(|bench| bench.pass(true, Some(exit_layer)).map(|(_, looked)| looked))?;
        by_rows.push(ByRows { rows, drawn_ms, whole_ms, looking_ms, looked_ms });
    }
    let floor_ms = weight_bytes as f64 / bytes_per_second * 1e3;
    Ok(Passes { computed_by, shape: format!("{shape:?}"), weight_bytes, bytes_per_second, floor_ms, by_rows })
}

struct Bench<'a> {
    model: &'a mut dyn LanguageModel,
    tokens: &'a [TokenId],
    times: u16,
}

impl Bench<'_> {
    /// Milliseconds that a pass took, and after which its look was answered.
    fn pass(&mut self, drawn: bool, exit_layer: Option<usize>) -> Result<(f64, f64)> {
        let rows = self.tokens.len();
        let positions = (0..rows).map(|i| (CONTEXT + i + 1) as u32).collect();
        let draw = Reduction { temperature: 1.0, noise: Noise::new(1, 0), positions, ranked: 1, top: 0 };
        let candidates = Reduction { ranked: 9, ..draw.clone() };
        let nodes = chain_nodes(self.tokens, CONTEXT);
        let begin = Instant::now();
        let mut looked = 0.0;
        let mut on_exit = |_: Rows| looked = begin.elapsed().as_secs_f64() * 1e3;
        let look = exit_layer.map(|layer| Look { layer, reduction: Some(candidates), on_exit: &mut on_exit });
        self.model.forward_reduced(&nodes, drawn.then_some(&draw), look)?;
        let took = begin.elapsed().as_secs_f64() * 1e3;
        self.model.keep(CONTEXT, &[])?;
        Ok((took, looked))
    }

    /// Median of all times but the first, which loads what the device keeps.
    fn median(&mut self, mut time: impl FnMut(&mut Self) -> Result<f64>) -> Result<f64> {
        time(self)?;
        let mut all = (0..self.times).map(|_| time(self)).collect::<Result<Vec<_>>>()?;
        all.sort_by(f64::total_cmp);
        Ok(all[all.len() / 2])
    }
}
