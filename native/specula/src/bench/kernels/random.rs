//! Models of random weights, written as GGUF files: what a pass costs depends on a model's shape alone.
//! Format: <https://github.com/ggml-org/ggml/blob/master/docs/gguf.md>.

use std::io::{BufWriter, Write};
use std::path::Path;

use anyhow::{Context, Result};
use specula_models::{Activation, Architecture, ModelConfig, NormKind};

/// How matrices lie in a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Format {
    F32,
    /// Blocks of 32 int8 with an f16 scale.
    Q8,
}

impl Format {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::F32 => "F32",
            Self::Q8 => "Q8_0",
        }
    }

    pub(crate) fn bytes(self, weights: usize) -> usize {
        match self {
            Self::F32 => 4 * weights,
            Self::Q8 => weights / 32 * 34,
        }
    }

    /// GGUF's number of the type.
    fn number(self) -> u32 {
        match self {
            Self::F32 => 0,
            Self::Q8 => 8,
        }
    }

    fn write(self, to: &mut impl Write, weights: usize, state: &mut u64) -> std::io::Result<()> {
        let mut random = || {
            *state ^= *state << 13;
            *state ^= *state >> 7;
            *state ^= *state << 17;
            *state
        };
        match self {
            // −0.05…0.05.
            Self::F32 => (0..weights).try_for_each(|_| {
                let value = ((random() >> 40) as f32 / (1 << 23) as f32 - 1.0) * 0.05;
                to.write_all(&value.to_le_bytes())
            }),
            Self::Q8 => (0..weights / 32).try_for_each(|_| {
                // 2⁻¹² in f16: values up to 0.03.
                to.write_all(&0x0c00_u16.to_le_bytes())?;
                (0..4).try_for_each(|_| to.write_all(&random().to_le_bytes()))
            }),
        }
    }
}

/// The 12 layers of 768 that small models of 110 M weights have.
pub(crate) fn config_110m() -> ModelConfig {
    ModelConfig {
        architecture: Architecture::Llama,
        vocab_size: 32_000,
        hidden: 768,
        layers: 12,
        heads: 12,
        kv_heads: 12,
        head_dim: 64,
        feed_forward: 2048,
        context_length: 2048,
        rope_frequencies: vec![],
        learned_positions: None,
        norm: NormKind::RootMeanSquare,
        norm_eps: 1e-5,
        activation: Activation::GatedSilu,
        qkv_bias: false,
        output_bias: false,
        qk_norm: false,
        tied_head: true,
        end_tokens: vec![],
    }
}

/// Weights that one row of a pass is multiplied with.
pub(crate) fn multiplied(c: &ModelConfig) -> usize {
    let matrices = tensors(c).into_iter().filter(|(name, shape)| shape.len() == 2 && name != "token_embd.weight");
    let head = if c.tied_head { c.vocab_size * c.hidden } else { 0 };
    matrices.map(|(_, shape)| shape.iter().product::<usize>()).sum::<usize>() + head
}

/// Names and shapes, rows first.
fn tensors(c: &ModelConfig) -> Vec<(String, Vec<usize>)> {
    let (queries, keys) = (c.heads * c.head_dim, c.kv_heads * c.head_dim);
    let mut all = vec![("token_embd.weight".to_owned(), vec![c.vocab_size, c.hidden])];
    for layer in 0..c.layers {
        let mut add = |part: &str, shape: &[usize]| all.push((format!("blk.{layer}.{part}"), shape.to_vec()));
        add("attn_norm.weight", &[c.hidden]);
        add("attn_q.weight", &[queries, c.hidden]);
        add("attn_k.weight", &[keys, c.hidden]);
        add("attn_v.weight", &[keys, c.hidden]);
        if c.qkv_bias {
            add("attn_q.bias", &[queries]);
            add("attn_k.bias", &[keys]);
            add("attn_v.bias", &[keys]);
        }
        if c.qk_norm {
            add("attn_q_norm.weight", &[c.head_dim]);
            add("attn_k_norm.weight", &[c.head_dim]);
        }
        add("attn_output.weight", &[c.hidden, queries]);
        add("ffn_norm.weight", &[c.hidden]);
        add("ffn_gate.weight", &[c.feed_forward, c.hidden]);
        add("ffn_up.weight", &[c.feed_forward, c.hidden]);
        add("ffn_down.weight", &[c.hidden, c.feed_forward]);
    }
    all.push(("output_norm.weight".to_owned(), vec![c.hidden]));
    if !c.tied_head {
        all.push(("output.weight".to_owned(), vec![c.vocab_size, c.hidden]));
    }
    all
}

enum Value {
    Number(u32),
    Float(f32),
    Text(String),
    Texts(Vec<String>),
    Numbers(Vec<i32>),
}

