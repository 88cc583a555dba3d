//! Which outcomes of a round are worth rolling out before the round is decided (Mirror-SD §3; scores are ours).

use crate::TokenId;

/// Who guessed an outcome.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Source {
    /// The draft's own rows, known when it finished drafting (as in SSD, arXiv:2603.03251).
    Draft,
    /// The target's early exit, known half-way through the pass.
    Exit,
}

/// How the branch budget is spent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Allocation {
    /// The best outcomes by estimated probability, whatever their row (ours).
    Scored,
    /// The best κ of every row (the paper's).
    PerRow,
}

/// A guess at a round's outcome: the first `accepted` draft tokens are accepted and the next token is `next`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Outcome {
    /// j, draft tokens accepted.
    pub accepted: usize,
    /// v, the correction (j < γ) or bonus (j = γ).
    pub next: TokenId,
    /// Estimated log-probability of (j, v).
    pub log_probability: f32,
    /// Whose guess it is.
    pub source: Source,
}

/// Candidates for the token that follows a row, with perturbed scores, best first (`Chain::ranked`); empty where nothing is
/// known.
pub type Candidates = Vec<(TokenId, f32)>;

/// How far the scores of the draft and of the exit can be relied upon: what their differences are multiplied with before
/// they are added up. Learnt from what comes true, by the gradient of its log-probability.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Trust {
    weights: [f32; 2],
    /// Sums of the gradients' squares (AdaGrad, Duchi et al. 2011).
    squares: [f32; 2],
}

impl Default for Trust {
    fn default() -> Self {
        Self { weights: [1.0; 2], squares: [1.0; 2] }
    }
}

impl Trust {
    /// What a row teaches moves a weight by at most this.
    const STEP: f32 = 0.1;
    /// Weights stay between these.
    const BOUNDS: (f32, f32) = (0.1, 3.0);

    /// Takes in what the target drew after a row of which draft and exit had said this.
    pub fn learn(&mut self, row: [&[(TokenId, f32)]; 2], drawn: TokenId) {
        let candidates = self.weighed(row);
        let Some((_, lags, _)) = candidates.iter().find(|c| c.0 == drawn) else { return };
        for (guesser, lag) in lags.iter().enumerate() {
            let expected: f32 = candidates.iter().map(|(_, lags, log_p)| log_p.exp() * lags[guesser]).sum();
            let gradient = lag - expected;
            self.squares[guesser] += gradient * gradient;
            let weight = self.weights[guesser] + Self::STEP * gradient / self.squares[guesser].sqrt();
            self.weights[guesser] = weight.clamp(Self::BOUNDS.0, Self::BOUNDS.1);
        }
    }

    /// Probability of the likeliest token after a row of which draft and exit said this; 0 if they said nothing.
    pub fn best(&self, row: [&[(TokenId, f32)]; 2]) -> f32 {
        self.weighed(row).first().map_or(0.0, |c| c.2.exp())
    }

    /// Every candidate of a row, by how much it lags behind each guesser's best, and its log-probability.
    fn weighed(&self, row: [&[(TokenId, f32)]; 2]) -> Vec<(TokenId, [f32; 2], f32)> {
        let mut candidates: Vec<(TokenId, [f32; 2], f32)> = Vec::new();
        for (token, _) in row.into_iter().flatten() {
            if candidates.iter().all(|c| c.0 != *token) {
                let lags = row.map(|candidates| lag(candidates, *token));
                candidates.push((*token, lags, self.weights[0] * lags[0] + self.weights[1] * lags[1]));
            }
        }
        let best = candidates.iter().map(|c| c.2).fold(f32::NEG_INFINITY, f32::max);
        let log_z = best + candidates.iter().map(|c| (c.2 - best).exp()).sum::<f32>().ln();
        candidates.iter_mut().for_each(|c| c.2 -= log_z);
        candidates.sort_by(|a, b| b.2.total_cmp(&a.2));
        candidates
    }
}

/// How much lower a token scores than the best candidate. One outside of the candidates scores less than the last of them,
/// and counts as that.
fn lag(candidates: &[(TokenId, f32)], token: TokenId) -> f32 {
    // Beyond it, a token is out of the question.
    const MOST: f32 = -30.0;
    let found = candidates.iter().find(|c| c.0 == token).or(candidates.last());
    found.map_or(0.0, |c| (c.1 - candidates[0].1).max(MOST))
}

