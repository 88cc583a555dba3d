//! Pictures as inline SVG. Colours are classes of the page's style sheet, so that they follow the reader's light or dark.

use std::fmt::Write as _;

/// Width that a character takes on average, at the size of labels.
pub(super) const CHARACTER: f64 = 6.7;

/// A picture in the making; lengths in pixels.
pub(super) struct Picture {
    width: f64,
    height: f64,
    body: String,
}

impl Picture {
    pub(super) fn new(width: f64, height: f64) -> Self {
        Self { width, height, body: String::new() }
    }

    /// A rectangle; pointing at it shows `told`.
    pub(super) fn rect(&mut self, (x, y): (f64, f64), (width, height): (f64, f64), class: &str, told: &str) {
        self.write(format_args!(
            "<rect class=\"{class}\" x=\"{x:.1}\" y=\"{y:.1}\" width=\"{:.1}\" height=\"{height:.1}\"><title>{}</title></rect>",
            width.max(0.5),
            escaped(told)
        ));
    }

    pub(super) fn line(&mut self, (x1, y1): (f64, f64), (x2, y2): (f64, f64), class: &str) {
        self.write(format_args!(
            "<line class=\"{class}\" x1=\"{x1:.1}\" y1=\"{y1:.1}\" x2=\"{x2:.1}\" y2=\"{y2:.1}\"/>"
        ));
    }

    /// A line through points, and a dot at each.
    pub(super) fn path(&mut self, points: &[(f64, f64, String)], class: &str) {
        let through: Vec<String> = points.iter().map(|(x, y, _)| format!("{x:.1},{y:.1}")).collect();
        self.write(format_args!("<polyline class=\"curve {class}\" points=\"{}\"/>", through.join(" ")));
        for (x, y, told) in points {
            self.write(format_args!(
                "<circle class=\"dot {class}\" cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"4\"><title>{}</title></circle>",
                escaped(told)
            ));
        }
    }

    /// Text whose `anchor` (start, middle, end) lies at a point.
    pub(super) fn text(&mut self, (x, y): (f64, f64), anchor: &str, class: &str, text: &str) {
        self.write(format_args!(
            "<text class=\"{class}\" x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\">{}</text>",
            escaped(text)
        ));
    }

    /// The picture; `label` is what it shows, for those who do not see it.
    pub(super) fn finish(self, label: &str) -> String {
        let Self { width, height, body } = self;
        format!(
            "<svg viewBox=\"0 0 {width:.0} {height:.0}\" width=\"{width:.0}\" role=\"img\" aria-label=\"{}\">{body}</svg>",
            escaped(label)
        )
    }

    fn write(&mut self, what: std::fmt::Arguments<'_>) {
        // Writing to a String cannot fail.
        let _ = self.body.write_fmt(what);
    }
}

/// Text that is no markup.
pub(super) fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

/// Round numbers from 0 up to the first not below `most`, some four to eight of them.
pub(super) fn ticks(most: f64) -> Vec<f64> {
    if !(most.is_finite() && most > 0.0) {
        return vec![0.0, 1.0];
    }
    let power = 10_f64.powf((most / 5.0).log10().floor());
    let step = [1.0, 2.0, 5.0, 10.0].map(|factor| factor * power).into_iter().find(|step| most / step <= 6.0);
    let step = step.unwrap_or(10.0 * power);
    (0..=(most / step - 1e-9).ceil() as usize).map(|i| i as f64 * step).collect()
}

/// A tick's number, without the noise of its last bits.
pub(super) fn short(number: f64) -> String {
    let text = format!("{number:.3}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// Names beside the colours of their classes.
pub(super) fn legend(names: &[(String, String)]) -> String {
    let item = |(class, name): &(String, String)| format!("<li><i class=\"{class}\"></i>{}</li>", escaped(name));
    format!("<ul class=\"legend\">{}</ul>", names.iter().map(item).collect::<String>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_round_and_reach_the_top() {
        assert_eq!(ticks(2.3), [0.0, 0.5, 1.0, 1.5, 2.0, 2.5]);
        assert_eq!(ticks(1.0), [0.0, 0.2, 0.4, 0.6000000000000001, 0.8, 1.0]);
        assert_eq!(short(0.6000000000000001), "0.6");
        assert_eq!(ticks(900.0).last(), Some(&1000.0));
        assert_eq!(ticks(f64::NAN), [0.0, 1.0]);
    }

    #[test]
    fn what_users_name_is_no_markup() {
        let mut picture = Picture::new(10.0, 10.0);
        picture.text((0.0, 0.0), "start", "label", "<script>\"&");
        let drawn = picture.finish("a \"b\"");
        assert!(
            drawn.contains("&lt;script&gt;&quot;&amp;") && drawn.contains("aria-label=\"a &quot;b&quot;\""),
            "{drawn}"
        );
    }
}
