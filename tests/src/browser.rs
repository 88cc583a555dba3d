//! A real browser without a window, driven through chromedriver: it runs the page as a visitor's browser does.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use fantoccini::wd::WebDriverCompatibleCommand;
use fantoccini::{Client, ClientBuilder, Locator};
use hyper_util::client::legacy::connect::HttpConnector;
use reqwest::{Method, Url};
use serde_json::{Value, json};

use crate::binary::target_folder;
use crate::folder::Folder;
use crate::server::Server;
use crate::wait::{in_time, until};

/// What Debian's package and others call the browser.
const BROWSERS: [&str; 3] = ["chromium", "chromium-browser", "google-chrome"];
const MISSING: &str =
    "is not in PATH; the page's tests need a browser (Debian: apt-get install chromium chromium-driver)";

/// A browser with one page open; ended when dropped.
#[derive(Debug)]
pub struct Browser {
    client: Client,
    session: String,
    driver: Driver,
    _profile: Folder,
}

impl Browser {
    /// Opens the server's page in a browser that was never used before.
    pub async fn open(server: &Server) -> Self {
        let (driver, profile) = (Driver::start(), Folder::new());
        let capabilities = capabilities(&profile);
        let mut builder = ClientBuilder::new(HttpConnector::new());
        builder.capabilities(capabilities.as_object().expect("an object").clone());
        let address = format!("http://127.0.0.1:{}", driver.port);
        let client = in_time("the browser", builder.connect(&address)).await.expect("the browser starts");
        let session = client.session_id().await.ok().flatten().expect("a session has an id");
        // Ended by `drop` below: the client would try it on a runtime that may be gone by then.
        client.persist().await.expect("the driver's connection lives");
        let browser = Self { client, session, driver, _profile: profile };
        browser.resize(1280, 900).await;
        in_time("the page", browser.client.goto(&server.url("/"))).await.expect("the page loads");
        browser
    }

    /// Sets the window's inner size in CSS pixels; chromedriver's own command knows a smallest width.
    pub async fn resize(&self, width: u32, height: u32) {
        let metrics = json!({"width": width, "height": height, "deviceScaleFactor": 1, "mobile": false});
        let params = json!({"cmd": "Emulation.setDeviceMetricsOverride", "params": metrics});
        self.chrome("goog/cdp/execute", params).await;
    }

    /// Presses keys in an element, in place of what it holds.
    pub async fn write(&self, selector: &str, keys: &str) {
        let element = self.client.find(Locator::Css(selector)).await.unwrap_or_else(|e| panic!("{selector}: {e}"));
        element.clear().await.unwrap_or_else(|error| panic!("{selector}: {error}"));
        element.send_keys(keys).await.unwrap_or_else(|error| panic!("{selector}: {error}"));
    }

    /// Chooses a file of this machine in a file field.
    pub async fn choose_file(&self, selector: &str, file: &Path) {
        let field = self.client.find(Locator::Css(selector)).await.unwrap_or_else(|e| panic!("{selector}: {e}"));
        let file = file.to_str().expect("a path in UTF-8");
        field.send_keys(file).await.unwrap_or_else(|error| panic!("{selector}: {error}"));
    }

    /// Clicks an element.
    pub async fn click(&self, selector: &str) {
        let element = self.client.find(Locator::Css(selector)).await.unwrap_or_else(|e| panic!("{selector}: {e}"));
        element.click().await.unwrap_or_else(|error| panic!("{selector}: {error}"));
    }

    /// The value of an expression of JavaScript.
    pub async fn value(&self, expression: &str) -> Value {
        let script = format!("return {expression};");
        let value = in_time("a script", self.client.execute(&script, Vec::new())).await;
        value.unwrap_or_else(|error| panic!("{expression}: {error}"))
    }

    /// The string that an expression gives.
    pub async fn text(&self, expression: &str) -> String {
        let value = self.value(expression).await;
        value.as_str().unwrap_or_else(|| panic!("{expression} is {value}")).to_owned()
    }

    /// Returns once an expression is true.
    pub async fn until(&self, expression: &str) {
        until(expression, async || self.value(expression).await == true).await;
    }

