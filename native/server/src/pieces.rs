//! One choice's events as pieces of its answer. A stream sends the pieces as they come; an answer in one piece is their sum.

use std::sync::Arc;

use specula_decoding::TokenBytes;
use specula_decoding::ends::Decoder;
use specula_engine::{PromptToken, Round};
use specula_protocol::response::ChoiceLogProbs;

use crate::logprobs::{LogProbsWriter, append};

/// Text, and its tokens' log-probabilities if they were asked for.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Piece {
    pub(crate) text: String,
    pub(crate) logprobs: Option<ChoiceLogProbs>,
}

impl Piece {
    /// Whether there is nothing to send: a round's text may be held back as the possible beginning of a stop string.
    pub(crate) fn is_empty(&self) -> bool {
        self.text.is_empty() && self.logprobs.as_ref().is_none_or(ChoiceLogProbs::is_empty)
    }

    /// Puts a later piece of the same choice behind this one.
    pub(crate) fn push(&mut self, more: Piece) {
        self.text += &more.text;
        append(&mut self.logprobs, more.logprobs);
    }
}

/// Makes the pieces of one choice.
pub(crate) struct PieceWriter {
    bytes: Arc<TokenBytes>,
    logprobs: Option<LogProbsWriter>,
}

impl PieceWriter {
    pub(crate) fn new(chat: bool, logprobs: bool, bytes: &Arc<TokenBytes>) -> Self {
        Self { bytes: bytes.clone(), logprobs: logprobs.then(|| LogProbsWriter::new(chat, bytes.clone())) }
    }

    /// A piece without tokens, to which others may be pushed.
    pub(crate) fn empty(&mut self) -> Piece {
        let logprobs = self.logprobs.as_mut().map(|writer| writer.write(std::iter::empty()));
        Piece { text: String::new(), logprobs }
    }

    /// The echo of a prompt.
    pub(crate) fn prompt(&mut self, tokens: &[PromptToken]) -> Piece {
        let mut decoder = Decoder::default();
        let mut text: String = tokens.iter().map(|token| decoder.push(self.bytes.get(token.id))).collect();
        text += &decoder.finish();
        let tokens = tokens.iter().map(|token| (token.id, token.logprobs.as_ref()));
        Piece { text, logprobs: self.logprobs.as_mut().map(|writer| writer.write(tokens)) }
    }

    /// A round's tokens. Those without log-probabilities are end tokens, which are no part of the text.
    pub(crate) fn round(&mut self, round: &Round) -> Piece {
        let text = round.tokens.iter().map(|token| token.text.as_str()).collect();
        let tokens = round.tokens.iter().filter(|token| token.logprobs.is_some());
        let tokens = tokens.map(|token| (token.id, token.logprobs.as_ref()));
        Piece { text, logprobs: self.logprobs.as_mut().map(|writer| writer.write(tokens)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::seam::double;
    use serde_json::json;
    use specula_decoding::LogProbs;
    use specula_engine::Event;

    fn round(text: &str, read: Option<LogProbs>) -> Round {
        let Event::Round(mut round) = double::round(text) else { unreachable!("a round") };
        round.tokens[0].logprobs = read;
        round
    }

    #[test]
    fn pieces_add_up_to_prompt_and_answer() {
        let bytes = Arc::new(TokenBytes([b"a", b"b"].iter().map(|b| b.to_vec().into_boxed_slice()).collect()));
        let mut writer = PieceWriter::new(false, true, &bytes);
        let read = LogProbs { chosen: -1.0, top: Vec::new() };
        let mut whole = writer.empty();
        let prompt = [(0, None), (1, Some(read.clone()))];
        whole.push(writer.prompt(&prompt.map(|(id, logprobs)| PromptToken { id, logprobs })));
        assert!(writer.round(&round("", None)).is_empty(), "an end token");
        let held_back = writer.round(&round("", Some(read)));
        assert!(!held_back.is_empty(), "its log-probability is told although its text is held back");
        whole.push(held_back);
        whole.push(writer.round(&round("xx", None)));
        assert_eq!(whole.text, "abxx");
        let told = serde_json::to_value(whole.logprobs).expect("serialises");
        assert_eq!(told["token_logprobs"], json!([null, -1.0, -1.0]));
        assert_eq!(told["text_offset"], json!([0, 1, 2]));
    }

    #[test]
    fn who_asks_for_no_log_probabilities_gets_none() {
        let mut writer = PieceWriter::new(true, false, &Arc::default());
        assert_eq!(writer.round(&round("", None)), Piece::default());
        assert_eq!(writer.empty().logprobs, None);
        assert!(PieceWriter::new(true, true, &Arc::default()).empty().logprobs.is_some());
    }
}