fn metadata(c: &ModelConfig) -> Vec<(String, Value)> {
    use Value::{Float, Number, Numbers, Text, Texts};
    let own = |name: &str| format!("{}.{name}", c.architecture.name());
    // Bytes under names of their own, which neither loader interprets; the rest of the vocabulary has no meaning.
    let tokens = (0..c.vocab_size).map(|id| format!("t{id}")).collect();
    vec![
        ("general.architecture".into(), Text(c.architecture.name().into())),
        ("general.name".into(), Text("random".into())),
        (own("context_length"), Number(c.context_length as u32)),
        (own("embedding_length"), Number(c.hidden as u32)),
        (own("block_count"), Number(c.layers as u32)),
        (own("feed_forward_length"), Number(c.feed_forward as u32)),
        (own("attention.head_count"), Number(c.heads as u32)),
        (own("attention.head_count_kv"), Number(c.kv_heads as u32)),
        (own("attention.key_length"), Number(c.head_dim as u32)),
        (own("attention.value_length"), Number(c.head_dim as u32)),
        (own("rope.dimension_count"), Number(c.head_dim as u32)),
        (own("rope.freq_base"), Float(10_000.0)),
        (own("attention.layer_norm_rms_epsilon"), Float(c.norm_eps)),
        (own("vocab_size"), Number(c.vocab_size as u32)),
        ("tokenizer.ggml.model".into(), Text("gpt2".into())),
        ("tokenizer.ggml.pre".into(), Text("gpt-2".into())),
        ("tokenizer.ggml.tokens".into(), Texts(tokens)),
        ("tokenizer.ggml.token_type".into(), Numbers(vec![1; c.vocab_size])),
        ("tokenizer.ggml.merges".into(), Texts(vec![])),
        ("tokenizer.ggml.eos_token_id".into(), Number(0)),
    ]
}

/// Writes a model of this shape, its matrices in `format`.
pub(crate) fn write(path: &Path, c: &ModelConfig, format: Format) -> Result<()> {
    let file = std::fs::File::create(path).with_context(|| path.display().to_string())?;
    let mut file = Counted { inner: BufWriter::new(file), written: 0 };
    write_to(&mut file, c, format).with_context(|| path.display().to_string())
}

const ALIGNMENT: usize = 32;

fn write_to(file: &mut Counted<impl Write>, c: &ModelConfig, format: Format) -> std::io::Result<()> {
    let (tensors, metadata) = (tensors(c), metadata(c));
    // Vectors stay f32, as converters leave them.
    let format_of = |shape: &[usize]| if shape.len() == 1 { Format::F32 } else { format };
    let bytes = |shape: &[usize]| format_of(shape).bytes(shape.iter().product());
    file.write_all(b"GGUF")?;
    file.write_all(&3_u32.to_le_bytes())?;
    count(file, tensors.len())?;
    count(file, metadata.len())?;
    for (key, value) in &metadata {
        text(file, key)?;
        write_value(file, value)?;
    }
    let mut at = 0;
    for (name, shape) in &tensors {
        text(file, name)?;
        file.write_all(&(shape.len() as u32).to_le_bytes())?;
        shape.iter().rev().try_for_each(|size| count(file, *size))?;
        file.write_all(&format_of(shape).number().to_le_bytes())?;
        count(file, at)?;
        at += bytes(shape).next_multiple_of(ALIGNMENT);
    }
    let mut state = 0x2545_f491_4f6c_dd1d;
    for (_, shape) in &tensors {
        align(file)?;
        format_of(shape).write(file, shape.iter().product(), &mut state)?;
    }
    align(file)?;
    file.flush()
}

fn write_value(file: &mut impl Write, value: &Value) -> std::io::Result<()> {
    let kind = |file: &mut dyn Write, kind: u32| file.write_all(&kind.to_le_bytes());
    match value {
        Value::Number(n) => {
            kind(file, 4)?;
            file.write_all(&n.to_le_bytes())
        }
        Value::Float(x) => {
            kind(file, 6)?;
            file.write_all(&x.to_le_bytes())
        }
        Value::Text(words) => {
            kind(file, 8)?;
            text(file, words)
        }
        Value::Texts(texts) => {
            kind(file, 9)?;
            kind(file, 8)?;
            count(file, texts.len())?;
            texts.iter().try_for_each(|words| text(file, words))
        }
        Value::Numbers(numbers) => {
            kind(file, 9)?;
            kind(file, 5)?;
            count(file, numbers.len())?;
            numbers.iter().try_for_each(|n| file.write_all(&n.to_le_bytes()))
        }
    }
}

fn count(file: &mut impl Write, n: usize) -> std::io::Result<()> {
    file.write_all(&(n as u64).to_le_bytes())
}

fn text(file: &mut impl Write, words: &str) -> std::io::Result<()> {
    count(file, words.len())?;
    file.write_all(words.as_bytes())
}

/// Knows where it is.
struct Counted<W> {
    inner: W,
    written: usize,
}

impl<W: Write> Write for Counted<W> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let taken = self.inner.write(bytes)?;
        self.written += taken;
        Ok(taken)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.inner.flush()
    }
}

fn align(file: &mut Counted<impl Write>) -> std::io::Result<()> {
    let gap = file.written.next_multiple_of(ALIGNMENT) - file.written;
    file.write_all(&[0; ALIGNMENT][..gap])
}

#[cfg(test)]
mod tests {
    use specula_models::LoadedModel;

    use super::*;

    #[test]
    fn written_models_load() {
        let path = std::env::temp_dir().join(format!("specula-random-{}.gguf", std::process::id()));
        for (architecture, format) in [(Architecture::Llama, Format::Q8), (Architecture::Qwen3, Format::F32)] {
            let small = ModelConfig {
                architecture,
                qk_norm: architecture == Architecture::Qwen3,
                vocab_size: 300,
                hidden: 64,
                layers: 2,
                feed_forward: 96,
                ..config_110m()
            };
            write(&path, &small, format).expect("written");
            let loaded = LoadedModel::open(&path).expect("a model");
            let ModelConfig { rope_frequencies, end_tokens, .. } = loaded.model.config().clone();
            assert_eq!(*loaded.model.config(), ModelConfig { rope_frequencies, end_tokens, ..small });
        }
        std::fs::remove_file(path).expect("there");
        let m = multiplied(&config_110m()) as f64 / 1e6;
        assert!((109.0..111.0).contains(&m), "{m} M");
    }
}
