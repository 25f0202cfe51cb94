//! Ctrl-C and SIGTERM: the first ends the measured window early, the second ends the process.
//!
//! A run parks its main thread between samples; the handler's thread unparks it, so nothing polls.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::thread::Thread;

/// Exit code of a process that was interrupted twice.
const INTERRUPTED: i32 = 130;

static INTERRUPT: OnceLock<Interrupt> = OnceLock::new();

/// A handle on "somebody asked us to stop". Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Interrupt {
    inner: Arc<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    asked: AtomicBool,
    waiting: Mutex<Option<Thread>>,
}

impl Interrupt {
    /// Installs the process's handler (once; later calls return the same handle).
    pub fn install() -> Self {
        INTERRUPT
            .get_or_init(|| {
                let interrupt = Interrupt::default();
                let handler = interrupt.clone();
                // Refused only when another handler is installed: then Ctrl-C does what that one
                // says, and the run is merely not interruptible.
                let _ = ctrlc::set_handler(move || handler.signalled());
                interrupt
            })
            .clone()
    }

    /// From now on the end of stdin asks too: whoever started this process is gone.
    pub fn when_stdin_ends(&self) {
        let interrupt = self.clone();
        std::thread::spawn(move || {
            // An error is an end as well.
            let _ = std::io::copy(&mut std::io::stdin(), &mut std::io::sink());
            interrupt.ask();
        });
    }

    /// Was it asked for?
    pub fn asked(&self) -> bool {
        self.inner.asked.load(Ordering::Acquire)
    }

    /// The thread to wake when it is asked for; it must look at [`asked`](Self::asked) after this.
    pub fn wakes(&self, thread: Thread) {
        *self
            .inner
            .waiting
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = Some(thread);
    }

    /// Parks this thread until it is asked for.
    pub fn wait(&self) {
        self.wakes(std::thread::current());
        while !self.asked() {
            std::thread::park();
        }
    }

    /// Ctrl-C or SIGTERM: whoever does it twice does not want to wait.
    fn signalled(&self) {
        if self.asked() {
            std::process::exit(INTERRUPTED);
        }
        self.ask();
    }

    /// Asks, if nobody has yet.
    pub fn ask(&self) {
        self.inner.asked.store(true, Ordering::Release);
        if let Some(thread) = &*self
            .inner
            .waiting
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
        {
            thread.unpark();
        }
    }
}
