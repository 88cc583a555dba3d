//! A draft whose rows are of another size than its target's. Models of one family share their tokens, but not always
//! the number of rows their tables were padded to (Qwen2.5: 151,936 up to 3B, 152,064 from 7B on).

use specula_decoding::model::{ExitRows, OnExit};
use specula_decoding::{LanguageModel, Logits, ModelError, NewNode, TokenId};

/// A model seen with rows of another size: entries that it does not have are −∞, those that are too many are cut off.
pub struct Resized {
    model: Box<dyn LanguageModel>,
    rows: usize,
}

impl Resized {
    /// Shows `model` with rows of `rows` entries.
    pub fn new(model: Box<dyn LanguageModel>, rows: usize) -> Self {
        Self { model, rows }
    }

    /// A padding token that only the target has is fed as token 0: it stands for no text, and what a draft guesses after
    /// it cannot change what is drawn.
    fn own(&self, token: TokenId) -> TokenId {
        if (token as usize) < self.model.vocab_size() { token } else { 0 }
    }

    fn own_nodes(&self, nodes: &[NewNode]) -> Vec<NewNode> {
        nodes.iter().map(|n| NewNode { token: self.own(n.token), ..*n }).collect()
    }
}

fn resize(logits: &Logits, rows: usize) -> Logits {
    let mut data = Vec::with_capacity(logits.rows() * rows);
    for i in 0..logits.rows() {
        let row = logits.row(i);
        data.extend_from_slice(&row[..row.len().min(rows)]);
        data.resize((i + 1) * rows, f32::NEG_INFINITY);
    }
    Logits::new(data, rows)
}

impl LanguageModel for Resized {
    fn vocab_size(&self) -> usize {
        self.rows
    }

    fn context_length(&self) -> usize {
        self.model.context_length()
    }

    fn linear(&self) -> usize {
        self.model.linear()
    }

    fn slots(&self) -> usize {
        self.model.slots()
    }

    fn forward(&mut self, nodes: &[NewNode], exit: Option<(usize, OnExit<'_>)>) -> Result<Logits, ModelError> {
        let nodes = self.own_nodes(nodes);
        let rows = self.rows;
        let logits = match exit {
            None => self.model.forward(&nodes, None),
            Some((layer, on_exit)) => {
                let mut resized = |exit: ExitRows| on_exit(resize(&exit, rows));
                self.model.forward(&nodes, Some((layer, &mut resized)))
            }
        }?;
        Ok(resize(&logits, rows))
    }

    fn streams(&self) -> usize {
        self.model.streams()
    }

    fn look_ahead(&mut self, nodes: &[NewNode], from: &[usize], count: usize) -> Result<Logits, ModelError> {
        Ok(resize(&self.model.look_ahead(&self.own_nodes(nodes), from, count)?, self.rows))
    }

    fn prefill(&mut self, tokens: &[TokenId]) -> Result<(), ModelError> {
        let tokens: Vec<TokenId> = tokens.iter().map(|t| self.own(*t)).collect();
        self.model.prefill(&tokens)
    }

    fn keep(&mut self, from: usize, path: &[usize]) -> Result<(), ModelError> {
        self.model.keep(from, path)
    }
}