/// What draft and exit make of a round's outcome.
///
/// P(c = v | row j) is estimated by a softmax over the candidates of both, weighed by a [`Trust`]; P(τ = j) is the product of
/// the probabilities of the draft tokens before. For j < γ the draft token itself is excluded: it would have been accepted.
/// The outcomes come in the order of estimated probability; with [`Allocation::PerRow`] they are the first `top` of each row,
/// row by row. There are at most `budget` of them.
pub fn outcomes(
    window: &[TokenId],
    [draft, exit]: [&[Candidates]; 2],
    trust: &Trust,
    (allocation, top, budget): (Allocation, usize, usize),
) -> Vec<Outcome> {
    let of_a_row = if allocation == Allocation::PerRow { top } else { usize::MAX };
    let mut found = Vec::new();
    let mut reach = 0.0_f32;
    for accepted in 0..=window.len() {
        let row = [draft, exit].map(|rows| rows.get(accepted).map_or(&[][..], Vec::as_slice));
        let candidates = trust.weighed(row);
        let drafted = window.get(accepted);
        let others = candidates.iter().filter(|c| Some(&c.0) != drafted).take(of_a_row);
        found.extend(others.map(|&(next, _, log_p)| {
            let source = if row[0].iter().any(|c| c.0 == next) { Source::Draft } else { Source::Exit };
            Outcome { accepted, next, log_probability: reach + log_p, source }
        }));
        // Without a row nothing is known of what follows either.
        let Some(last) = candidates.last() else { break };
        reach += candidates.iter().find(|c| Some(&c.0) == drafted).unwrap_or(last).2;
    }
    if allocation == Allocation::Scored {
        // Stable: equal scores keep row order.
        found.sort_by(|a, b| b.log_probability.total_cmp(&a.log_probability));
    }
    found.truncate(budget);
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pairs(outcomes: &[Outcome]) -> Vec<(usize, TokenId)> {
        outcomes.iter().map(|o| (o.accepted, o.next)).collect()
    }

    fn scored(window: &[TokenId], draft: &[Candidates], exit: &[Candidates], budget: usize) -> Vec<Outcome> {
        outcomes(window, [draft, exit], &Trust::default(), (Allocation::Scored, 8, budget))
    }

    #[test]
    fn a_confident_exit_puts_the_budget_behind_the_whole_window() {
        let sure = |t| vec![(t, 10.0), (99, 0.0)];
        let rows = [sure(1), sure(2), vec![(7, 5.0), (8, 4.0), (9, 3.0)]];
        assert_eq!(pairs(&scored(&[1, 2], &[], &rows, 3)), [(2, 7), (2, 8), (2, 9)]);
    }

    #[test]
    fn a_doubted_row_gets_its_corrections() {
        let rows = [vec![(4, 3.0), (1, 1.0)], vec![(2, 9.0)], vec![(7, 5.0)]];
        assert_eq!(pairs(&scored(&[1, 2], &[], &rows, 2)), [(0, 4), (2, 7)]);
    }

    #[test]
    fn the_draft_token_is_never_its_own_correction() {
        let rows = [vec![(1, 3.0), (5, 2.0)]];
        let per_row = outcomes(&[1], [&rows, &[]], &Trust::default(), (Allocation::PerRow, 2, 9));
        assert_eq!(pairs(&per_row), [(0, 5)]);
    }

    #[test]
    fn both_have_their_say() {
        let draft = [vec![(1, 3.0), (5, 2.5), (6, 0.0)]];
        let exit = [vec![(6, 4.0), (1, 3.0), (8, 1.0)]];
        let joined = scored(&[1], &draft, &exit, 9);
        let of = |next| joined.iter().find(|o| o.next == next).copied().expect("a candidate of one of them");
        assert_eq!([5, 6, 8].map(|next| of(next).source), [Source::Draft, Source::Draft, Source::Exit]);
        // Together: 1 lags by 0 + 1, 5 by 0.5 + 3, 6 by 3 + 0 and 8 by 3 + 3.
        let odds = (of(6).log_probability - of(5).log_probability, of(6).log_probability - of(8).log_probability);
        assert!((odds.0 - 0.5).abs() < 1e-5 && (odds.1 - 3.0).abs() < 1e-5, "{odds:?}");
        let all: f32 = joined.iter().map(|o| o.log_probability.exp()).sum();
        let accepted = (-1.0_f32).exp() / [1.0_f32, 3.5, 3.0, 6.0].map(|lag| (-lag).exp()).iter().sum::<f32>();
        assert!((all + accepted - 1.0).abs() < 1e-5, "{all} and {accepted}");
        assert_eq!(Trust::default().best([&draft[0], &exit[0]]), accepted, "of all, the draft token is likeliest");
    }

    #[test]
    fn a_guesser_is_trusted_as_far_as_it_is_right() {
        // The first is right in nine of ten cases where it claims three of four; the second knows nothing.
        let claimed = 3.0_f32.ln();
        let mut trust = Trust::default();
        for i in 0..2000 {
            let noise = if i % 2 == 0 { [(1, 1.0), (2, 0.0)] } else { [(2, 1.0), (1, 0.0)] };
            trust.learn([&[(1, claimed), (2, 0.0)], &noise], if i % 20 < 18 { 1 } else { 2 });
        }
        assert!((trust.weights[0] - 2.0).abs() < 0.1, "nine to one is three to one squared: {trust:?}");
        assert!(trust.weights[1] < 0.15, "{trust:?}");
        let before = trust;
        trust.learn([&[(1, 0.0)], &[(2, 0.0)]], 9);
        assert_eq!(trust, before, "what nobody expected tells nothing of either");
    }
}
