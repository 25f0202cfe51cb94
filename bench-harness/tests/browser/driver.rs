//! A headless Chromium, driven over [WebDriver](https://www.w3.org/TR/webdriver2/): JSON over HTTP
//! on 127.0.0.1, spoken here with what the standard library has.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use base64::Engine as _;
use serde_json::{Value, json};

/// Keys as WebDriver names them.
pub(crate) const TAB: char = '\u{e004}';
pub(crate) const ENTER: char = '\u{e007}';
pub(crate) const DOWN: char = '\u{e015}';
pub(crate) const RIGHT: char = '\u{e014}';
pub(crate) const END: char = '\u{e010}';
pub(crate) const HOME: char = '\u{e011}';
pub(crate) const SPACE: char = ' ';

/// How long an answer may take: longer than any page needs on a busy machine, and not forever.
const PATIENCE: Duration = Duration::from_secs(120);

/// Browsers of this process so far.
static OPENED: AtomicUsize = AtomicUsize::new(0);

/// A browser with one page open. Ends with this value.
pub(crate) struct Browser {
    driver: Child,
    port: u16,
    session: String,
    page: String,
    /// Its temporary files, which it does not remove.
    folder: PathBuf,
}

impl Browser {
    /// Opens `page` in a window of `width` × 1000 pixels, for somebody who likes it `theme`.
    pub(crate) fn open(page: &Path, width: u32, theme: &str) -> Self {
        let number = OPENED.fetch_add(1, Ordering::Relaxed);
        let name = format!("ringpost-browser-{}-{number}", std::process::id());
        let folder = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&folder).expect("a folder for the browser");
        let mut driver = Command::new("chromedriver")
            .arg("--port=0")
            // There it makes the profile; one named to it would begin with the page for new tabs.
            .env("TMPDIR", &folder)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .expect("chromedriver starts: `scripts/test browser` installs it");
        let output = BufReader::new(driver.stdout.take().expect("its output"));
        let port = output
            .lines()
            .map_while(Result::ok)
            .find_map(|line| {
                let (_, port) = line.split_once("started successfully on port ")?;
                port.trim_end_matches('.').parse().ok()
            })
            .expect("chromedriver tells its port");
        let mut browser = Self {
            driver,
            port,
            session: String::new(),
            page: String::new(),
            folder,
        };
        let session = browser.call(
            "POST",
            "/session",
            &json!({"capabilities": {"alwaysMatch": {
                "browserName": "chrome",
                "goog:chromeOptions": {"args": [
                    // Root, as in many containers, has no sandbox.
                    "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-extensions", "--disable-dev-shm-usage",
                ]},
                "goog:loggingPrefs": {"browser": "ALL", "performance": "ALL"},
            }}}),
        );
        let id = session["sessionId"].as_str().expect("a session");
        browser.session = format!("/session/{id}");
        browser.prefers(theme);
        browser.width(width);
        browser.go(page);
        browser
    }

    /// Opens another page in the same window.
    pub(crate) fn go(&mut self, page: &Path) {
        self.page = format!("file://{}", page.display());
        self.command("url", &json!({ "url": self.page }));
    }

    /// How wide the window is. A real one cannot be as narrow as a telephone.
    pub(crate) fn width(&self, width: u32) {
        let size = json!({"width": width, "height": 1000, "deviceScaleFactor": 1, "mobile": false});
        self.devtools("Emulation.setDeviceMetricsOverride", &size);
        self.until(&format!("window.innerWidth === {width}"));
    }

    /// What the system tells pages about `prefers-color-scheme`.
    pub(crate) fn prefers(&self, theme: &str) {
        let media = json!({"features": [{"name": "prefers-color-scheme", "value": theme}]});
        self.devtools("Emulation.setEmulatedMedia", &media);
        self.until(&format!(
            "matchMedia('(prefers-color-scheme: {theme})').matches"
        ));
    }

    /// Waits until the page has heard of it: what is said to the browser comes there a moment later.
    fn until(&self, expression: &str) {
        while self.eval(expression) != Value::Bool(true) {}
    }

    /// What `return …` gives in the page, once it has been painted anew.
    pub(crate) fn eval(&self, expression: &str) -> Value {
        let script = format!(
            "const done = arguments[0]; requestAnimationFrame(() => requestAnimationFrame(() => \
             done({expression})))"
        );
        self.command("execute/async", &json!({"script": script, "args": []}))
    }

    /// The text that an expression gives.
    pub(crate) fn text(&self, expression: &str) -> String {
        let value = self.eval(expression);
        value
            .as_str()
            .unwrap_or_else(|| panic!("{expression} gives {value}, not text"))
            .to_owned()
    }

    /// The list of texts that an expression gives.
    pub(crate) fn texts(&self, expression: &str) -> Vec<String> {
        let value = self.eval(expression);
        let items = value.as_array().unwrap_or_else(|| panic!("{value}"));
        let text = |item: &Value| item.as_str().map(str::to_owned);
        items
            .iter()
            .map(|item| text(item).unwrap_or_else(|| panic!("{item} in {value}")))
            .collect()
    }

    /// The number that an expression gives.
    pub(crate) fn number(&self, expression: &str) -> f64 {
        let value = self.eval(expression);
        value
            .as_f64()
            .unwrap_or_else(|| panic!("{expression} gives {value}, not a number"))
    }

    /// A click of the mouse in the middle of the element, wherever that takes it.
    pub(crate) fn click(&self, selector: &str) {
        let found = self.command(
            "element",
            &json!({"using": "css selector", "value": selector}),
        );
        let id = found
            .as_object()
            .and_then(|object| object.values().next())
            .and_then(Value::as_str)
            .unwrap_or_else(|| panic!("{selector}: {found}"));
        self.command(&format!("element/{id}/click"), &json!({}));
    }

    /// The mouse, to this place of the window.
    pub(crate) fn point(&self, x: f64, y: f64) {
        let moved = json!({"type": "pointerMove", "duration": 0, "x": x.round(), "y": y.round()});
        let mouse = json!({"type": "pointer", "id": "mouse", "actions": [moved]});
        self.command("actions", &json!({ "actions": [mouse] }));
    }

    /// A key, to whatever has the focus.
    pub(crate) fn press(&self, key: char) {
        let key = key.to_string();
        let actions = json!([{"type": "keyDown", "value": key}, {"type": "keyUp", "value": key}]);
        let keyboard = json!({"type": "key", "id": "keyboard", "actions": actions});
        self.command("actions", &json!({ "actions": [keyboard] }));
    }

    /// Presses Tab until the element has the focus; what cannot be reached so fails.
    pub(crate) fn tab_to(&self, selector: &str) {
        for _ in 0..150 {
            self.press(TAB);
            let there = format!("document.activeElement.matches({})", json!(selector));
            if self.eval(&there) == Value::Bool(true) {
                return;
            }
        }
        panic!("{selector} is not reached by Tab");
    }

    /// A picture of the whole page as `<name>.png` in the folder `RINGPOST_SCREENSHOTS`, if that
    /// is set.
    pub(crate) fn screenshot(&self, name: &str) {
        let Some(folder) = std::env::var_os("RINGPOST_SCREENSHOTS") else {
            return;
        };
        let width = self.number("window.innerWidth");
        let height = self.number("document.documentElement.scrollHeight");
        let clip = json!({"x": 0, "y": 0, "width": width, "height": height, "scale": 1});
        let picture = self.devtools(
            "Page.captureScreenshot",
            &json!({"captureBeyondViewport": true, "clip": clip}),
        );
        let bytes = base64::engine::general_purpose::STANDARD
            .decode(picture["data"].as_str().expect("a picture"))
            .expect("base64");
        let path = Path::new(&folder).join(format!("{name}.png"));
        std::fs::create_dir_all(&folder).expect("a folder for pictures");
        std::fs::write(&path, bytes).expect("written");
    }

    /// What the console has said since this was asked last.
    pub(crate) fn console(&self) -> Vec<String> {
        let said = self.command("se/log", &json!({"type": "browser"}));
        let lines = said.as_array().expect("a log").iter();
        lines.map(|line| line["message"].to_string()).collect()
    }

    /// Whether nothing was said on the console, and nothing asked for but the page itself.
    pub(crate) fn is_quiet(&self) {
        let said = self.console();
        assert!(said.is_empty(), "the console says: {said:#?}");
        let log = self.command("se/log", &json!({"type": "performance"}));
        let events = log.as_array().expect("a log").iter();
        let asked: Vec<String> = events
            .filter_map(|event| serde_json::from_str(event["message"].as_str()?).ok())
            .filter(|event: &Value| event["message"]["method"] == "Network.requestWillBeSent")
            .filter_map(|event| {
                let url = event["message"]["params"]["request"]["url"].as_str()?;
                (!url.starts_with("data:")).then(|| url.to_owned())
            })
            .collect();
        let page: Vec<String> = asked
            .iter()
            .filter(|url| **url != url_of(&self.page))
            .cloned()
            .collect();
        assert!(page.is_empty(), "asked for {page:?}");
        assert!(
            !asked.is_empty(),
            "the page's own loading is not in the log: it shows nothing"
        );
    }

    fn devtools(&self, method: &str, parameters: &Value) -> Value {
        self.command(
            "goog/cdp/execute",
            &json!({"cmd": method, "params": parameters}),
        )
    }

    fn command(&self, name: &str, body: &Value) -> Value {
        self.call("POST", &format!("{}/{name}", self.session), body)
    }

    /// One request and its answer's value.
    fn call(&self, method: &str, path: &str, body: &Value) -> Value {
        let answer = self
            .exchange(method, path, &body.to_string())
            .unwrap_or_else(|error| panic!("chromedriver, {path}: {error}"));
        let mut answer: Value = serde_json::from_slice(&answer)
            .unwrap_or_else(|error| panic!("chromedriver, {path}: {error}"));
        let value = answer["value"].take();
        assert!(value.get("error").is_none(), "{path} {body}: {value:#}");
        value
    }

    fn exchange(&self, method: &str, path: &str, body: &str) -> std::io::Result<Vec<u8>> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port))?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let length = body.len();
        write!(
            stream,
            "{method} {path} HTTP/1.1\r\nHost: 127.0.0.1:{}\r\nConnection: close\r\n\
             Content-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}",
            self.port
        )?;
        let mut reader = BufReader::new(stream);
        let mut length = 0;
        loop {
            let mut line = String::new();
            reader.read_line(&mut line)?;
            if line.trim().is_empty() {
                break;
            }
            if let Some((name, value)) = line.split_once(':')
                && name.eq_ignore_ascii_case("content-length")
            {
                length = value.trim().parse().map_err(std::io::Error::other)?;
            }
        }
        let mut answer = vec![0; length];
        reader.read_exact(&mut answer)?;
        Ok(answer)
    }
}

/// As the browser writes it: what is not allowed in a URL as `%xx`.
fn url_of(page: &str) -> String {
    page.bytes()
        .map(|byte| match byte {
            b' ' | b'"' | b'<' | b'>' | 128.. => format!("%{byte:02X}"),
            byte => char::from(byte).to_string(),
        })
        .collect()
}

impl Drop for Browser {
    fn drop(&mut self) {
        if !self.session.is_empty() {
            // Ends the browser; the driver alone would leave it.
            let _ = self.exchange("DELETE", &self.session, "");
        }
        let _ = self.driver.kill();
        let _ = self.driver.wait();
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}
