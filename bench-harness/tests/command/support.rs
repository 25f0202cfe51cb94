//! What all tests of the program share.

use std::fs;
use std::io::Read;
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};

use nix::unistd::Pid;
use ringpost_broker::{Server, ServerConfig};
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

/// A child that is ended when the test is, however that ends.
pub(crate) struct Running(pub(crate) Child);

impl Running {
    /// Started, its output kept.
    pub(crate) fn start(arguments: &[&str]) -> Self {
        Self(bench(arguments).spawn().expect("the program starts"))
    }

    /// Its process id.
    pub(crate) fn pid(&self) -> Pid {
        Pid::from_raw(i32::try_from(self.0.id()).expect("a pid"))
    }

    /// The program's own child processes.
    pub(crate) fn children(&self) -> Vec<i32> {
        let pid = self.pid();
        let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"));
        let children = children.expect("the kernel lists children");
        children
            .split_whitespace()
            .map(|pid| pid.parse().expect("a pid"))
            .collect()
    }

    /// Reads stderr up to a line that contains `what`; what was said by then. What comes behind that
    /// line is left to be read: nothing is buffered here.
    pub(crate) fn until(&mut self, what: &str) -> String {
        let stderr = self.0.stderr.as_mut().expect("piped");
        let (mut said, mut start, mut byte) = (Vec::new(), 0, [0]);
        while stderr.read(&mut byte).expect("readable") > 0 {
            said.extend(byte);
            if byte == *b"\n" {
                if text(&said[start..]).contains(what) {
                    return text(&said);
                }
                start = said.len();
            }
        }
        panic!("it never said `{what}`: {}", text(&said));
    }

    /// Its output, once it has ended.
    pub(crate) fn wait(mut self) -> Output {
        let stdout = self.0.stdout.take().expect("piped");
        let read = std::thread::spawn(move || std::io::read_to_string(stdout).expect("text"));
        // Not piped where a test has given it something else.
        let stderr = self.0.stderr.take().map(std::io::read_to_string);
        let stderr = stderr.transpose().expect("text").unwrap_or_default();
        let status = self.0.wait().expect("it ends");
        let stdout = read.join().expect("read");
        Output {
            status,
            stdout: stdout.into(),
            stderr: stderr.into(),
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// An address that refuses connections while the listener lives: that has the port on another address
/// of the loopback, so that no test beside this one is given it.
pub(crate) fn nobody() -> (TcpListener, String) {
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = taken.local_addr().expect("an address").port();
    (taken, format!("127.0.0.2:{port}"))
}

/// A broker of this process, with a topic `t` of one partition.
pub(crate) fn broker() -> Server {
    let server = Server::start(ServerConfig::default()).expect("a port");
    let made = server.with(|broker| broker.create_topic("t", 1).is_ok());
    assert!(made);
    server
}

/// Whether the process is gone, or only waits for somebody to take note.
pub(crate) fn is_gone(pid: i32) -> bool {
    fs::read_to_string(format!("/proc/{pid}/stat")).map_or(true, |stat| {
        stat.rsplit(')')
            .next()
            .is_some_and(|rest| rest.starts_with(" Z"))
    })
}

/// A good run of ten thousand prebuilt records, with its results in `folder`; what it printed.
pub(crate) fn keep(folder: &str, more: &[&str]) -> Value {
    let arguments = [
        "run",
        "--engine",
        "null",
        "--records",
        "10k",
        "--warmup",
        "0s",
    ];
    let small = ["--batch", "4KiB", "--format", "json", "--out", folder];
    let output = run(&[&arguments[..], &small, more].concat());
    assert_eq!(code(&output), Some(0), "{}", text(&output.stderr));
    document(&output)
}
