//! Each of the proxy's faults, against a small broker that answers every request with its own bytes
//! and tells which requests it got.
//!
//! Nothing here is timed: what is late is shown by something else that came first.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, channel};
use std::thread::{self, JoinHandle};

use ringpost_chaos::proxy::toxics::Effects;
use ringpost_chaos::proxy::{Proxy, Route};

const PRODUCE: i16 = 0;
const METADATA: i16 = 3;

/// What the broker saw.
#[derive(Debug, PartialEq, Eq)]
enum Seen {
    /// A whole request.
    Request(Vec<u8>),
    /// So many bytes, and then the stream's end.
    Cut(usize),
    /// The stream's end between requests.
    End,
}

/// A broker that answers everything, until it is asked for nothing more.
struct Echo {
    address: SocketAddr,
    seen: Receiver<Seen>,
    accepting: Option<JoinHandle<()>>,
}

impl Echo {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (tell, seen) = channel();
        let accepting = thread::spawn(move || {
            let mut serving = Vec::new();
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                let mut first = [0];
                // The test's own last connection says nothing.
                if stream.read(&mut first).unwrap_or(0) == 0 {
                    break;
                }
                let tell = tell.clone();
                serving.push(thread::spawn(move || {
                    let mut rest = io::Cursor::new(first).chain(&stream);
                    loop {
                        let seen = read_frame(&mut rest);
                        let Seen::Request(request) = &seen else {
                            let _ = tell.send(seen);
                            return;
                        };
                        // Header: API key and version, correlation id; an answer begins with the latter.
                        let answer = frame(&request[4..]);
                        let _ = tell.send(seen);
                        if (&stream).write_all(&answer).is_err() {
                            return;
                        }
                    }
                }));
            }
            for thread in serving {
                thread.join().unwrap();
            }
        });
        Self {
            address,
            seen,
            accepting: Some(accepting),
        }
    }

    fn next(&self) -> Seen {
        self.seen.recv().unwrap()
    }

    /// Waits for a request, over ends of earlier connections.
    fn request(&self) -> Vec<u8> {
        loop {
            if let Seen::Request(request) = self.next() {
                return request;
            }
        }
    }
}

impl Drop for Echo {
    fn drop(&mut self) {
        drop(TcpStream::connect(self.address));
        if let Some(accepting) = self.accepting.take() {
            let ended = accepting.join();
            assert!(ended.is_ok() || thread::panicking());
        }
    }
}

fn frame(body: &[u8]) -> Vec<u8> {
    let mut frame = u32::try_from(body.len()).unwrap().to_be_bytes().to_vec();
    frame.extend_from_slice(body);
    frame
}

fn read_frame(from: &mut impl Read) -> Seen {
    let mut length = [0; 4];
    for at in 0..4 {
        if !matches!(from.read(&mut length[at..=at]), Ok(1)) {
            return if at == 0 { Seen::End } else { Seen::Cut(at) };
        }
    }
    let mut body = vec![0; u32::from_be_bytes(length) as usize];
    for at in 0..body.len() {
        if !matches!(from.read(&mut body[at..=at]), Ok(1)) {
            return Seen::Cut(4 + at);
        }
    }
    Seen::Request(body)
}

/// A client's connection through the proxy.
struct Client(TcpStream);

impl Client {
    fn connect(proxy: &Proxy) -> Self {
        Self(TcpStream::connect(proxy.addresses()[0]).unwrap())
    }

    fn ask(&self, api: i16, correlation: u8, body: &[u8]) -> Vec<u8> {
        let mut request = api.to_be_bytes().to_vec();
        request.extend_from_slice(&[0, 0, 0, 0, 0, correlation]);
        request.extend_from_slice(body);
        (&self.0).write_all(&frame(&request)).unwrap();
        request
    }

    fn answer(&self) -> io::Result<Vec<u8>> {
        let mut length = [0; 4];
        (&self.0).read_exact(&mut length)?;
        let mut body = vec![0; u32::from_be_bytes(length) as usize];
        (&self.0).read_exact(&mut body)?;
        Ok(body)
    }

    /// The correlation id of the next answer.
    fn answered(&self) -> u8 {
        self.answer().unwrap()[3]
    }

