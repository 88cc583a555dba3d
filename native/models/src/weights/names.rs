//! What sources call tensors, and in which order GGUF has the rows of queries and keys.

use std::borrow::Cow;

use crate::config::Architecture;

/// The name in a folder as the hub has it, of a tensor as Llama's folders name it: OPT has names of its own.
pub fn folder_name(architecture: Architecture, name: Cow<'_, str>) -> Cow<'_, str> {
    // OPT's `final_layer_norm` is both the last norm of a model and the second one of a layer.
    const OPT: [(&str, &str); 9] = [
        ("model.layers.", "model.decoder.layers."),
        ("model.embed_tokens.", "model.decoder.embed_tokens."),
        ("model.embed_positions.", "model.decoder.embed_positions."),
        ("model.norm.", "model.decoder.final_layer_norm."),
        (".input_layernorm.", ".self_attn_layer_norm."),
        (".post_attention_layernorm.", ".final_layer_norm."),
        (".o_proj.", ".out_proj."),
        (".mlp.up_proj.", ".fc1."),
        (".mlp.down_proj.", ".fc2."),
    ];
    match architecture {
        Architecture::Opt => OPT.iter().fold(name, |name, (llama, opt)| name.replace(llama, opt).into()),
        _ => name,
    }
}

/// llama.cpp's converter stores row `j · D/2 + i` of a head (j = 0, 1) as row `2 i + j`, so that dimensions which turn
/// together are neighbours; here they are half a head apart, as in the models' own files.
pub(super) fn halves_from_interleaved(heads: usize, head_dim: usize) -> Vec<usize> {
    let half = head_dim / 2;
    let row = |r: usize| r - r % head_dim + 2 * (r % half) + r % head_dim / half;
    (0..heads * head_dim).map(row).collect()
}

/// The other way round: of each row of a GGUF file, which row of the model's own file it is.
pub(crate) fn interleaved_from_halves(heads: usize, head_dim: usize) -> Vec<u32> {
    let mut order = vec![0; heads * head_dim];
    for (half, interleaved) in halves_from_interleaved(heads, head_dim).into_iter().enumerate() {
        order[interleaved] = half as u32;
    }
    order
}

/// GGUF's name: `model.layers.3.self_attn.q_proj.weight` → `blk.3.attn_q.weight`.
pub(crate) fn gguf_name(name: &str) -> String {
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
    use super::*;

    #[test]
    fn names_are_translated() {
        for (llama, opt) in [
            ("model.layers.3.self_attn.q_proj.bias", "model.decoder.layers.3.self_attn.q_proj.bias"),
            ("model.layers.3.self_attn.o_proj.weight", "model.decoder.layers.3.self_attn.out_proj.weight"),
            ("model.layers.0.input_layernorm.weight", "model.decoder.layers.0.self_attn_layer_norm.weight"),
            ("model.layers.0.post_attention_layernorm.bias", "model.decoder.layers.0.final_layer_norm.bias"),
            ("model.layers.0.mlp.up_proj.bias", "model.decoder.layers.0.fc1.bias"),
            ("model.layers.0.mlp.down_proj.weight", "model.decoder.layers.0.fc2.weight"),
            ("model.norm.bias", "model.decoder.final_layer_norm.bias"),
            ("model.embed_positions.weight", "model.decoder.embed_positions.weight"),
            ("lm_head.weight", "lm_head.weight"),
        ] {
            assert_eq!(folder_name(Architecture::Opt, llama.into()), opt);
            assert_eq!(folder_name(Architecture::Mistral, llama.into()), llama);
        }
        for (hf, gguf) in [
            ("model.layers.3.self_attn.q_proj.weight", "blk.3.attn_q.weight"),
            ("model.layers.3.self_attn.q_proj.bias", "blk.3.attn_q.bias"),
            ("model.layers.3.self_attn.o_proj.weight", "blk.3.attn_output.weight"),
            ("model.layers.0.post_attention_layernorm.weight", "blk.0.ffn_norm.weight"),
            ("model.norm.weight", "output_norm.weight"),
            ("lm_head.weight", "output.weight"),
            ("model.embed_tokens.weight", "token_embd.weight"),
        ] {
            assert_eq!(gguf_name(hf), gguf);
        }
    }

    #[test]
    fn interleaved_rows_come_apart() {
        // Two heads of six: neighbours (0, 1), (2, 3), (4, 5) turn together.
        assert_eq!(halves_from_interleaved(2, 6), [0, 2, 4, 1, 3, 5, 6, 8, 10, 7, 9, 11]);
    }
}
