//! Where merged results lie in time. Windows that overlap are of clients that ran together; windows
//! that do not are rounds. The merge's time is that of all windows, without the pauses between
//! rounds:
//!
//! ```text
//! wall clock   ├──── a ────┤                      ├──── c ────┤
//!                 ├──── b ────┤
//! merge        ├──┬──┬──┬──┬──┤├──┬──┬──┬──┤       cells: the intervals of a (as far as it goes),
//!                                                  then those of c
//! ```
//! The cells of parallel clients are the intervals of the one that measured longest, continued to both
//! sides. An interval's histogram falls whole into the cell that holds its middle, so nothing is lost
//! and nothing is split; its records and CPU are spread evenly over the time it took.

use std::time::Duration;

use crate::exit::Failure;
use crate::merge::How;
use crate::number::{count, float, index, whole};
use crate::recorded::Recorded;

/// Cells of a merge, at most: as many as a long run has intervals.
const CELLS_MAX: u32 = 600;

/// The time of a merge.
#[derive(Clone, Debug)]
pub struct Timeline {
    /// How the parts lie.
    pub how: How,
    /// When the first window opened, since 1970.
    pub started: Duration,
    /// How long at least one window was open.
    pub elapsed: Duration,
    /// The intervals of the merge, in order, without gaps.
    pub cells: Vec<Cell>,
    /// When each part began, and the cells of its time.
    places: Vec<Place>,
}

/// One interval of a merge.
#[derive(Clone, Copy, Debug)]
pub struct Cell {
    /// From the merge's start.
    pub start: Duration,
    /// How long.
    pub length: Duration,
    /// Records acked in it.
    pub acked: u64,
    /// Client CPU in it, s.
    pub cpu_s: f64,
    /// Its end by the wall clock.
    wall_end: Duration,
}

#[derive(Clone, Copy, Debug)]
struct Place {
    started: Duration,
    first_cell: usize,
    cells: usize,
}

/// A part's series as sums so far at the edges of its intervals, by the wall clock.
struct Track {
    part: usize,
    edges: Vec<Edge>,
}

#[derive(Clone, Copy)]
struct Edge {
    wall: Duration,
    acked: f64,
    cpu_s: f64,
}

impl Timeline {
    /// Of results in any order.
    pub fn of(parts: &[Recorded]) -> Result<Self, Failure> {
        let mut tracks = Vec::with_capacity(parts.len());
        for (number, part) in parts.iter().enumerate() {
            tracks.push(Track::of(number, part)?);
        }
        tracks.sort_by_key(Track::start);
        let groups = together(tracks);
        let how = match groups.len() {
            groups if groups == parts.len() => How::Rounds,
            1 => How::Parallel,
            _ => How::Both,
        };
        let lengths: Vec<Vec<Duration>> = groups.iter().map(|group| edges(group)).collect();
        let all: usize = lengths.iter().map(Vec::len).sum();
        let coarser = all.div_ceil(index(CELLS_MAX.into())).max(1);
        let mut places = vec![None; parts.len()];
        let mut cells: Vec<Cell> = Vec::new();
        let mut now = Duration::ZERO;
        for (group, edges) in groups.iter().zip(&lengths) {
            let first_cell = cells.len();
            let mut from = edges[0];
            for chunk in edges[1..].chunks(coarser) {
                let to = chunk[chunk.len() - 1];
                cells.push(cell(group, now, from, to));
                now += to - from;
                from = to;
            }
            for track in group {
                places[track.part] = Some(Place {
                    started: track.start(),
                    first_cell,
                    cells: cells.len() - first_cell,
                });
            }
        }
        Ok(Self {
            how,
            started: groups
                .first()
                .map_or(Duration::ZERO, |group| group[0].start()),
            elapsed: now,
            cells,
            places: places.into_iter().flatten().collect(),
        })
    }

    /// The cell that holds what happened in `part` this long after its start.
    pub fn cell_at(&self, part: usize, after: Duration) -> usize {
        let place = &self.places[part];
        let wall = place.started + after;
        let cells = &self.cells[place.first_cell..place.first_cell + place.cells];
        let within = cells.partition_point(|cell| cell.wall_end <= wall);
        place.first_cell + within.min(place.cells.saturating_sub(1))
    }
}

