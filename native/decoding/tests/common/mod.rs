//! A model small enough to enumerate, and the round as the engine runs it, with the places marked where it can be done
//! wrong.
#![allow(dead_code, reason = "each test uses its part")]

use specula_decoding::draw::own_draw;
use specula_decoding::model::{OnExit, chain_nodes};
use specula_decoding::verify::verify;
use specula_decoding::{
    Chain, LanguageModel, Logits, ModelError, NewNode, Noise, NoiseRows, PolicyError, Row, Rule, Sampling, TokenId,
    TokenTree,
};

/// A language model whose rows depend on the last three tokens of a path, looked up through its cache.
pub(crate) struct Toy {
    vocab: usize,
    /// 0: the target; more: a draft that disagrees more often.
    skew: f32,
    cache: Vec<NewNode>,
    linear: usize,
}

impl Toy {
    pub(crate) fn new(vocab: usize, skew: f32) -> Self {
        Self { vocab, skew, cache: Vec::new(), linear: 0 }
    }

    /// The row after `path`, without a cache.
    pub(crate) fn row(&self, path: &[TokenId]) -> Vec<f32> {
        let mut seed = 17;
        for token in &path[path.len().saturating_sub(3)..] {
            seed = scramble(seed ^ u64::from(*token));
        }
        let unit = |x: u64| (scramble(x) >> 40) as f32 / (1 << 24) as f32;
        let logit = |t: u64| 5.0 * unit(seed ^ (t << 8)) + self.skew * unit(seed ^ (t << 8) ^ 1);
        (0..self.vocab as u64).map(logit).collect()
    }

    fn path(&self, mut slot: usize) -> Vec<TokenId> {
        let mut path = vec![self.cache[slot].token];
        while let Some(parent) = self.cache[slot].parent {
            slot = parent;
            path.push(self.cache[slot].token);
        }
        path.reverse();
        path
    }
}

