//! Horizontal bars, whole or made of parts, with an interval or a mark if there is one.

use super::svg::{CHARACTER, Picture, short, ticks};

/// One bar.
pub(super) struct Bar {
    pub(super) label: String,
    /// Lengths with their colours and what they are, from left to right.
    pub(super) parts: Vec<(f64, String, String)>,
    pub(super) interval: Option<[f64; 2]>,
    /// Something to be compared with the bar's end.
    pub(super) mark: Option<(f64, String)>,
    /// Right of the plot.
    pub(super) note: String,
}

impl Bar {
    pub(super) fn end(&self) -> f64 {
        let parts = self.parts.iter().map(|part| part.0).sum::<f64>();
        let interval = self.interval.map_or(0.0, |interval| interval[1]);
        parts.max(interval).max(self.mark.as_ref().map_or(0.0, |mark| mark.0))
    }
}

const ROW: f64 = 26.0;
const THICK: f64 = 16.0;
const PLOT: f64 = 560.0;
const TOP: f64 = 8.0;

/// Bars under each other over an axis of `unit` up to `most`; a thin line stands at `reference`.
pub(super) fn draw(bars: &[Bar], most: f64, unit: &str, reference: Option<f64>, about: &str) -> String {
    let widest = |of: fn(&Bar) -> usize| bars.iter().map(of).max().unwrap_or(0) as f64 * CHARACTER;
    let left = widest(|bar| bar.label.chars().count()) + 14.0;
    let right = widest(|bar| bar.note.chars().count()) + 16.0;
    let ticks = ticks(most);
    let scale = PLOT / ticks[ticks.len() - 1];
    let bottom = TOP + ROW * bars.len() as f64;
    let mut picture = Picture::new(left + PLOT + right, bottom + 40.0);
    for tick in &ticks {
        let x = left + tick * scale;
        picture.line((x, TOP), (x, bottom), "grid");
        picture.text((x, bottom + 16.0), "middle", "tick", &short(*tick));
    }
    picture.text((left + PLOT / 2.0, bottom + 34.0), "middle", "axis", unit);
    for (i, bar) in bars.iter().enumerate() {
        let y = TOP + ROW * i as f64 + (ROW - THICK) / 2.0;
        let middle = y + THICK / 2.0;
        picture.text((left - 8.0, middle + 4.0), "end", "label", &bar.label);
        let mut x = left;
        for (length, class, told) in bar.parts.iter().filter(|part| part.0 > 0.0) {
            picture.rect((x, y), (length * scale, THICK), class, &format!("{}: {told}", bar.label));
            x += length * scale;
        }
        if let Some([low, high]) = bar.interval {
            let (low, high) = (left + low * scale, left + high * scale);
            picture.line((low, middle), (high, middle), "whisker");
            picture.line((low, middle - 4.0), (low, middle + 4.0), "whisker");
            picture.line((high, middle - 4.0), (high, middle + 4.0), "whisker");
        }
        if let Some((at, told)) = &bar.mark {
            picture.rect((left + at * scale - 1.5, y - 3.0), (3.0, THICK + 6.0), "mark", told);
        }
        picture.text((left + PLOT + 12.0, middle + 4.0), "start", "note", &bar.note);
    }
    if let Some(reference) = reference {
        let x = left + reference * scale;
        picture.line((x, TOP), (x, bottom), "reference");
    }
    picture.finish(about)
}
