//! Something between the producer and a broker that does to their bytes what networks do.
//!
//! Each [`Rule`] is used once, in order: by the next connection on which a Produce request comes by,
//! from that request on. Connections behind the last rule are left alone. Threads end with the
//! sockets they serve, and nothing here waits for time to pass.

use std::collections::VecDeque;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;

/// What happens on one connection, from its first Produce request on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Rule {
    /// So many bytes of the request reach the broker, then the producer is reset: what follows is
    /// never read.
    ResetBehind(usize),
    /// The whole request reaches the broker but for so many bytes, then the connection ends.
    EndBefore(usize),
    /// The producer sees an orderly end of the other half; the broker goes on for itself.
    HalfClosed,
    /// The broker hears nothing any more.
    ToNobody,
    /// The broker hears everything, and nobody hears the broker.
    FromNobody,
    /// Nothing is read any more, from either: what is sent stays in the sockets.
    Stuck,
    /// This bit of the request is the other way round, counted from the end.
    Flip(usize),
}

/// A port that leads to a broker.
pub(crate) struct Proxy {
    pub(crate) port: u16,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    rules: Mutex<VecDeque<Rule>>,
    connections: AtomicUsize,
    /// Sockets that stay open and unread until the proxy goes.
    stuck: Mutex<Vec<TcpStream>>,
}

impl Proxy {
    pub(crate) fn start(upstream: SocketAddr, rules: &[Rule]) -> Self {
        Self::serving(upstream, rules, |down, up, shared| {
            let connection = Connection {
                down,
                up,
                mute: AtomicBool::new(false),
            };
            connection.serve(shared);
        })
    }

    /// All bytes of all connections come one by one, both ways.
    pub(crate) fn byte_by_byte(upstream: SocketAddr) -> Self {
        Self::serving(upstream, &[], |down, up, _| {
            thread::scope(|scope| {
                scope.spawn(|| pass_bytes(up, down));
                pass_bytes(down, up);
            });
        })
    }

    fn serving(
        upstream: SocketAddr,
        rules: &[Rule],
        serve: impl Fn(&TcpStream, &TcpStream, &Shared) + Clone + Send + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let port = listener.local_addr().expect("bound").port();
        let shared = Arc::new(Shared::default());
        shared.rules.lock().expect("no panic").extend(rules);
        let threads = Arc::clone(&shared);
        thread::spawn(move || {
            for down in listener.incoming() {
                // The broker has gone: so has the test.
                let (Ok(down), Ok(up)) = (down, TcpStream::connect(upstream)) else {
                    return;
                };
                for stream in [&down, &up] {
                    // Otherwise bytes sent one by one travel together.
                    stream.set_nodelay(true).expect("a socket");
                }
                threads.connections.fetch_add(1, Ordering::Relaxed);
                let (serve, shared) = (serve.clone(), Arc::clone(&threads));
                thread::spawn(move || serve(&down, &up, &shared));
            }
        });
        Self { port, shared }
    }

    /// How many connections were made so far.
    pub(crate) fn connections(&self) -> usize {
        self.shared.connections.load(Ordering::Relaxed)
    }

    /// How many rules no connection has met yet.
    pub(crate) fn rules_left(&self) -> usize {
        self.shared.rules.lock().expect("no panic").len()
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.shared.stuck.lock().expect("no panic").clear();
    }
}

struct Connection<'a> {
    down: &'a TcpStream,
    up: &'a TcpStream,
    /// Answers go nowhere.
    mute: AtomicBool,
}

/// How a connection ends for the producer.
#[derive(PartialEq, Eq)]
enum End {
    Orderly,
    /// With bytes unread, which makes the kernel send a reset.
    Reset,
    Never,
}

impl Connection<'_> {
    fn serve(&self, shared: &Shared) {
        let end = thread::scope(|scope| {
            let answers = scope.spawn(|| self.pass_answers());
            let end = self.pass_requests(shared);
            if end == End::Never {
                let clones = [self.down, self.up].map(|stream| stream.try_clone().expect("a copy"));
                shared.stuck.lock().expect("no panic").extend(clones);
            }
            // The broker ends it, once it is through with all that came.
            let _ = self.up.shutdown(Shutdown::Write);
            answers.join().expect("no panic");
            end
        });
        if end == End::Orderly {
            let _ = self.down.shutdown(Shutdown::Both);
        }
    }

    fn pass_requests(&self, shared: &Shared) -> End {
        let (mut down, mut up) = (self.down, self.up);
        let mut is_first = true;
        while let Some((len, is_produce)) = next_request(down) {
            let rule = if is_produce && std::mem::take(&mut is_first) {
                shared.rules.lock().expect("no panic").pop_front()
            } else {
                None
            };
            let (taken, end) = match rule {
                None | Some(Rule::Flip(_)) => (len, None),
                Some(Rule::ResetBehind(bytes)) => (bytes.min(len - 1), Some(End::Reset)),
                Some(Rule::EndBefore(bytes)) => (len - bytes.min(len), Some(End::Orderly)),
                Some(Rule::Stuck) => (0, Some(End::Never)),
                Some(Rule::HalfClosed | Rule::ToNobody | Rule::FromNobody) => (len, None),
            };
            // Nothing that is answered from here on is heard.
            if !matches!(rule, None | Some(Rule::Flip(_))) {
                self.mute.store(true, Ordering::SeqCst);
            }
            let mut request = vec![0; taken];
            if down.read_exact(&mut request).is_err() {
                break;
            }
            if let Some(Rule::Flip(bit)) = rule {
                request[len - 1 - bit / 8] ^= 1 << (bit % 8);
            }
            if rule != Some(Rule::ToNobody) && up.write_all(&request).is_err() {
                break;
            }
            if rule == Some(Rule::HalfClosed) {
                let _ = down.shutdown(Shutdown::Write);
            }
            if let Some(end) = end {
                return end;
            }
            if rule == Some(Rule::ToNobody) {
                while down.read(&mut [0; 4096]).is_ok_and(|len| len > 0) {}
                break;
            }
        }
        End::Orderly
    }

    fn pass_answers(&self) {
        let (mut up, mut down) = (self.up, self.down);
        let mut bytes = [0; 4096];
        while let Ok(len @ 1..) = up.read(&mut bytes) {
            if !self.mute.load(Ordering::SeqCst) && down.write_all(&bytes[..len]).is_err() {
                break;
            }
        }
    }
}

/// The length of the request that comes next, with its length field, and whether it is a Produce
/// request. Its bytes stay where they are; `None` when there are no more.
fn next_request(from: &TcpStream) -> Option<(usize, bool)> {
    let mut bytes = [0; 6];
    loop {
        match from.peek(&mut bytes) {
            Ok(6) => break,
            Ok(0) | Err(_) => return None,
            // A piece of it: the rest is on its way.
            Ok(_) => thread::yield_now(),
        }
    }
    let len = u32::from_be_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
    let len = usize::try_from(len).expect("64 bits");
    Some((4 + len, bytes[4..] == [0, 0]))
}

fn pass_bytes(mut from: &TcpStream, mut to: &TcpStream) {
    let mut byte = [0; 1];
    while let Ok(1) = from.read(&mut byte) {
        if to.write_all(&byte).is_err() {
            break;
        }
    }
    let _ = to.shutdown(Shutdown::Both);
    let _ = from.shutdown(Shutdown::Both);
}
