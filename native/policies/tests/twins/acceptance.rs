//! Twins of the acceptance policies.

use serde_json::Value;
use specula_decoding::WindowStats;

fn number(config: &Value, key: &str) -> f32 {
    config[key].as_f64().expect("a number") as f32
}

fn probability(window: &WindowStats, i: usize) -> f32 {
    libm::expf(window.log_p[i])
}

/// Keeps up to the first place where `stays` says no.
fn prefix(window: &WindowStats, stays: impl Fn(usize) -> bool) -> usize {
    let own = |i: usize| window.draft[i] == window.own_draw[i];
    (0..window.draft.len()).find(|&i| !own(i) && !stays(i)).unwrap_or(window.draft.len())
}

pub(crate) fn own_draw(window: &WindowStats, _config: &Value) -> usize {
    prefix(window, |_| false)
}

pub(crate) fn typical(window: &WindowStats, config: &Value) -> usize {
    let (epsilon, delta) = (number(config, "epsilon"), number(config, "delta"));
    prefix(window, |i| probability(window, i) > epsilon.min(delta * libm::expf(-window.entropy[i])))
}

pub(crate) fn top_k_lenient(window: &WindowStats, config: &Value) -> usize {
    let (k, ratio) = (number(config, "k") as u32, number(config, "ratio"));
    prefix(window, |i| window.rank[i] < k && probability(window, i) >= ratio * window.top_probability[i])
}

pub(crate) fn entropy_gate(window: &WindowStats, config: &Value) -> usize {
    let (gate, floor) = (number(config, "gate"), number(config, "floor"));
    let per_window = number(config, "per_window") as usize;
    prefix(window, |i| {
        let others = (0..=i).filter(|&j| window.draft[j] != window.own_draw[j]).count();
        others <= per_window && window.entropy[i] >= gate && probability(window, i) >= floor
    })
}
