//! Writes down what plugins would see of each round, for `specula plugin run` and for the windows that uploads are measured
//! on.

use std::sync::mpsc::Sender;

use specula_decoding::{Chain, Row, TokenId};
use specula_policies::{RecordedRound, RecordedRow};

use crate::event::Token;

/// Of one generation.
#[derive(Debug)]
pub(crate) struct Recorder {
    to: Sender<RecordedRound>,
    /// The round in progress.
    round: Option<RecordedRound>,
}

impl Recorder {
    pub(crate) fn new(to: Sender<RecordedRound>) -> Self {
        Self { to, round: None }
    }

    /// A window was judged; `rows` are all of its rows after the sampling rules, and `chain` has not moved on.
    pub(crate) fn window(&mut self, chain: &Chain, (draft, log_q): (Vec<TokenId>, &[f32]), rows: &[Row]) {
        // Beyond the first mismatch a row may have lost its support.
        let own_draw = rows.iter().enumerate().map_while(|(depth, row)| chain.draw(row, depth).ok()).collect();
        self.round = Some(RecordedRound {
            log_q: log_q.iter().copied().take(draft.len()).collect(),
            draft,
            rows: rows.iter().map(RecordedRow::of).collect(),
            own_draw,
            committed: Vec::new(),
            pieces: Vec::new(),
        });
    }

    /// What became of it.
    pub(crate) fn committed(&mut self, tokens: &[Token]) {
        let Some(mut round) = self.round.take() else { return };
        round.committed = tokens.iter().map(|token| token.id).collect();
        round.pieces = tokens.iter().map(|token| token.text.clone()).collect();
        // Who asked may have enough.
        let _ = self.to.send(round);
    }
}
