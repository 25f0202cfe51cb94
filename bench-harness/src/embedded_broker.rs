//! The broker of a run: this same program as a child process, so that its CPU time is not the
//! client's. It is always ended: by closing its stdin, then by its id should it not listen, also
//! when the run panics; and the kernel ends it when the run is killed.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use crate::broker::BrokerReport;
use crate::placement;
use crate::plan::Plan;
use crate::units::show_duration;

/// A running child. Dropping it ends it.
#[derive(Debug)]
pub struct EmbeddedBroker {
    child: Child,
    /// Taken when it is told to end.
    stdin: Option<ChildStdin>,
    stdout: BufReader<ChildStdout>,
    address: String,
}

impl EmbeddedBroker {
    /// Starts it on `cpus` and waits until it listens.
    pub fn start(plan: &Plan, cpus: &[usize]) -> Result<Self, String> {
        let program = std::env::current_exe()
            .map_err(|error| format!("cannot find this program to start its broker: {error}"))?;
        let mut command = Command::new(program);
        command
            .args(["broker", "--control", "--listen", "127.0.0.1:0"])
            .args(["--mode", if plan.verify { "verify" } else { "ack" }])
            .args(["--partitions", &plan.partitions.to_string()])
            .args(["--delay", &show_duration(plan.broker_delay)])
            .args([
                "--batch-max",
                &format!("{}B", plan.batch.max(1 << 20) + 1024),
            ])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            // A Ctrl-C at the terminal goes to the whole group: the run decides when this ends.
            .process_group(0);
        if !cpus.is_empty() {
            command.args(["--cpus", &placement::show(cpus)]);
        }
        let mut child = command
            .spawn()
            .map_err(|error| format!("cannot start the embedded broker: {error}"))?;
        let (Some(stdin), Some(stdout)) = (child.stdin.take(), child.stdout.take()) else {
            return Err("the embedded broker has no pipes".into());
        };
        let mut broker = Self {
            child,
            stdin: Some(stdin),
            stdout: BufReader::new(stdout),
            address: String::new(),
        };
        let line = broker.line()?;
        broker.address = line
            .strip_prefix("listening=")
            .ok_or_else(|| format!("the embedded broker said `{line}` instead of its address"))?
            .to_owned();
        Ok(broker)
    }

    /// Where it listens.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What it saw so far, and what it cost so far.
    pub fn report(&mut self) -> Result<BrokerReport, String> {
        let asked = self
            .stdin
            .as_mut()
            .map(|stdin| stdin.write_all(b"report\n"));
        if !matches!(asked, Some(Ok(()))) {
            return Err("the embedded broker has ended".into());
        }
        let line = self.line()?;
        serde_json::from_str(&line)
            .map_err(|error| format!("the embedded broker's report is broken: {error}: `{line}`"))
    }

    fn line(&mut self) -> Result<String, String> {
        let mut line = String::new();
        match self.stdout.read_line(&mut line) {
            Ok(0) => {
                let status = self
                    .child
                    .wait()
                    .map_or_else(|e| e.to_string(), |s| s.to_string());
                Err(format!("the embedded broker has ended: {status}"))
            }
            Ok(_) => Ok(line.trim_end().to_owned()),
            Err(error) => Err(format!("the embedded broker cannot be heard: {error}")),
        }
    }
}

impl Drop for EmbeddedBroker {
    fn drop(&mut self) {
        drop(self.stdin.take());
        // It has nothing left to do, so it need not be waited for: end it by its id, then reap it.
        // Both fail only when it is gone already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
