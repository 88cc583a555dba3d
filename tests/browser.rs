//! The page in a real browser: what a visitor sees is what the server said, token by token.
//!
//! Screenshots are left in `target/screenshots` for people; nothing compares them.

use serde_json::{Value, json};
use specula_tests::{Browser, CHAT, Folder, Server, questions};

/// Enter, as WebDriver writes it.
const ENTER: &str = "\u{e007}";
/// The text of the last answer, as its tokens show it.
const ANSWER: &str = "[...[...document.querySelectorAll('.message.assistant')].at(-1).querySelectorAll('.token')]\
                      .map(token => token.textContent).join('')";

#[tokio::test]
async fn a_question_is_answered_as_by_the_api() {
    let server = Server::shared();
    let browser = connected(&server).await;
    browser.click("#method option[value=mirror]").await;
    settings(&browser, "7", "0.7", "48").await;
    let asked = questions(2);
    let first = ask(&browser, &asked[0], 1).await;
    let mut history = vec![said("user", &asked[0])];
    assert_eq!(first, answer(&server, &history).await);

    // The second turn has the first as its history.
    history.extend([said("assistant", &first), said("user", &asked[1])]);
    assert_eq!(ask(&browser, &asked[1], 2).await, answer(&server, &history).await);

    let origins =
        browser.value("[...new Set([...document.querySelectorAll('.token')].map(t => t.dataset.origin))]").await;
    let origins: Vec<&str> = origins.as_array().expect("a list").iter().filter_map(Value::as_str).collect();
    // On a busy machine no rollout may come in time; then the draft's tokens are drafted serially.
    assert!(["mirror", "draft"].iter().any(|o| origins.contains(o)) && origins.len() > 1, "{origins:?}");
    for figure in ["#stat-tps", "#stat-acceptance", "#stat-hits"] {
        let text = browser.text(&format!("document.querySelector('{figure}').textContent")).await;
        assert!(text.contains(|c: char| c.is_ascii_digit()), "{figure} shows {text:?}");
    }
    assert!(browser.value(LANES_COLOURS).await.as_u64() > Some(2), "the lanes of both devices are drawn");
    browser.screenshot("answer-1280").await;
    browser.resize(390, 844).await;
    browser.screenshot("answer-390").await;
    let overflow = "document.documentElement.scrollWidth > document.documentElement.clientWidth";
    assert_eq!(browser.value(overflow).await, false, "nothing is cut off on a narrow screen");
    assert_eq!(browser.complaints().await, [Value::Null; 0]);
}

/// How many colours the lanes' canvas holds, the transparent one among them.
const LANES_COLOURS: &str = "(() => { const canvas = document.querySelector('#lanes'); \
     const data = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data; \
     return new Set(new Uint32Array(data.buffer)).size; })()";

#[tokio::test]
async fn an_answer_can_be_stopped_and_the_chat_goes_on() {
    // A slow draft that is waited for, so that there is time to stop.
    let server = Server::start(&["--method", "sps", "--draft-device", "simulated:30@cpu"]);
    let browser = connected(&server).await;
    settings(&browser, "3", "0.7", "").await;
    browser.write("#prompt", &format!("How do I use ack?{ENTER}")).await;
    browser.until("document.querySelectorAll('.token').length > 3").await;
    browser.click("#stop").await;
    browser.until("document.querySelector('.message.assistant').dataset.state === 'stopped'").await;
    let stopped = browser.text(ANSWER).await;
    let request = json!({"messages": [said("user", "How do I use ack?")], "seed": 3, "temperature": 0.7,
                         "speculation": {"method": "none"}});
    let whole = server.whole(CHAT, &request).await.text;
    assert!(whole.starts_with(&stopped) && stopped.len() < whole.len(), "{stopped:?} of {whole:?}");
    settings(&browser, "3", "0.7", "8").await;
    assert!(!ask(&browser, "How do I use ls?", 2).await.is_empty());
    assert_eq!(browser.complaints().await, [Value::Null; 0]);
}