    /// Saves what is seen to `target/screenshots/NAME.png`.
    pub async fn screenshot(&self, name: &str) -> PathBuf {
        let folder = target_folder().join("screenshots");
        std::fs::create_dir_all(&folder).expect("the target folder is writable");
        let path = folder.join(name).with_extension("png");
        let png = in_time("a screenshot", self.client.screenshot()).await.expect("a screenshot");
        std::fs::write(&path, png).expect("the target folder is writable");
        path
    }

    /// What the page complained of in the console: errors, refused resources, uncaught exceptions.
    pub async fn complaints(&self) -> Vec<Value> {
        let entries = self.chrome("se/log", json!({"type": "browser"})).await;
        let entries = entries.as_array().unwrap_or_else(|| panic!("no log: {entries}"));
        entries.iter().filter(|entry| entry["level"] == "SEVERE").cloned().collect()
    }

    async fn chrome(&self, path: &'static str, body: Value) -> Value {
        let command = ChromeCommand { path, body };
        in_time(path, self.client.issue_cmd(command)).await.unwrap_or_else(|error| panic!("{path}: {error}"))
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // The driver ends its browser only when asked to; killed, it would leave it behind.
        let farewell = || -> std::io::Result<()> {
            let mut stream = TcpStream::connect(("127.0.0.1", self.driver.port))?;
            stream.set_read_timeout(Some(Duration::from_secs(10)))?;
            write!(stream, "DELETE /session/{} HTTP/1.1\r\nhost: localhost\r\n\r\n", self.session)?;
            // It answers once the browser is gone; it keeps the connection.
            stream.read_exact(&mut [0; 12])
        };
        farewell().ok();
    }
}

fn capabilities(profile: &Folder) -> Value {
    let browser = BROWSERS.iter().find_map(|name| in_path(name)).unwrap_or_else(|| panic!("{} {MISSING}", BROWSERS[0]));
    let profile = format!("--user-data-dir={}", profile.text());
    let args = [
        "--headless=new",
        // Chromium's own sandbox needs rights that containers and root do not have; the page is ours.
        "--no-sandbox",
        "--disable-gpu",
        "--disable-dev-shm-usage",
        // Nothing here may reach for a network.
        "--disable-quic",
        "--no-first-run",
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-sync",
        profile.as_str(),
    ];
    json!({
        "browserName": "chrome",
        "goog:chromeOptions": {"binary": browser, "args": args},
        "goog:loggingPrefs": {"browser": "ALL"},
    })
}

fn in_path(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|folder| folder.join(name)).find(|file| file.is_file())
}

/// A running chromedriver; killed when dropped.
#[derive(Debug)]
struct Driver {
    process: Child,
    port: u16,
}

impl Driver {
    fn start() -> Self {
        let driver = in_path("chromedriver").unwrap_or_else(|| panic!("chromedriver {MISSING}"));
        let mut command = Command::new(driver);
        command.arg("--port=0").stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut process = command.spawn().expect("chromedriver runs");
        let mut lines = BufReader::new(process.stdout.take().expect("stdout is a pipe")).lines();
        let port = lines.by_ref().map_while(Result::ok).find_map(|line| {
            let (_, port) = line.split_once("started successfully on port ")?;
            port.trim_end_matches('.').parse().ok()
        });
        // It must not wait for a reader of what else it says.
        std::thread::spawn(move || lines.for_each(drop));
        Self { port: port.expect("chromedriver tells its port"), process }
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        self.process.kill().ok();
        self.process.wait().ok();
    }
}

/// A command of chromedriver's that WebDriver does not know.
#[derive(Debug)]
struct ChromeCommand {
    path: &'static str,
    body: Value,
}

impl WebDriverCompatibleCommand for ChromeCommand {
    fn endpoint(&self, base: &Url, session: Option<&str>) -> Result<Url, <Url as std::str::FromStr>::Err> {
        base.join(&format!("session/{}/{}", session.unwrap_or_default(), self.path))
    }

    fn method_and_body(&self, _: &Url) -> (Method, Option<String>) {
        (Method::POST, Some(self.body.to_string()))
    }
}
