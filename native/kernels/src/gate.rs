//! What a feed-forward block does between its products.

use crate::isa::{Isa, compiled_for_each_isa};
use crate::math::exp;
use crate::team::{Parts, Team};

/// `to = silu(gate) · up` for rows `[gate | up]` of x `[L, 2 · width]`; `to` is `[L, width]`.
///
/// # Panics
/// If shapes do not fit.
pub fn gate(team: &Team, x: &[f32], width: usize, to: &mut [f32]) {
    assert!(x.len() == 2 * to.len() && to.len().is_multiple_of(width), "{} → {} values", x.len(), to.len());
    let rows = to.len() / width;
    let to = Parts::new(to);
    team.run(rows, 2, &|range| {
        for row in range {
            let (gate, up) = x[2 * row * width..2 * (row + 1) * width].split_at(width);
            // SAFETY: each row is one task's.
            gate_row(team.isa(), gate, up, unsafe { to.part(row * width..(row + 1) * width) });
        }
    });
}

compiled_for_each_isa! {
    /// `to = silu(gate) · up` for separate gates.
    pub fn gate_row(gate: &[f32], up: &[f32], to: &mut [f32]) = gate_body;
}

compiled_for_each_isa! {
    /// Gradients of [`gate_row`] by `gate` and by `up`, from the `gradient` by what it gives.
    pub fn gate_slopes(gate: &[f32], up: &[f32], gradient: &[f32], by_gate: &mut [f32], by_up: &mut [f32]) = slopes_body;
}

#[inline(always)]
fn gate_body(gate: &[f32], up: &[f32], to: &mut [f32]) {
    for ((to, gate), up) in to.iter_mut().zip(gate).zip(up) {
        *to = gate / (1.0 + exp(-gate)) * up;
    }
}

#[inline(always)]
fn slopes_body(gate: &[f32], up: &[f32], gradient: &[f32], by_gate: &mut [f32], by_up: &mut [f32]) {
    let inputs = gate.iter().zip(up).zip(gradient);
    for (((gate, up), gradient), (by_gate, by_up)) in inputs.zip(by_gate.iter_mut().zip(by_up)) {
        let sigmoid = 1.0 / (1.0 + exp(-gate));
        *by_gate = gradient * up * sigmoid * (1.0 + gate * (1.0 - sigmoid));
        *by_up = gradient * gate * sigmoid;
    }
}

/// `x = max(x, 0)`.
pub fn relu(isa: Isa, x: &mut [f32]) {
    relu_all(isa, x);
}

compiled_for_each_isa! {
    fn relu_all(x: &mut [f32]) = relu_body;
}

#[inline(always)]
fn relu_body(x: &mut [f32]) {
    for x in x {
        // Not `max`: what is not a number stays so.
        *x = if *x < 0.0 { 0.0 } else { *x };
    }
}
