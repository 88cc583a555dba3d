//! Curves over whole numbers.

use super::svg::{Picture, short, ticks};

/// One curve.
pub(super) struct Curve {
    pub(super) name: String,
    pub(super) class: String,
    /// In ascending order.
    pub(super) points: Vec<(usize, f64)>,
}

const PLOT: (f64, f64) = (410.0, 220.0);
const LEFT: f64 = 52.0;
const TOP: f64 = 10.0;

/// Curves over axes named `across` and `up`; the vertical one begins at 0 and ends at a round number not below `most`.
pub(super) fn draw(curves: &[Curve], most: f64, (across, up): (&str, &str), about: &str) -> String {
    let places = || curves.iter().flat_map(|curve| &curve.points).map(|point| point.0);
    let (first, last) = (places().min().unwrap_or(0), places().max().unwrap_or(1));
    let ticks = ticks(most);
    let (wide, high) = PLOT;
    let x = |place: usize| LEFT + (place - first) as f64 * wide / (last - first).max(1) as f64;
    let y = |value: f64| TOP + high - value * high / ticks[ticks.len() - 1];
    let mut picture = Picture::new(LEFT + wide + 16.0, TOP + high + 44.0);
    for tick in &ticks {
        picture.line((LEFT, y(*tick)), (LEFT + wide, y(*tick)), "grid");
        picture.text((LEFT - 8.0, y(*tick) + 4.0), "end", "tick", &short(*tick));
    }
    let every = (last - first).div_ceil(16).max(1);
    for place in (first..=last).step_by(every) {
        picture.text((x(place), TOP + high + 18.0), "middle", "tick", &place.to_string());
    }
    picture.text((LEFT + wide / 2.0, TOP + high + 38.0), "middle", "axis", &format!("{across} (up: {up})"));
    for curve in curves {
        let point =
            |(place, value): &(usize, f64)| (x(*place), y(*value), format!("{}: {}", curve.name, short(*value)));
        picture.path(&curve.points.iter().map(point).collect::<Vec<_>>(), &curve.class);
    }
    picture.finish(about)
}
