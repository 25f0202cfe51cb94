//! The floor of every latency: bytes there and back over a plain TCP connection on this host, with
//! the same way of waiting. No client of a broker on this host can be faster.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::thread;

use serde::{Deserialize, Serialize};

use crate::clock::Clock;
use crate::histogram::{Latency, latencies};
use crate::number::count;
use crate::placement;

/// Trips that are not counted: the connection's first packets are slower.
const WARM_TRIPS: u64 = 20;
const TRIPS_MAX: u64 = 2_000;

/// What was measured.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct PingPong {
    /// Bytes there.
    pub request_bytes: usize,
    /// Bytes back.
    pub answer_bytes: usize,
    /// `park`: both sides sleep in `read`; `spin`: the asking side does not.
    pub wait: String,
    /// Trips counted.
    pub trips: u64,
    /// Their times.
    pub us: Option<Latency>,
}

/// How it is to be measured.
#[derive(Clone, Copy, Debug)]
pub struct Course<'a> {
    /// Bytes there.
    pub request_bytes: usize,
    /// Bytes back.
    pub answer_bytes: usize,
    /// Whether the asking side spins instead of sleeping.
    pub spin: bool,
    /// CPUs of the answering side; the asking side stays where its thread is.
    pub answer_cpus: &'a [usize],
    /// How long to go on.
    pub budget_ns: u64,
}

/// Measures on a free port of 127.0.0.1.
pub fn measure(clock: &Clock, course: &Course<'_>) -> io::Result<PingPong> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let mut asking = TcpStream::connect(listener.local_addr()?)?;
    let (mut answering, _) = listener.accept()?;
    for socket in [&asking, &answering] {
        socket.set_nodelay(true)?;
    }
    asking.set_nonblocking(course.spin)?;
    let mut times = latencies();
    let mut trips = 0;
    let measured = thread::scope(|scope| {
        scope.spawn(|| {
            // Refused, it just runs elsewhere; the end of the connection ends it.
            let _ = placement::bind(course.answer_cpus);
            let mut request = vec![0; course.request_bytes];
            let answer = vec![0; course.answer_bytes];
            while answering.read_exact(&mut request).is_ok() && answering.write_all(&answer).is_ok()
            {
            }
        });
        let request = vec![0; course.request_bytes];
        let mut answer = vec![0; course.answer_bytes];
        let give_up = clock.now() + course.budget_ns;
        let mut started = clock.now();
        let mut trip = || -> io::Result<()> {
            while trips < WARM_TRIPS + TRIPS_MAX && (trips <= WARM_TRIPS || started < give_up) {
                send(&mut asking, &request)?;
                receive(&mut asking, &mut answer)?;
                let now = clock.now();
                if trips >= WARM_TRIPS {
                    times.saturating_record(now - started);
                }
                (started, trips) = (now, trips + 1);
            }
            Ok(())
        };
        let ended = trip();
        drop(asking); // ends the other side
        ended
    });
    measured?;
    Ok(PingPong {
        request_bytes: course.request_bytes,
        answer_bytes: course.answer_bytes,
        wait: if course.spin { "spin" } else { "park" }.into(),
        trips: count(usize::try_from(times.len()).unwrap_or(usize::MAX)),
        us: Latency::of(&times, 1.0),
    })
}

fn send(socket: &mut TcpStream, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        match socket.write(bytes) {
            Ok(0) => return Err(ErrorKind::WriteZero.into()),
            Ok(written) => bytes = &bytes[written..],
            Err(error) if may_try_again(&error) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn receive(socket: &mut TcpStream, mut bytes: &mut [u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        match socket.read(bytes) {
            Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
            Ok(read) => bytes = &mut bytes[read..],
            Err(error) if may_try_again(&error) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// A spinning side is told "not yet" all the time.
fn may_try_again(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trips_are_counted_in_both_ways_of_waiting() {
        for (spin, wait) in [(false, "park"), (true, "spin")] {
            let course = Course {
                request_bytes: 300_000, // more than a socket takes at once
                answer_bytes: 60,
                spin,
                answer_cpus: &[],
                budget_ns: 1_000_000,
            };
            let measured = measure(&Clock::new(), &course).expect("loopback works");
            assert_eq!(measured.wait, wait);
            assert!(measured.trips >= 1, "{measured:?}");
            assert!(measured.us.expect("counted").p50 > 0.0);
        }
    }
}
