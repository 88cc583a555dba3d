//! Where weights come from. One naming (Hugging Face's) for every source; GGUF's names are translated here.

use candle_core::quantized::QMatMul;
use candle_core::{DType, Device, Result, Tensor};
use candle_transformers::quantized_var_builder::VarBuilder as GgufWeights;

use crate::linear::Linear;

/// Weights by name.
pub(crate) enum Weights {
    /// A GGUF file: Q8_0, F16 and F32 tensors.
    Gguf(GgufWeights),
    /// One or more safetensors files: bf16, f16 or f32, computed in f32 on the CPU.
    Safetensors(candle_nn::VarBuilder<'static>),
}

impl Weights {
    pub(crate) fn device(&self) -> &Device {
        match self {
            Self::Gguf(w) => w.device(),
            Self::Safetensors(w) => w.device(),
        }
    }

    /// A matrix `[out, in]` as a linear map.
    pub(crate) fn linear(&self, out: usize, input: usize, name: &str) -> Result<Linear> {
        match self {
            Self::Gguf(w) => {
                let tensor = w.get((out, input), &gguf_name(name))?;
                Ok(match QMatMul::from_arc(tensor)? {
                    QMatMul::Tensor(dense) | QMatMul::TensorF16(dense) => Linear::Dense(dense.to_dtype(DType::F32)?),
                    quantized => Linear::Quantized(quantized),
                })
            }
            Self::Safetensors(w) => Ok(Linear::Dense(w.get((out, input), name)?)),
        }
    }

    /// A matrix `[rows, width]` in f32, for look-ups.
    pub(crate) fn table(&self, rows: usize, width: usize, name: &str) -> Result<Tensor> {
        match self {
            Self::Gguf(w) => w.get((rows, width), &gguf_name(name))?.dequantize(w.device()),
            Self::Safetensors(w) => w.get((rows, width), name),
        }
    }

    /// A vector in f32.
    pub(crate) fn vector(&self, len: usize, name: &str) -> Result<Tensor> {
        match self {
            Self::Gguf(w) => w.get(len, &gguf_name(name))?.dequantize(w.device()),
            Self::Safetensors(w) => w.get(len, name),
        }
    }

    /// Whether a tensor of that name exists.
    pub(crate) fn has(&self, name: &str) -> bool {
        match self {
            Self::Gguf(w) => w.contains_key(&gguf_name(name)),
            Self::Safetensors(w) => w.contains_tensor(name),
        }
    }
}

/// `model.layers.3.self_attn.q_proj.weight` → `blk.3.attn_q.weight`.
fn gguf_name(name: &str) -> String {
    const PARTS: [(&str, &str); 15] = [
        ("model.layers.", "blk."),
        ("self_attn.q_proj", "attn_q"),
        ("self_attn.k_proj", "attn_k"),
        ("self_attn.v_proj", "attn_v"),
        ("self_attn.o_proj", "attn_output"),
        ("self_attn.q_norm", "attn_q_norm"),
        ("self_attn.k_norm", "attn_k_norm"),
        ("mlp.gate_proj", "ffn_gate"),
        ("mlp.up_proj", "ffn_up"),
        ("mlp.down_proj", "ffn_down"),
        ("post_attention_layernorm", "ffn_norm"),
        ("input_layernorm", "attn_norm"),
        ("model.embed_tokens", "token_embd"),
        ("model.norm", "output_norm"),
        ("lm_head", "output"),
    ];
    PARTS.iter().fold(name.to_owned(), |name, (hf, gguf)| name.replace(hf, gguf))
}

#[cfg(test)]
mod tests {
    use super::gguf_name;

    #[test]
    fn names_are_translated() {
        for (hf, gguf) in [
            ("model.layers.3.self_attn.q_proj.weight", "blk.3.attn_q.weight"),
            ("model.layers.3.self_attn.o_proj.weight", "blk.3.attn_output.weight"),
            ("model.layers.0.post_attention_layernorm.weight", "blk.0.ffn_norm.weight"),
            ("model.norm.weight", "output_norm.weight"),
            ("lm_head.weight", "output.weight"),
            ("model.embed_tokens.weight", "token_embd.weight"),
        ] {
            assert_eq!(gguf_name(hf), gguf);
        }
    }
}
