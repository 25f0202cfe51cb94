//! What all tests of the program share.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

use serde_json::Value;

/// The program with `arguments`, its output kept.
pub(crate) fn bench(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ringpost-bench"));
    command
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

/// Its output, once it has ended.
pub(crate) fn run(arguments: &[&str]) -> Output {
    bench(arguments).output().expect("the program runs")
}

/// The one document on stdout.
pub(crate) fn document(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| {
        let (out, err) = (text(&output.stdout), text(&output.stderr));
        panic!("not one JSON document: {error}\nstdout: {out}\nstderr: {err}")
    })
}

/// Output as text.
pub(crate) fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Exit code.
pub(crate) fn code(output: &Output) -> Option<i32> {
    output.status.code()
}

/// The number at a JSON pointer.
pub(crate) fn number(document: &Value, path: &str) -> f64 {
    document
        .pointer(path)
        .and_then(Value::as_f64)
        .unwrap_or_else(|| panic!("{path} is not a number in {document:#}"))
}

/// A folder of this test alone, removed at its end.
pub(crate) struct Folder(PathBuf);

impl Folder {
    /// Empty.
    pub(crate) fn new(name: &str) -> Self {
        let path =
            std::env::temp_dir().join(format!("ringpost-bench-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        fs::create_dir_all(&path).expect("a folder");
        Self(path)
    }

    /// A name in it.
    pub(crate) fn path(&self, name: &str) -> String {
        self.0.join(name).display().to_string()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// The shortest run that measures something.
pub(crate) const SHORT: [&str; 6] = ["--engine", "null", "--duration", "1s", "--warmup", "200ms"];