#[tokio::test]
async fn what_is_impossible_is_said_and_can_be_mended() {
    let server = Server::shared();
    let browser = connected(&server).await;
    settings(&browser, "1", "0.7", "8").await;
    browser.write("#window", "99").await;
    browser.write("#prompt", &format!("How do I use ls?{ENTER}")).await;
    let alert = alert(&browser).await;
    assert!(alert.contains("Window") && alert.contains("16"), "{alert}");
    browser.screenshot("error-1280").await;
    browser.write("#window", "5").await;

    // What only the server can know: a plugin's own bounds.
    browser.click("#plugin-min-p").await;
    browser.write("#config-min-p", "{\"min_p\": 2}").await;
    browser.write("#prompt", &format!("How do I use ls?{ENTER}")).await;
    browser.until("document.querySelector('.message.assistant')?.dataset.state === 'failed'").await;
    let alert = self::alert(&browser).await;
    assert!(alert.contains("min-p") && alert.contains("min_p"), "{alert}");

    browser.write("#config-min-p", "{\"min_p\": 0.2}").await;
    browser.click("#retry").await;
    browser.until("document.querySelector('.message.assistant')?.dataset.state === 'finished'").await;
    let request = json!({"messages": [said("user", "How do I use ls?")], "seed": 1, "temperature": 0.7, "max_tokens": 8,
                         "plugins": [{"name": "min-p", "config": {"min_p": 0.2}}]});
    assert_eq!(browser.text(ANSWER).await, server.whole(CHAT, &request).await.text);
    assert_eq!(browser.complaints().await, [Value::Null; 0]);
}

#[tokio::test]
async fn a_plugin_can_be_brought_and_used_at_once() {
    let data = Folder::new();
    let server = Server::start(&["--data", data.text()]);
    let browser = connected(&server).await;
    settings(&browser, "1", "0.7", "8").await;
    let files = Folder::new();
    files.write("broken.wasm", b"\0asm garbage");
    browser.choose_file("#plugin-file", &files.path().join("broken.wasm")).await;
    browser.until("document.querySelector('#upload-report').textContent.includes('component')").await;

    let shipped = specula_guests::root().join("target/dist/plugins/min-p.wasm");
    files.write("My Floor.wasm", &std::fs::read(shipped).expect("built by `cargo xtask build`"));
    browser.choose_file("#plugin-file", &files.path().join("My Floor.wasm")).await;
    browser.until("document.querySelector('#plugin-my-floor') !== null").await;
    let report = browser.text("document.querySelector('#upload-report').textContent").await;
    assert!(report.contains("my-floor, version 1: sampling") && report.contains("fuel"), "{report}");
    browser.screenshot("upload-1280").await;

    browser.click("#plugin-my-floor").await;
    browser.write("#config-my-floor", "{\"min_p\": 0.2}").await;
    let said = ask(&browser, "How do I use ls?", 1).await;
    let request = json!({"messages": [self::said("user", "How do I use ls?")], "seed": 1, "temperature": 0.7,
                         "max_tokens": 8, "plugins": [{"name": "min-p", "config": {"min_p": 0.2}}]});
    assert_eq!(said, server.whole(CHAT, &request).await.text);
}

/// A browser whose page has found its server, with all settings in sight.
async fn connected(server: &Server) -> Browser {
    let browser = Browser::open(server).await;
    browser.until("document.querySelector('#connection').dataset.state === 'connected'").await;
    browser.until("document.querySelector('#method').value !== ''").await;
    browser.until("document.querySelector('#plugin-min-p') !== null").await;
    browser.click("#settings summary").await;
    browser
}

async fn settings(browser: &Browser, seed: &str, temperature: &str, max_tokens: &str) {
    browser.write("#seed", seed).await;
    browser.write("#temperature", temperature).await;
    browser.write("#max-tokens", max_tokens).await;
}

/// Asks by keyboard, waits for the `turn`-th answer's end, gives its text.
async fn ask(browser: &Browser, question: &str, turn: usize) -> String {
    browser.write("#prompt", &format!("{question}{ENTER}")).await;
    let done = "document.querySelectorAll('.message.assistant[data-state=\"finished\"]').length";
    let stopped = "document.querySelectorAll('.message.assistant[data-state=\"stopped\"]').length";
    browser.until(&format!("{done} + {stopped} === {turn}")).await;
    browser.text(ANSWER).await
}

/// What the API says to a conversation with the settings of the first test.
async fn answer(server: &Server, messages: &[Value]) -> String {
    let request = json!({"messages": messages, "seed": 7, "temperature": 0.7, "max_tokens": 48});
    server.whole(CHAT, &request).await.text
}

fn said(role: &str, content: &str) -> Value {
    json!({"role": role, "content": content})
}

/// The error that is shown.
async fn alert(browser: &Browser) -> String {
    browser.until("document.querySelector('[role=alert]')?.checkVisibility() === true").await;
    browser.text("document.querySelector('[role=alert]').innerText").await
}