/// SplitMix64's output function.
fn scramble(x: u64) -> u64 {
    let x = x.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let x = (x ^ (x >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let x = (x ^ (x >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    x ^ (x >> 31)
}

impl LanguageModel for Toy {
    fn vocab_size(&self) -> usize {
        self.vocab
    }

    fn context_length(&self) -> usize {
        usize::MAX
    }

    fn linear(&self) -> usize {
        self.linear
    }

    fn slots(&self) -> usize {
        self.cache.len()
    }

    fn forward(&mut self, nodes: &[NewNode], _: Option<(usize, OnExit<'_>)>) -> Result<Logits, ModelError> {
        let mut rows = Vec::new();
        for node in nodes {
            let slot = self.cache.len();
            if self.linear == slot && node.parent == slot.checked_sub(1) {
                self.linear += 1;
            }
            self.cache.push(*node);
            rows.extend(self.row(&self.path(slot)));
        }
        Ok(Logits::new(rows, self.vocab))
    }

    fn prefill(&mut self, tokens: &[TokenId]) -> Result<(), ModelError> {
        self.forward(&chain_nodes(tokens, self.linear), None).map(|_| ())
    }

    fn keep(&mut self, from: usize, path: &[usize]) -> Result<(), ModelError> {
        let kept: Vec<TokenId> = path.iter().map(|slot| self.cache[*slot].token).collect();
        self.cache.truncate(from);
        self.linear = from;
        self.prefill(&kept)
    }
}

/// A rule with state: what was committed twice becomes unlikely.
#[derive(Default)]
pub(crate) struct Bored {
    seen: Vec<TokenId>,
    /// Wrong: takes draft tokens for committed ones.
    leaks: bool,
}

impl Rule for Bored {
    fn apply(&mut self, path: &[TokenId], first: usize, rows: &mut [&mut Row]) -> Result<(), PolicyError> {
        for (i, row) in rows.iter_mut().enumerate() {
            for token in self.seen.iter().chain(&path[..first + i]) {
                row.bias(*token, -0.4);
            }
        }
        if self.leaks {
            self.seen.extend(path.last());
        }
        Ok(())
    }

    fn commit(&mut self, tokens: &[TokenId]) -> Result<(), PolicyError> {
        self.seen.extend(tokens);
        Ok(())
    }
}

/// Verifiers that are wrong in one way each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wrong {
    /// At the first mismatch the draft token is emitted instead of the own draw.
    EmitsTheDraftToken,
    /// Draft tokens behind the first mismatch are accepted if they equal their rows' draws.
    DoesNotStop,
    /// The target draws with noise keyed by the round instead of the position.
    KeysNoiseByRound,
    /// Rejected tokens stay in the cache.
    KeepsTheCache,
    /// Rejected tokens stay in the rule's state.
    KeepsRuleState,
}

/// How many tokens are drafted and in which shape.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Drafts {
    /// γ in a row.
    Chain(usize),
    /// Two alternatives at every depth.
    Tree(usize),
}

/// Generates `count` tokens after `prompt`. `Drafts::Chain(0)` is plain decoding.
pub(crate) fn decode(
    vocab: usize,
    sampling: &Sampling,
    count: usize,
    drafts: Drafts,
    wrong: Option<Wrong>,
) -> Vec<TokenId> {
    let prompt = [1, 2, 3];
    let mut text = prompt.to_vec();
    let mut target = Toy::new(vocab, 0.0);
    target.prefill(&prompt[..2]).expect("a toy cannot fail");
    let rule = Bored { leaks: wrong == Some(Wrong::KeepsRuleState), ..Bored::default() };
    let mut chain = Chain::new(sampling.clone(), &prompt, vec![Box::new(rule)]);
    let mut round = 0;
    while text.len() < prompt.len() + count {
        let tree = propose(vocab, sampling, &text, drafts);
        let anchor = target.slots();
        let mut nodes = chain_nodes(&text[text.len() - 1..], anchor);
        nodes.extend(
            tree.nodes().map(|(token, parent)| NewNode { token, parent: Some(anchor + parent.map_or(0, |p| p + 1)) }),
        );
        let rows = target.forward(&nodes, None).expect("a toy cannot fail");
        let paths: Vec<Vec<TokenId>> = std::iter::once(Vec::new())
            .chain((0..tree.len()).map(|node| tree.path(node).into_iter().map(|n| tree.token(n)).collect()))
            .collect();
        let mut processed: Vec<Row> = (0..rows.rows()).map(|i| Row::new(rows.row(i))).collect();
        for (row, path) in processed.iter_mut().zip(&paths) {
            chain.process(path, path.len(), &mut [row]).expect("the rule cannot fail");
        }
        let draw = |node: Option<usize>| {
            let i = node.map_or(0, |n| n + 1);
            if wrong == Some(Wrong::KeysNoiseByRound) && !sampling.is_greedy() {
                let noise = NoiseRows::new(Noise::new(sampling.seed, 0));
                let at = Some((&noise, 1000 + round * 100 + paths[i].len() as u32));
                return Ok(own_draw(&processed[i], at).expect("no token is forbidden"));
            }
            chain.draw(&processed[i], paths[i].len())
        };
        let verdict = verify(&tree, draw).expect("no token is forbidden");
        let mut tokens: Vec<TokenId> = verdict.path.iter().map(|n| tree.token(*n)).collect();
        match (wrong, tree.as_chain()) {
            (Some(Wrong::EmitsTheDraftToken), Some(window)) if tokens.len() < window.len() => {
                tokens.push(window[tokens.len()]);
            }
            (Some(Wrong::DoesNotStop), Some(window)) => {
                let draws = (0..=window.len()).map(|j| draw(j.checked_sub(1)).expect("no token is forbidden"));
                let draws: Vec<TokenId> = draws.collect();
                let last = (0..window.len()).rev().find(|j| window[*j] == draws[*j]).map_or(0, |j| j + 1);
                tokens = draws[..=last].to_vec();
            }
            _ => tokens.push(verdict.next),
        }
        match wrong {
            Some(Wrong::KeepsTheCache) => target.linear = target.slots(),
            Some(Wrong::DoesNotStop) => {
                target.keep(anchor + 1, &[]).expect("a toy cannot fail");
                target.prefill(&tokens[..tokens.len() - 1]).expect("a toy cannot fail");
            }
            _ => {
                let path: Vec<usize> = verdict.path.iter().map(|n| anchor + 1 + n).collect();
                target.keep(anchor + 1, &path).expect("a toy cannot fail");
            }
        }
        chain.commit(&tokens).expect("the rule cannot fail");
        text.extend(&tokens);
        round += 1;
    }
    text.truncate(prompt.len() + count);
    text.split_off(prompt.len())
}

/// Drafts with the target's noise (drafter-invariant coupling) from a model that is a little off and knows no rule.
fn propose(vocab: usize, sampling: &Sampling, text: &[TokenId], drafts: Drafts) -> TokenTree {
    let draft = Toy::new(vocab, 1.5);
    let (depth, width) = match drafts {
        Drafts::Chain(depth) => (depth, 1),
        Drafts::Tree(depth) => (depth, 2),
    };
    let mut tree = TokenTree::default();
    let mut path = text.to_vec();
    let mut parent = None;
    for _ in 0..depth {
        let chain = Chain::new(sampling.clone(), &path, Vec::new());
        let ranked = chain.ranked(&Row::new(&draft.row(&path)), 0, width);
        let nodes: Vec<usize> = ranked.iter().map(|(token, _)| tree.push(*token, parent)).collect();
        parent = Some(nodes[0]);
        path.push(ranked[0].0);
    }
    tree
}