    /// Is nothing there just now?
    fn is_silent(&self) -> bool {
        self.0.set_nonblocking(true).unwrap();
        let peeked = self.0.peek(&mut [0]);
        self.0.set_nonblocking(false).unwrap();
        peeked.is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock)
    }

    /// Waits for the connection's end.
    fn end(&self) -> io::ErrorKind {
        match self.answer() {
            Err(error) => error.kind(),
            Ok(answer) => panic!("an answer, {answer:?}, instead of an end"),
        }
    }
}

/// Fields end in this order: the client is gone, the proxy ends, then the broker.
struct Bench {
    client: Client,
    proxy: Proxy,
    broker: Echo,
}

impl Bench {
    fn new() -> Self {
        let broker = Echo::start();
        let route = Route {
            listen: "127.0.0.1:0".parse().unwrap(),
            broker: broker.address,
        };
        let proxy = Proxy::start(&[route]).unwrap();
        let client = Client::connect(&proxy);
        // There and back once: the connection is made.
        client.ask(METADATA, 255, b"first");
        assert_eq!(client.answered(), 255);
        assert!(matches!(broker.next(), Seen::Request(_)));
        Self {
            client,
            proxy,
            broker,
        }
    }

    fn says(&self, line: &str) {
        self.proxy.command(line).unwrap();
    }

    /// Clears the node, and returns what its faults did.
    fn cleared(&self) -> Effects {
        self.proxy.command("clear 1").unwrap().unwrap()
    }

    /// Waits until the node's faults did that: the proxy has the frames then, and has said when they
    /// leave.
    fn until(&self, done: impl Fn(Effects) -> bool) {
        while !done(self.proxy.did(1)) {
            thread::yield_now();
        }
    }
}

#[test]
fn without_a_fault_bytes_pass_as_they_are() {
    let bench = Bench::new();
    let body: Vec<u8> = (0..200_000_u32).map(|i| i.to_le_bytes()[0]).collect();
    let request = bench.client.ask(PRODUCE, 1, &body);
    assert_eq!(bench.broker.request(), request);
    assert_eq!(bench.client.answer().unwrap()[4..], body);
    assert_eq!(bench.proxy.connections(1), 1);
    assert!(bench.proxy.command("reset 2").is_err(), "one node only");
}

/// Bytes come whole and in order, however small the pieces.
#[test]
fn n4_pieces_of_one_byte_and_little_bandwidth_lose_nothing() {
    let bench = Bench::new();
    bench.says("slice 1 1");
    let request = bench.client.ask(PRODUCE, 1, &[7; 3000]);
    assert_eq!(bench.broker.request(), request);
    assert_eq!(bench.client.answer().unwrap()[4..], [7; 3000]);
    bench.says("clear 1");
    bench.says("bandwidth 1 100000");
    let request = bench.client.ask(PRODUCE, 2, &[8; 3000]);
    assert_eq!(bench.broker.request(), request);
    assert_eq!(bench.client.answer().unwrap()[4..], [8; 3000]);
}

/// What was sent before a delay ended comes after what was sent behind it on another connection.
#[test]
fn n5_latency_holds_frames_back_in_order() {
    let bench = Bench::new();
    let other = Client::connect(&bench.proxy);
    bench.says("latency 1 20 10");
    bench.client.ask(PRODUCE, 1, b"");
    bench.client.ask(PRODUCE, 2, b"");
    assert_eq!((bench.client.answered(), bench.client.answered()), (1, 2));
    assert_eq!(bench.cleared().late, 4, "both, both ways");
    // Longer than any machine stands still; it ends with the proxy.
    bench.says("latency 1 3600000");
    bench.client.ask(PRODUCE, 3, b"");
    bench.until(|did| did.late == 1);
    // For what comes later.
    bench.says("clear 1");
    other.ask(PRODUCE, 4, b"");
    assert_eq!(other.answered(), 4);
    assert!(bench.client.is_silent());
}