impl Track {
    fn of(part: usize, recorded: &Recorded) -> Result<Self, Failure> {
        let logs = [&recorded.throughput, &recorded.service, &recorded.response];
        let started = logs.iter().find_map(|log| log.started).ok_or_else(|| {
            let name = recorded.folder.display();
            Failure::config(format!(
                "{name}: its interval logs do not say when they start"
            ))
        })?;
        let mut edges = Vec::with_capacity(recorded.series.len() + 1);
        let (mut acked, mut cpu_s, mut end_s) = (0.0, 0.0, 0.0_f64);
        for interval in &recorded.series {
            edges.push(Edge {
                wall: started + seconds(interval.start_s),
                acked,
                cpu_s,
            });
            acked += float(interval.acked_records);
            cpu_s +=
                interval.cpu_us_per_record.unwrap_or(0.0) / 1e6 * float(interval.acked_records);
            end_s = interval.start_s + interval.length_s;
        }
        if edges.is_empty() {
            // A run without a series: all of it is one interval.
            let document = &recorded.document;
            edges.push(Edge {
                wall: started,
                acked,
                cpu_s,
            });
            acked = float(document.acked_records + document.sent_records);
            cpu_s = document.cpu_user_s + document.cpu_system_s;
            end_s = document.elapsed_s;
        }
        edges.push(Edge {
            wall: started + seconds(end_s),
            acked,
            cpu_s,
        });
        Ok(Self { part, edges })
    }

    fn start(&self) -> Duration {
        self.edges[0].wall
    }

    fn end(&self) -> Duration {
        self.edges[self.edges.len() - 1].wall
    }

    /// Records and CPU until then; evenly spread inside an interval.
    fn until(&self, wall: Duration) -> (f64, f64) {
        let after = self.edges.partition_point(|edge| edge.wall < wall);
        let Some(next) = self.edges.get(after) else {
            let last = &self.edges[self.edges.len() - 1];
            return (last.acked, last.cpu_s);
        };
        if after == 0 || next.wall == wall {
            return (next.acked, next.cpu_s);
        }
        let before = &self.edges[after - 1];
        let share = (wall - before.wall).as_secs_f64() / (next.wall - before.wall).as_secs_f64();
        (
            before.acked + (next.acked - before.acked) * share,
            before.cpu_s + (next.cpu_s - before.cpu_s) * share,
        )
    }
}

/// What a document's seconds are as a time.
fn seconds(seconds: f64) -> Duration {
    Duration::from_micros(whole(seconds * 1e6))
}

/// Tracks in order of their start, those that overlap in one group.
fn together(tracks: Vec<Track>) -> Vec<Vec<Track>> {
    let mut groups: Vec<Vec<Track>> = Vec::new();
    let mut open_until = Duration::ZERO;
    for track in tracks {
        let (start, end) = (track.start(), track.end());
        match groups.last_mut() {
            Some(group) if start < open_until => group.push(track),
            _ => groups.push(vec![track]),
        }
        open_until = open_until.max(end);
    }
    groups
}

/// The edges of a group's cells: at least two.
fn edges(group: &[Track]) -> Vec<Duration> {
    let start = group.iter().map(Track::start).min().unwrap_or_default();
    let end = group.iter().map(Track::end).max().unwrap_or_default();
    let Some(longest) = group.iter().max_by_key(|track| track.end() - track.start()) else {
        return vec![start, end];
    };
    let intervals = float(count(longest.edges.len() - 1));
    let own = (longest.end() - longest.start()).div_f64(intervals);
    let step = own
        .max((end - start) / CELLS_MAX)
        .max(Duration::from_micros(1));
    // Before and after it the grid goes on; what is shorter than half a step is its neighbour's.
    let mut edges = Vec::new();
    let mut edge = longest.start();
    while edge > start + step / 2 {
        edges.push(edge);
        edge = edge.saturating_sub(step);
    }
    edges.push(start);
    edges.reverse();
    let inner = &longest.edges[1..longest.edges.len() - 1];
    edges.extend(inner.iter().map(|edge| edge.wall));
    let mut edge = longest.end();
    while edge + step / 2 < end {
        edges.push(edge);
        edge += step;
    }
    edges.push(end);
    edges
}

fn cell(group: &[Track], start: Duration, from: Duration, to: Duration) -> Cell {
    let (mut acked, mut cpu_s) = (0, 0.0);
    for track in group {
        let ((acked_before, cpu_before), (acked_after, cpu_after)) =
            (track.until(from), track.until(to));
        // Rounded at the edges, so that the cells add up to the whole.
        acked += whole(acked_after).saturating_sub(whole(acked_before));
        cpu_s += cpu_after - cpu_before;
    }
    Cell {
        start,
        length: to - from,
        acked,
        cpu_s,
        wall_end: to,
    }
}
