//! Log-probabilities in OpenAI's shapes.

use std::collections::BTreeMap;
use std::sync::Arc;

use specula_decoding::ends::Decoder;
use specula_decoding::{LogProbs, TokenBytes, TokenId};
use specula_protocol::response::{ChoiceLogProbs, RivalLogProb, TokenLogProb};

/// What OpenAI reports for a token that cannot come: JSON has no −∞.
const IMPOSSIBLE: f64 = -9999.0;

/// Writes the log-probabilities of one choice, piece by piece.
pub(crate) struct LogProbsWriter {
    chat: bool,
    bytes: Arc<TokenBytes>,
    decoder: Decoder,
    /// Characters completed by the tokens before.
    offset: u64,
}

impl LogProbsWriter {
    pub(crate) fn new(chat: bool, bytes: Arc<TokenBytes>) -> Self {
        Self { chat, bytes, decoder: Decoder::default(), offset: 0 }
    }

    /// The next tokens. One without log-probabilities is the first of an echoed prompt.
    pub(crate) fn write<'a>(
        &mut self,
        tokens: impl Iterator<Item = (TokenId, Option<&'a LogProbs>)>,
    ) -> ChoiceLogProbs {
        if self.chat {
            let content = tokens.filter_map(|(id, read)| read.map(|read| self.chat_entry(id, read))).collect();
            return ChoiceLogProbs::Chat { content };
        }
        let (mut texts, mut chosen, mut tops, mut offsets) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        for (id, read) in tokens {
            offsets.push(self.offset);
            self.offset += self.decoder.push(self.bytes.get(id)).chars().count() as u64;
            texts.push(spelled(self.bytes.get(id)));
            chosen.push(read.map(|read| finite(read.chosen)));
            let rivals = |read: &LogProbs| -> BTreeMap<String, f64> {
                read.top.iter().map(|&(id, value)| (spelled(self.bytes.get(id)), finite(value))).collect()
            };
            tops.push(read.map(rivals));
        }
        ChoiceLogProbs::Text { tokens: texts, token_logprobs: chosen, top_logprobs: tops, text_offset: offsets }
    }

    fn chat_entry(&self, id: TokenId, read: &LogProbs) -> TokenLogProb {
        let rival = |&(id, value): &(TokenId, f32)| {
            let (token, bytes) = self.shown(id);
            RivalLogProb { token, logprob: finite(value), bytes }
        };
        let (token, bytes) = self.shown(id);
        TokenLogProb { token, logprob: finite(read.chosen), bytes, top_logprobs: read.top.iter().map(rival).collect() }
    }

    fn shown(&self, id: TokenId) -> (String, Vec<u8>) {
        let bytes = self.bytes.get(id);
        (String::from_utf8_lossy(bytes).into_owned(), bytes.to_vec())
    }
}

/// Puts a later piece behind an earlier one of the same choice.
pub(crate) fn append(to: &mut Option<ChoiceLogProbs>, more: Option<ChoiceLogProbs>) {
    match (to, more) {
        (_, None) => {}
        (Some(ChoiceLogProbs::Chat { content }), Some(ChoiceLogProbs::Chat { content: more })) => content.extend(more),
        (
            Some(ChoiceLogProbs::Text { tokens, token_logprobs, top_logprobs, text_offset }),
            Some(ChoiceLogProbs::Text { tokens: t, token_logprobs: l, top_logprobs: r, text_offset: o }),
        ) => {
            tokens.extend(t);
            token_logprobs.extend(l);
            top_logprobs.extend(r);
            text_offset.extend(o);
        }
        (to, more) => *to = more,
    }
}

fn finite(value: f32) -> f64 {
    f64::from(value).max(IMPOSSIBLE)
}

/// A token as text, or as OpenAI spells bytes that are none: `bytes:\xe2\x82`.
fn spelled(bytes: &[u8]) -> String {
    match std::str::from_utf8(bytes) {
        Ok(text) => text.to_owned(),
        Err(_) => bytes.iter().fold("bytes:".to_owned(), |spelled, byte| spelled + &format!("\\x{byte:02x}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn bytes() -> Arc<TokenBytes> {
        let tokens: [&[u8]; 4] = [b"a", "\u{e9}".as_bytes(), b"\xE2\x82", b"\xAC"];
        Arc::new(TokenBytes(tokens.iter().map(|t| t.to_vec().into_boxed_slice()).collect()))
    }

    #[test]
    fn pieces_of_a_completion_join_with_running_offsets() {
        let mut writer = LogProbsWriter::new(false, bytes());
        let read = LogProbs { chosen: -0.5, top: vec![(1, -0.25), (2, f32::NEG_INFINITY)] };
        let mut all = Some(writer.write([(1, None), (0, Some(&read))].into_iter()));
        append(&mut all, Some(writer.write([(2, Some(&read)), (3, Some(&read)), (0, Some(&read))].into_iter())));
        let rivals = json!({"\u{e9}": -0.25, "bytes:\\xe2\\x82": -9999.0});
        let want = json!({
            "tokens": ["\u{e9}", "a", "bytes:\\xe2\\x82", "bytes:\\xac", "a"],
            "token_logprobs": [null, -0.5, -0.5, -0.5, -0.5],
            "top_logprobs": [null, rivals, rivals, rivals, rivals],
            "text_offset": [0, 1, 2, 2, 3]});
        assert_eq!(serde_json::to_value(all).expect("serialises"), want);
    }

    #[test]
    fn a_chat_lists_tokens_with_their_rivals() {
        let read = LogProbs { chosen: -0.5, top: vec![(0, -0.25)] };
        let got = LogProbsWriter::new(true, bytes()).write([(2, Some(&read))].into_iter());
        let rival = json!({"token": "a", "logprob": -0.25, "bytes": [97]});
        let want =
            json!({"content": [{"token": "\u{fffd}", "logprob": -0.5, "bytes": [226, 130], "top_logprobs": [rival]}]});
        assert_eq!(serde_json::to_value(got).expect("serialises"), want);
    }
}