/// An answer comes after what was asked later of the broker at its own speed.
#[test]
fn v3_a_slow_broker_answers_late_and_in_order() {
    let bench = Bench::new();
    bench.says("slow 1 2");
    bench.client.ask(PRODUCE, 1, b"");
    bench.client.ask(PRODUCE, 2, b"");
    assert_eq!((bench.client.answered(), bench.client.answered()), (1, 2));
    assert_eq!(bench.cleared().late, 2, "the answers");
    // At least 200 µs are taken for its work: ten million times that are half an hour.
    bench.says("slow 1 10000000");
    bench.client.ask(PRODUCE, 3, b"");
    bench.until(|did| did.late == 1);
    bench.says("clear 1");
    // What came later, by another connection, overtakes it.
    let other = Client::connect(&bench.proxy);
    other.ask(PRODUCE, 4, b"");
    assert_eq!(other.answered(), 4);
    assert!(bench.client.is_silent());
}

/// To the broker only, from it only: held back, and not lost, as TCP would retransmit it.
#[test]
fn n3_a_stall_holds_back_one_way() {
    let bench = Bench::new();
    bench.says("stall 1 down");
    bench.client.ask(PRODUCE, 1, b"");
    assert_eq!(bench.broker.request()[7], 1, "the broker has it");
    assert!(bench.client.is_silent());
    bench.says("clear 1");
    assert_eq!(bench.client.answered(), 1);
    bench.says("stall 1 up");
    bench.client.ask(PRODUCE, 2, b"");
    assert!(bench.client.is_silent());
    bench.says("clear 1");
    assert_eq!(bench.broker.request()[7], 2);
    assert_eq!(bench.client.answered(), 2);
}

/// The broker gets so many bytes of the request; both sides see a reset.
#[test]
fn n1_a_request_cut_at_byte_k_ends_in_a_reset() {
    for at in [1, 4, 11, 12] {
        let bench = Bench::new();
        bench.says(&format!("cut 1 request 0 2 {at}"));
        bench.client.ask(PRODUCE, 1, b"whole");
        assert_eq!(bench.client.answered(), 1);
        bench.client.ask(METADATA, 2, b"of another API");
        assert_eq!(bench.client.answered(), 2);
        bench.client.ask(PRODUCE, 3, b"cut");
        assert_eq!(bench.client.end(), io::ErrorKind::ConnectionReset);
        for _ in 0..2 {
            assert!(matches!(bench.broker.next(), Seen::Request(_)));
        }
        assert_eq!(bench.broker.next(), Seen::Cut(at));
        let again = Client::connect(&bench.proxy);
        again.ask(PRODUCE, 4, b"");
        assert_eq!(again.answered(), 4, "the next connection is whole");
    }
}

/// The broker has the request, the client a part of the answer.
#[test]
fn n1_an_answer_cut_at_byte_k_ends_in_a_reset() {
    let bench = Bench::new();
    bench.says("cut 1 response any 1 6");
    bench.client.ask(PRODUCE, 1, b"0123456789");
    assert_eq!(bench.broker.request()[7], 1);
    let end = bench.client.end();
    assert!(
        matches!(
            end,
            io::ErrorKind::ConnectionReset | io::ErrorKind::UnexpectedEof
        ),
        "{end:?}"
    );
}

#[test]
fn answers_are_held_dropped_and_repeated() {
    let bench = Bench::new();
    let other = Client::connect(&bench.proxy);
    bench.says("hold 1 0 1 20");
    bench.client.ask(PRODUCE, 1, b"");
    bench.client.ask(PRODUCE, 2, b"");
    assert_eq!((bench.client.answered(), bench.client.answered()), (1, 2));

    bench.says("hold 1 0 1 3600000");
    bench.client.ask(PRODUCE, 3, b"");
    bench.until(|did| did.held == 2);
    // A flipped bit tells that the proxy has the answer behind it.
    bench.says("flip 1 response 0 1 0 0");
    bench.client.ask(PRODUCE, 4, b"");
    bench.until(|did| did.flipped == 1);
    other.ask(PRODUCE, 5, b"");
    assert_eq!(other.answered(), 5);
    assert!(bench.client.is_silent(), "held, and what is behind it too");

    bench.says("drop 1 0 1");
    other.ask(PRODUCE, 6, b"");
    other.ask(PRODUCE, 7, b"");
    assert_eq!(other.answered(), 7);

    bench.says("repeat 1 0 1");
    other.ask(PRODUCE, 8, b"");
    assert_eq!((other.answered(), other.answered()), (8, 8));
}

