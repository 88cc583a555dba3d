//! The best tokens of rows, found where the rows lie.

use candle_core::Result;
use candle_core::cuda_backend::cudarc::driver::{CudaSlice, CudaView, LaunchConfig, PushKernelArg};
use candle_core::cuda_backend::{CudaDevice, WrapErr};
use specula_decoding::{Reduced, Reduction};

const PTX: &str = include_str!(concat!(env!("OUT_DIR"), "/reduce.ptx"));
/// As the kernels have them.
const THREADS: u32 = 256;
const CHUNK: usize = 4096;

/// What is found, as it lies in one buffer of words: tokens and scores of each list, `[L, count]`, then the sums of the
/// chunks, `[L, C, 2]`.
#[derive(Clone, Copy)]
pub(super) struct Found {
    rows: usize,
    chunks: usize,
    ranked: usize,
    top: usize,
    summed: bool,
    temperature: f32,
}

impl Found {
    /// `None` if the kernels do not find so much in one go.
    pub(super) fn of(reduction: &Reduction, rows: usize, vocab: usize) -> Option<Self> {
        let chunks = vocab.div_ceil(CHUNK);
        let (ranked, top) = (reduction.ranked.min(vocab), reduction.top.min(vocab));
        let fits = chunks * ranked.max(top) <= CHUNK && reduction.positions.len() == rows;
        let temperature = reduction.temperature;
        fits.then_some(Self { rows, chunks, ranked, top, summed: top > 0 && temperature > 0.0, temperature })
    }

    pub(super) fn words(&self) -> usize {
        self.rows * (2 * (self.ranked + self.top) + if self.summed { 2 * self.chunks } else { 0 })
    }

    /// Queues the search over rows `[L, V]`.
    pub(super) fn launch(
        &self,
        device: &CudaDevice,
        logits: &CudaView<'_, f32>,
        reduction: &Reduction,
    ) -> Result<CudaSlice<u32>> {
        let positions = device.clone_htod(&reduction.positions)?;
        // One word more than there may be: a slice must not be empty. SAFETY: the kernels write all that is read.
        let out = unsafe { device.alloc::<u32>(self.words().max(1))? };
        let (ranked, top) = (2 * self.rows * self.ranked, 2 * self.rows * self.top);
        let sums = self.summed.then(|| out.slice(ranked + top..));
        let search = Search { device, logits, positions: &positions, reduction, found: self };
        search.run(true, self.ranked, &out.slice(..ranked), None)?;
        search.run(false, self.top, &out.slice(ranked..ranked + top), sums.as_ref())?;
        Ok(out)
    }

    /// Reads the buffer.
    pub(super) fn read(&self, words: &[u32]) -> Vec<Reduced> {
        let (ranked, rest) = words.split_at(2 * self.rows * self.ranked);
        let (top, sums) = rest.split_at(2 * self.rows * self.top);
        let list = |words: &[u32], row: usize, count: usize| {
            let (tokens, scores) = words.split_at(self.rows * count);
            let both = tokens[row * count..][..count].iter().zip(&scores[row * count..][..count]);
            both.filter(|(token, _)| **token != u32::MAX)
                .map(|(token, score)| (*token, f32::from_bits(*score)))
                .collect()
        };
        let row = |row: usize| Reduced {
            ranked: list(ranked, row, self.ranked),
            top: list(top, row, self.top),
            log_z: if self.summed { self.log_z(&sums[row * 2 * self.chunks..][..2 * self.chunks]) } else { 0.0 },
        };
        (0..self.rows).map(row).collect()
    }

    /// Of a row's chunks: their best logit, and the sum of exp((logit − best) / T).
    fn log_z(&self, sums: &[u32]) -> f64 {
        let chunks = sums.as_chunks::<2>().0.iter().map(|chunk| chunk.map(|bits| f64::from(f32::from_bits(bits))));
        let chunks = chunks.filter(|[best, _]| *best > f64::NEG_INFINITY);
        let temperature = f64::from(self.temperature);
        let most = chunks.clone().map(|[best, _]| best / temperature).fold(f64::NEG_INFINITY, f64::max);
        most + chunks.map(|[best, sum]| sum * (best / temperature - most).exp()).sum::<f64>().ln()
    }
}

struct Search<'a> {
    device: &'a CudaDevice,
    logits: &'a CudaView<'a, f32>,
    positions: &'a CudaSlice<u32>,
    reduction: &'a Reduction,
    found: &'a Found,
}

impl Search<'_> {
    /// The `count` best of each row, with noise or by logit, to `out`: tokens, then scores.
    fn run(&self, noisy: bool, count: usize, out: &CudaView<'_, u32>, sums: Option<&CudaView<'_, u32>>) -> Result<()> {
        if count == 0 {
            return Ok(());
        }
        let Found { rows, chunks, temperature, .. } = *self.found;
        // SAFETY: the first kernel writes all of it before the second reads it.
        let (tokens, scores) = unsafe {
            (self.device.alloc::<u32>(rows * chunks * count)?, self.device.alloc::<u32>(rows * chunks * count)?)
        };
        let vocab = (self.logits.len() / rows) as u32;
        let noise = self.reduction.noise;
        let (low, high, choice) = (noise.seed() as u32, (noise.seed() >> 32) as u32, noise.choice());
        let (noisy, wanted, given) = (u32::from(noisy), count as u32, (chunks * count) as u32);
        let nowhere = 0_u64;
        let function = self.device.get_or_load_custom_func("best_of_chunks", "specula-reduce", PTX)?;
        let mut launch = function.builder();
        launch.arg(self.logits).arg(&vocab).arg(self.positions).arg(&noisy).arg(&temperature);
        launch.arg(&low).arg(&high).arg(&choice).arg(&wanted).arg(&tokens).arg(&scores);
        match sums {
            Some(sums) => launch.arg(sums),
            None => launch.arg(&nowhere),
        };
        // SAFETY: the arguments are the kernel's.
        unsafe { launch.launch(blocks(chunks, rows)) }.w()?;
        drop(launch);
        let (to_tokens, to_scores) = out.split_at(rows * count);
        let function = self.device.get_or_load_custom_func("best_of_rows", "specula-reduce", PTX)?;
        let mut launch = function.builder();
        launch.arg(&tokens).arg(&scores).arg(&given).arg(&wanted).arg(&to_tokens).arg(&to_scores);
        // SAFETY: the arguments are the kernel's.
        unsafe { launch.launch(blocks(rows, 1)) }.w()?;
        Ok(())
    }
}

fn blocks(x: usize, y: usize) -> LaunchConfig {
    LaunchConfig { grid_dim: (x as u32, y as u32, 1), block_dim: (THREADS, 1, 1), shared_mem_bytes: 0 }
}
