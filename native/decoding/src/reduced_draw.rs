//! Draws from reduced rows: [`Chain`]'s steps 4 to 6 over the few tokens that a device found.

use std::cmp::Ordering;

use crate::reduced::{LOG_Z_ERROR, Reduced, Reduction};
use crate::{Chain, Penalties, TokenId};

/// Best tokens of a row that are asked for where the nucleus is cut: more would take longer than they spare.
pub const NUCLEUS: usize = 64;

/// Relative error of sums over a few tokens in f64, generously.
const SUM_ERROR: f64 = 1e-9;

impl Chain {
    /// What suffices of rows that follow the committed text at these depths: their best tokens as the draw ranks them, and
    /// `top` by logit, or as many as the nucleus may need. `None` if the rules need whole rows.
    pub fn reduction(&self, depths: impl Iterator<Item = usize>, ranked: usize, top: usize) -> Option<Reduction> {
        let s = self.sampling();
        let untouched = s.logit_bias.is_empty()
            && s.penalties == Penalties::default()
            && !self.has_plugins()
            && self.position(0) >= self.first_position() + s.min_tokens as u32;
        if !untouched || s.top_k >= NUCLEUS {
            return None;
        }
        Some(Reduction {
            temperature: if s.is_greedy() { 0.0 } else { s.temperature },
            noise: self.noise().noise(),
            positions: depths.map(|depth| self.position(depth)).collect(),
            ranked: if self.cuts() { 0 } else { ranked },
            top: if self.cuts() { NUCLEUS } else { top },
        })
    }

    /// The draw from a row of which this is known; `None` if only the whole row can tell.
    pub fn draw_reduced(&self, known: &Reduced, depth: usize) -> Option<TokenId> {
        if !self.cuts() {
            return known.ranked.first().map(|best| best.0);
        }
        let (nucleus, sure) = self.nucleus(known);
        let drawn = self.perturb(&nucleus, depth).first().map(|best| best.0);
        drawn.filter(|_| sure)
    }

    /// The `k` tokens that the draw most likely gives, with perturbed scores, best first, as far as can be known: what a
    /// guess needs.
    pub fn ranked_reduced(&self, known: &Reduced, depth: usize, k: usize) -> Vec<(TokenId, f32)> {
        let mut ranked = if self.cuts() { self.perturb(&self.nucleus(known).0, depth) } else { known.ranked.clone() };
        ranked.truncate(k);
        ranked
    }

    /// Whether tokens are cut off before the draw.
    fn cuts(&self) -> bool {
        let s = self.sampling();
        !s.is_greedy() && (s.top_k > 0 || s.top_p < 1.0 || s.min_p > 0.0)
    }

    /// Tokens with logit + noise, best first, of equals those of lower id.
    fn perturb(&self, scaled: &[(TokenId, f32)], depth: usize) -> Vec<(TokenId, f32)> {
        let (noise, position) = (self.noise().noise(), self.position(depth));
        let mut scores: Vec<_> = scaled.iter().map(|&(t, l)| (t, l + noise.gumbel(position, t))).collect();
        // Zeros are equal whatever their signs, as in the draw from whole rows.
        scores.sort_by(|a, b| b.1.partial_cmp(&a.1).unwrap_or(Ordering::Equal).then(a.0.cmp(&b.0)));
        scores
    }

    /// What top-k, top-p and min-p leave of a row, with logits divided by the temperature, and whether that is sure.
    fn nucleus(&self, known: &Reduced) -> (Vec<(TokenId, f32)>, bool) {
        let s = self.sampling();
        let mut best: Vec<(TokenId, f32)> = known.top.iter().map(|&(t, l)| (t, l / s.temperature)).collect();
        // Division may make equals of two, which then stand in the order of their ids.
        best.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
        let (Some(&(_, first)), Some(&(_, last))) = (best.first(), best.last()) else { return (best, false) };
        let mut sure = true;
        let mut all = (known.log_z - f64::from(first)).exp();
        let mut error = LOG_Z_ERROR;
        if s.top_k > 0 {
            sure &= best.get(s.top_k).is_some_and(|next| next.1 < best[s.top_k - 1].1);
            best.truncate(s.top_k);
            all = best.iter().map(|(_, l)| f64::from(l - first).exp()).sum();
            error = SUM_ERROR;
        }
        if s.top_p < 1.0 {
            let goal = f64::from(s.top_p) * all;
            let (mut mass, mut kept) = (0.0, 0);
            while mass < goal && kept < best.len() {
                mass += f64::from(best[kept].1 - first).exp();
                // Too near to the goal to say on which side of it.
                sure &= (mass - goal).abs() > error * all;
                kept += 1;
            }
            sure &= mass >= goal;
            best.truncate(kept);
        }
        if s.min_p > 0.0 {
            let floor = first + s.min_p.ln();
            best.retain(|(_, logit)| *logit >= floor);
        }
        // What is kept is among the best of the row only if it is better than the last of them; top-k saw to that itself.
        sure &= s.top_k > 0 || best.last().is_some_and(|kept| kept.1 > last);
        (best, sure)
    }
}
