//! Draws the lanes of the last rounds. Where things stand is computed in [`crate::lanes`]; colours come from the style
//! sheet, so that they follow the theme.

use specula_protocol::Lane;
use wasm_bindgen::{JsCast, JsValue};
use web_sys::{CanvasRenderingContext2d, CssStyleDeclaration, HtmlCanvasElement, HtmlElement};

use crate::dom;
use crate::lanes::{self, Mark, Row, Timeline};

/// Room for the names of the lanes.
const LEFT: f64 = 46.0;
/// Room for half a label of the axis.
const RIGHT: f64 = 14.0;
/// Centre of the marks.
const MARK_Y: f64 = 9.0;
const LANE_HEIGHT: f64 = 28.0;
const TARGET_Y: f64 = 20.0;
const DRAFT_Y: f64 = 54.0;
const AXIS_Y: f64 = 88.0;

/// The canvas and its summary in words.
pub(crate) struct Chart {
    canvas: HtmlCanvasElement,
    context: CanvasRenderingContext2d,
    style: CssStyleDeclaration,
    summary: HtmlElement,
}

impl Chart {
    pub(crate) fn find() -> Result<Self, JsValue> {
        let canvas: HtmlCanvasElement = dom::by_id("lanes")?;
        let context = canvas.get_context("2d")?.ok_or("this browser cannot draw")?.dyn_into()?;
        let style = dom::window().get_computed_style(&canvas)?.ok_or("the chart has no style")?;
        Ok(Self { canvas, context, style, summary: dom::by_id("lanes-summary")? })
    }

    /// Draws all of it.
    pub(crate) fn draw(&self, timeline: &Timeline) -> Result<(), JsValue> {
        let width = f64::from(self.canvas.client_width());
        self.fit(width, f64::from(self.canvas.client_height()))?;
        let room = (width - LEFT - RIGHT).max(1.0);
        let layout = timeline.layout(LEFT, room);

        self.context.set_font("11px system-ui, sans-serif");
        self.context.set_text_baseline("middle");
        for (name, y) in [("Target", TARGET_Y), ("Draft", DRAFT_Y)] {
            self.fill("--track");
            self.context.fill_rect(LEFT, y, room, LANE_HEIGHT);
            self.fill("--muted");
            self.context.set_text_align("left");
            self.context.fill_text(name, 0.0, y + LANE_HEIGHT / 2.0)?;
        }
        for bar in &layout.bars {
            let y = match lanes::row(bar.lane) {
                Row::Target => TARGET_Y,
                Row::Draft => DRAFT_Y,
            };
            self.fill(colour(bar.lane));
            self.context.fill_rect(bar.x, y, bar.width, LANE_HEIGHT);
        }
        for mark in &layout.marks {
            self.mark(mark)?;
        }
        self.fill("--muted");
        self.context.set_text_align("center");
        let last = layout.ticks.len().saturating_sub(1);
        for (i, tick) in layout.ticks.iter().enumerate() {
            self.context.fill_rect(tick.x.round(), AXIS_Y, 1.0, 4.0);
            let label = if i == last { format!("{} ms", tick.label) } else { tick.label.clone() };
            self.context.fill_text(&label, tick.x.min(width - RIGHT - 6.0), AXIS_Y + 13.0)?;
        }
        self.summary.set_text_content(Some(&timeline.summary()));
        Ok(())
    }

    /// As many pixels as the screen has. Setting the size also clears the canvas.
    fn fit(&self, width: f64, height: f64) -> Result<(), JsValue> {
        let ratio = dom::window().device_pixel_ratio();
        self.canvas.set_width((width * ratio).round() as u32);
        self.canvas.set_height((height * ratio).round() as u32);
        self.context.set_transform(ratio, 0.0, 0.0, ratio, 0.0, 0.0)
    }

    /// A line where a round begins; above it a disc for a hit, a cross for a miss.
    fn mark(&self, mark: &Mark) -> Result<(), JsValue> {
        let x = mark.x.round() + 0.5;
        self.fill("--muted");
        self.context.fill_rect(x - 0.5, TARGET_Y - 3.0, 1.0, AXIS_Y - TARGET_Y + 3.0);
        let Some(hit) = mark.hit else { return Ok(()) };
        self.context.begin_path();
        if hit {
            self.fill("--hit");
            self.context.arc(x, MARK_Y, 4.0, 0.0, std::f64::consts::TAU)?;
            self.context.fill();
        } else {
            self.context.set_stroke_style_str(&self.value("--miss"));
            self.context.set_line_width(2.0);
            self.context.move_to(x - 3.0, MARK_Y - 3.0);
            self.context.line_to(x + 3.0, MARK_Y + 3.0);
            self.context.move_to(x + 3.0, MARK_Y - 3.0);
            self.context.line_to(x - 3.0, MARK_Y + 3.0);
            self.context.stroke();
        }
        Ok(())
    }

    fn fill(&self, property: &str) {
        self.context.set_fill_style_str(&self.value(property));
    }

    fn value(&self, property: &str) -> String {
        // An unknown property reads as empty, which leaves the colour as it was.
        self.style.get_property_value(property).unwrap_or_default()
    }
}

fn colour(lane: Lane) -> &'static str {
    match lane {
        Lane::TargetPrefix => "--lane-prefix",
        Lane::Exit => "--lane-exit",
        Lane::TargetSuffix => "--lane-suffix",
        Lane::Accept => "--lane-accept",
        Lane::DraftSerial => "--lane-serial",
        Lane::DraftRollout => "--lane-rollout",
    }
}
