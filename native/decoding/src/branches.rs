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

/// Outcomes in the order of estimated probability, at most `budget` of them (`Scored`) or the first `top` of each row
/// (`PerRow`, still at most `budget`).
///
/// `rows[j]` are row j's candidates with perturbed scores, best first (`Chain::ranked`); rows beyond those given are
/// unknown. P(c = v | row j) is estimated by a softmax over the row's candidates; P(τ = j) is the product of the
/// probabilities of the draft tokens before. For j < γ the draft token itself is excluded: it would have been
/// accepted.
pub fn outcomes(
    window: &[TokenId],
    rows: &[Vec<(TokenId, f32)>],
    source: Source,
    choice: (Allocation, usize, usize),
) -> Vec<Outcome> {
    let (allocation, top, budget) = choice;
    let mut found = Vec::new();
    let mut reach = 0.0_f32;
    for (accepted, row) in rows.iter().enumerate().take(window.len() + 1) {
        let drafted = window.get(accepted).copied();
        let Some(&(_, best)) = row.first() else { break };
        let log_z = best + row.iter().map(|c| (c.1 - best).exp()).sum::<f32>().ln();
        let others = row.iter().filter(|c| Some(c.0) != drafted).take(top);
        found.extend(others.map(|&(next, score)| Outcome {
            accepted,
            next,
            log_probability: reach + score - log_z,
            source,
        }));
        // A draft token outside the candidates is less likely than the last of them.
        let agreed = row.iter().find(|c| Some(c.0) == drafted).or(row.last());
        reach += agreed.map_or(f32::NEG_INFINITY, |c| c.1 - log_z);
    }
    if allocation == Allocation::Scored {
        // Stable: equal scores keep row order.
        found.sort_by(|a, b| b.log_probability.total_cmp(&a.log_probability));
    }
    found.truncate(budget);
    found
}

/// Joins two lists of outcomes, best first. The same (j, v) from both keeps the second list's score and the first
/// list's source; at most `budget` remain.
pub fn merge(first: &[Outcome], second: &[Outcome], budget: usize) -> Vec<Outcome> {
    let same = |a: &Outcome, b: &Outcome| (a.accepted, a.next) == (b.accepted, b.next);
    let mut all: Vec<Outcome> = second
        .iter()
        .map(|b| first.iter().find(|a| same(a, b)).map_or(*b, |a| Outcome { source: a.source, ..*b }))
        .collect();
    all.extend(first.iter().filter(|a| !second.iter().any(|b| same(a, b))));
    all.sort_by(|a, b| b.log_probability.total_cmp(&a.log_probability));
    all.truncate(budget);
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pairs(outcomes: &[Outcome]) -> Vec<(usize, TokenId)> {
        outcomes.iter().map(|o| (o.accepted, o.next)).collect()
    }

    #[test]
    fn a_confident_exit_puts_the_budget_behind_the_whole_window() {
        let sure = |t| vec![(t, 10.0), (99, 0.0)];
        let rows = [sure(1), sure(2), vec![(7, 5.0), (8, 4.0), (9, 3.0)]];
        let best = outcomes(&[1, 2], &rows, Source::Exit, (Allocation::Scored, 8, 3));
        assert_eq!(pairs(&best), [(2, 7), (2, 8), (2, 9)]);
    }

    #[test]
    fn a_doubted_row_gets_its_corrections() {
        let rows = [vec![(4, 3.0), (1, 1.0)], vec![(2, 9.0)], vec![(7, 5.0)]];
        let best = outcomes(&[1, 2], &rows, Source::Exit, (Allocation::Scored, 8, 2));
        assert_eq!(pairs(&best), [(0, 4), (2, 7)]);
    }

    #[test]
    fn the_draft_token_is_never_its_own_correction() {
        let rows = [vec![(1, 3.0), (5, 2.0)]];
        assert_eq!(pairs(&outcomes(&[1], &rows, Source::Draft, (Allocation::PerRow, 2, 9))), [(0, 5)]);
    }

    #[test]
    fn merging_keeps_one_of_each_with_the_later_score() {
        let outcome = |next, log_probability, source| Outcome { accepted: 0, next, log_probability, source };
        let first = [outcome(1, -1.0, Source::Draft), outcome(2, -2.0, Source::Draft)];
        let second = [outcome(2, -0.5, Source::Exit), outcome(3, -3.0, Source::Exit)];
        let all = merge(&first, &second, 2);
        assert_eq!(all, [outcome(2, -0.5, Source::Draft), outcome(1, -1.0, Source::Draft)]);
    }
}
