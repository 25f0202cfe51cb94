//! One run in a process of its own: how commands that make many runs (`sweep`, `peak`, `slo`) make
//! each. A process a run, so that no run inherits another's heap, peak memory or CPU account.

use std::io::{self, Read};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::{self, Thread};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::exit::Failure;
use crate::interrupt::Interrupt;
use crate::plan::Plan;
use crate::recorded;
use crate::report::document::RunJson;
use crate::report::{folder, lock};
use crate::scenario::to_flags;

/// What became of a run.
#[derive(Clone, Debug)]
pub struct Trial {
    /// What it printed; the series is there only when it wrote a folder. Nothing when it ended before
    /// it had a document.
    pub run: Option<RunJson>,
    /// Its exit code, or the signal that ended it.
    pub ended: Result<i32, i32>,
    /// What it said on stderr: its progress, and why it failed.
    pub said: String,
}

/// Runs `plan`; keeps the results in `out`, if named (the plan's own `out` and `format` do not count).
/// An interrupt is passed on: the run then ends early and its document says so. Should this process
/// die, the run ends too.
pub fn run(plan: &Plan, out: Option<&Path>, interrupt: &Interrupt) -> Result<Trial, Failure> {
    let mut child = start(plan, out)
        .map_err(|error| Failure::output(format!("a run cannot be started: {error}")))?;
    // Kept open while the run lasts: its end tells the run that nobody waits for it.
    let _attending = child.stdin.take();
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    let (open, here) = (AtomicUsize::new(2), thread::current());
    let (printed, said) = thread::scope(|scope| {
        let printed = scope.spawn(|| drain(stdout, &open, &here));
        let said = scope.spawn(|| drain(stderr, &open, &here));
        interrupt.wakes(here.clone());
        let mut passed_on = false;
        while open.load(Ordering::Acquire) > 0 {
            if interrupt.asked() && !passed_on {
                passed_on = true;
                let pid = i32::try_from(child.id()).map(Pid::from_raw);
                // Refused only when it has ended already.
                let _ = pid.map(|pid| kill(pid, Signal::SIGTERM));
            }
            thread::park();
        }
        (printed.join(), said.join())
    });
    let status = child
        .wait()
        .map_err(|error| Failure::output(format!("a run cannot be waited for: {error}")))?;
    let (Ok(printed), Ok(said)) = (printed, said) else {
        return Err(Failure::output(
            "a thread that listened to a run has panicked",
        ));
    };
    let run = match printed.is_empty() {
        true => None,
        false => Some(recorded::parse(&printed).map_err(|what| {
            Failure::output(format!("a run printed what is not its document: {what}"))
        })?),
    };
    Ok(Trial {
        run,
        ended: status.code().ok_or_else(|| status.signal().unwrap_or(0)),
        said: String::from_utf8_lossy(&said).into_owned(),
    })
}

fn start(plan: &Plan, out: Option<&Path>) -> io::Result<Child> {
    let mut command = Command::new(std::env::current_exe()?);
    command
        .args(["run", "--attended", "--format", "json"])
        .args(to_flags(plan))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        // A Ctrl-C at the terminal goes to the whole group: it is passed on from here.
        .process_group(0);
    // Not for the run to claim: should this process die before the run has come that far, the next
    // sweep would find the folder free, and start another.
    let _lent = out
        .map(|out| {
            command.arg("--out").arg(out);
            let refused = |error| io::Error::other(format!("--out: {}: {error}", out.display()));
            folder::prepare(out).map_err(refused)?;
            lock::lend(out).map_err(refused)
        })
        .transpose()?;
    command.spawn()
}

/// Reads all of `pipe`, then wakes `waiting`.
fn drain(pipe: Option<impl Read>, open: &AtomicUsize, waiting: &Thread) -> Vec<u8> {
    let mut all = Vec::new();
    if let Some(mut pipe) = pipe {
        // What came before an error is kept; a document that is cut off does not parse.
        let _ = pipe.read_to_end(&mut all);
    }
    open.fetch_sub(1, Ordering::Release);
    waiting.unpark();
    all
}
