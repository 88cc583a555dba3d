//! The state of the page. Every action ends up here and is handed on: `chat` talks with the server, `panel` is the rest.

mod chat;
mod panel;

use std::cell::RefCell;

use specula_protocol::{ModelCard, PluginCard};
use wasm_bindgen::closure::Closure;
use wasm_bindgen::{JsCast, JsValue};
use web_sys::HtmlElement;

use crate::banner::Banner;
use crate::chart::Chart;
use crate::composer::Composer;
use crate::controls::Controls;
use crate::conversation::Conversation;
use crate::lanes::Timeline;
use crate::meters::Meters;
use crate::plugins::Plugins;
use crate::progress::Progress;
use crate::settings::{Limits, Settings};
use crate::socket::{self, Socket};
use crate::transcript::{Exchange, Transcript};
use crate::{dom, key, listeners, storage};

thread_local! {
    static APP: RefCell<Option<App>> = const { RefCell::new(None) };
}

/// Whatever can happen.
#[derive(Debug)]
pub(crate) enum Action {
    /// Send what is written.
    Submit,
    /// Send this.
    Ask(String),
    /// End the answer.
    Stop,
    /// End the answer, or leave the panel.
    Escape,
    /// Ask again what failed.
    Retry,
    /// Hide the error.
    Dismiss,
    /// Forget the conversation.
    NewChat,
    /// Take over an answer's seed.
    UseSeed(String),
    /// A control was changed.
    Edited,
    /// Show or hide the settings, where there is no room for them beside the chat.
    TogglePanel,
    /// The messages were scrolled.
    Scrolled,
    /// Size or theme changed.
    Redraw,
    /// The browser is about to paint.
    Paint,
    /// The socket's news.
    Socket(socket::Event),
    /// The served models.
    Models(Result<Vec<ModelCard>, String>),
    /// A plugin was chosen to be brought to the server.
    Upload(web_sys::File),
    /// What became of it.
    Uploaded(Result<PluginCard, String>),
    /// The loaded plugins.
    Plugins(Result<Vec<PluginCard>, String>),
}

struct App {
    socket: Socket,
    transcript: Transcript,
    composer: Composer,
    banner: Banner,
    meters: Meters,
    chart: Chart,
    controls: Controls,
    plugins: Plugins,
    upload_report: HtmlElement,
    panel_toggle: HtmlElement,
    settings: Settings,
    limits: Limits,
    conversation: Conversation,
    running: Option<Generation>,
    failed: Option<Failed>,
    progress: Progress,
    timeline: Timeline,
    /// Names generations on the socket.
    asked: u64,
    paint: Closure<dyn FnMut()>,
    paint_due: bool,
}

/// The answer that is being written.
struct Generation {
    id: String,
    question: String,
    answer: String,
    exchange: Exchange,
}

/// The question whose answer failed last.
struct Failed {
    question: String,
    exchange: Exchange,
}

/// Finds the document's parts and begins to connect.
pub(crate) fn start() -> Result<(), JsValue> {
    let app = App {
        socket: Socket::connect()?,
        transcript: Transcript::find()?,
        composer: Composer::find()?,
        banner: Banner::find()?,
        meters: Meters::find()?,
        chart: Chart::find()?,
        controls: Controls::find()?,
        plugins: Plugins::find()?,
        upload_report: dom::by_id("upload-report")?,
        panel_toggle: dom::by_id("panel-toggle")?,
        settings: storage::load(),
        limits: Limits::default(),
        conversation: Conversation::default(),
        running: None,
        failed: None,
        progress: Progress::default(),
        timeline: Timeline::default(),
        asked: 0,
        paint: Closure::new(|| dispatch(Action::Paint)),
        paint_due: false,
    };
    key::check()?;
    app.controls.show(&app.settings);
    app.composer.focus();
    APP.with_borrow_mut(|slot| *slot = Some(app));
    listeners::attach()
}

/// Lets an action happen.
pub(crate) fn dispatch(action: Action) {
    APP.with_borrow_mut(|app| {
        if let Some(Err(error)) = app.as_mut().map(|app| app.handle(action)) {
            web_sys::console::error_1(&error);
        }
    });
}

impl App {
    fn handle(&mut self, action: Action) -> Result<(), JsValue> {
        match action {
            Action::Submit => self.submit()?,
            Action::Ask(question) => _ = self.ask(&question)?,
            Action::Stop => self.stop()?,
            Action::Escape if self.running.is_some() => self.stop()?,
            Action::Escape => self.open_panel(false),
            Action::Retry => self.retry()?,
            Action::Dismiss => self.banner.hide(),
            Action::NewChat => self.new_chat()?,
            Action::UseSeed(seed) => self.use_seed(seed),
            Action::Edited => self.edited(),
            Action::TogglePanel => self.open_panel(!self.panel_is_open()),
            Action::Scrolled => self.transcript.scrolled(),
            Action::Redraw => self.chart.draw(&self.timeline)?,
            Action::Paint => self.paint()?,
            Action::Socket(event) => self.socket_event(event)?,
            Action::Models(models) => self.serve(models),
            Action::Upload(file) => self.upload(&file)?,
            Action::Uploaded(outcome) => self.uploaded(outcome)?,
            Action::Plugins(plugins) => self.load(plugins),
        }
        Ok(())
    }

    /// Rounds may come faster than the screen shows them.
    fn paint_soon(&mut self) -> Result<(), JsValue> {
        if !self.paint_due {
            dom::window().request_animation_frame(self.paint.as_ref().unchecked_ref())?;
            self.paint_due = true;
        }
        Ok(())
    }

    fn paint(&mut self) -> Result<(), JsValue> {
        self.paint_due = false;
        self.transcript.follow();
        self.meters.show(&self.progress);
        self.chart.draw(&self.timeline)
    }
}