/// One bit of the request differs, so many bytes before its end.
#[test]
fn h13_a_bit_of_a_request_is_flipped() {
    let bench = Bench::new();
    bench.says("flip 1 request 0 1 2 0");
    let mut sent = bench.client.ask(PRODUCE, 1, b"abcd");
    let at = sent.len() - 3;
    sent[at] ^= 1;
    assert_eq!(bench.broker.request(), sent);
    assert_eq!(bench.client.answer().unwrap()[4..], *b"accd");
}

/// The client sees a reset, an end, a refusal, or nothing at all, and its next connection is served.
#[test]
fn n2_connections_are_reset_closed_refused_or_left_half_open() {
    let bench = Bench::new();
    bench.says("reset 1");
    assert_eq!(bench.client.end(), io::ErrorKind::ConnectionReset);
    assert_eq!(bench.broker.next(), Seen::End);

    let closed = Client::connect(&bench.proxy);
    closed.ask(PRODUCE, 1, b"");
    assert_eq!(closed.answered(), 1);
    bench.says("close 1");
    assert_eq!(closed.end(), io::ErrorKind::UnexpectedEof, "FIN, no RST");

    let deaf = Client::connect(&bench.proxy);
    deaf.ask(PRODUCE, 2, b"");
    assert_eq!(deaf.answered(), 2);
    bench.says("halfopen 1");
    deaf.ask(PRODUCE, 3, b"");
    let next = Client::connect(&bench.proxy);
    next.ask(PRODUCE, 4, b"");
    assert_eq!(next.answered(), 4);
    assert!(deaf.is_silent(), "neither an answer nor an end");

    bench.says("refuse 1");
    let refused = Client::connect(&bench.proxy);
    assert_eq!(refused.end(), io::ErrorKind::ConnectionReset);
    bench.says("clear 1");
    let allowed = Client::connect(&bench.proxy);
    allowed.ask(PRODUCE, 5, b"");
    assert_eq!(allowed.answered(), 5);
}

/// Faults that met nothing count nothing, so that a run can tell that they showed nothing.
#[test]
fn what_a_fault_did_is_counted_until_it_is_cleared() {
    let bench = Bench::new();
    for line in [
        "hold 1 0 1 1",
        "repeat 1 0 2",
        "flip 1 request 0 2 0 0",
        "slow 1 2",
        "drop 1 0 9",
        "flip 1 request 0 1 5000 0",
    ] {
        bench.says(line);
    }
    for correlation in [1, 2] {
        bench.client.ask(PRODUCE, correlation, b"abc");
        assert_eq!(bench.client.answered(), correlation);
    }
    assert_eq!(bench.client.answered(), 2, "repeated");
    let did = bench.cleared();
    let counted = Effects {
        held: 1,
        repeated: 1,
        flipped: 1,
        late: 2,
        ..Effects::default()
    };
    assert_eq!(did, counted);
    bench.says("slice 1 1");
    bench.client.ask(PRODUCE, 3, b"");
    assert_eq!(bench.client.answered(), 3);
    bench.says("cut 1 response 0 1 4");
    bench.client.ask(PRODUCE, 4, b"");
    bench.client.end();
    let did = bench.cleared();
    assert_eq!((did.cut, did.broken), (1, 0), "{did}");
    assert!((3..=4).contains(&did.sliced), "{did}");
    let again = Client::connect(&bench.proxy);
    again.ask(PRODUCE, 5, b"");
    assert_eq!(again.answered(), 5);
    bench.says("reset 1");
    assert_eq!(bench.cleared().broken, 1);
    assert_eq!(bench.cleared(), Effects::default());
    assert_eq!(bench.proxy.command("latency all 1").unwrap(), None);
}

#[test]
fn a_broker_that_is_not_there_resets_its_clients() {
    // A free port of its own address: what listens on the other one keeps it from everybody else.
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let route = format!("127.0.0.1:0=127.0.0.2:{port}").parse().unwrap();
    let proxy = Proxy::start(&[route]).unwrap();
    let client = Client::connect(&proxy);
    assert_eq!(client.end(), io::ErrorKind::ConnectionReset);
}
