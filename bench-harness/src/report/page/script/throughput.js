// Throughput: how it is distributed, and over time.

const BINS = 64;
const RATE_STEP = 1.01;

// From, to and share of a run's fine bins (data.rs tells what their numbers mean).
function fineBins({ bins, counts }) {
  const all = counts.reduce((sum, count) => sum + count, 0);
  return bins.map((bin, at) => [bin ? RATE_STEP ** (bin - 1) : 0, RATE_STEP ** bin, counts[at] / all]);
}

// Put into the bins between `edges`; one that lies across an edge is divided, and what is below the
// first edge counts in the first.
function rebinned(fine, edges) {
  const shares = new Array(edges.length - 1).fill(0);
  for (const [from, to, share] of fine) {
    shares.forEach((_, bin) => {
      const overlap = Math.min(to, edges[bin + 1]) - (bin ? Math.max(from, edges[bin]) : from);
      if (overlap > 0) shares[bin] += (share * Math.min(overlap, to - from)) / (to - from);
    });
  }
  return shares;
}

// Where 99 % of the intervals are slower.
function nearlyAll(fine) {
  let share = 0;
  return fine.find(([, , more]) => (share += more) >= 0.99)[1];
}

function drawDistribution() {
  const host = byId('distribution');
  const runs = shownRuns().filter((run) => run.rates);
  if (runs.length === 0) {
    host.replaceChildren(notice(nothingOf('a throughput histogram')));
    return;
  }
  const fine = runs.map((run) => fineBins(run.rates));
  // A few bursts must not squeeze all the rest: the axis ends where every run has 99 % of its intervals.
  const high = Math.max(...fine.map(nearlyAll)) * 1.02;
  // Where most of each run lies; what is an order of magnitude apart is not told apart on an even axis.
  const typical = runs.map((run) => figureOf(run, 'throughput.p50')).filter((value) => value > 0);
  const apart = typical.length > 0 && Math.max(...typical) / Math.min(...typical) > 8;
  const x = apart
    ? logarithmic(Math.min(...typical) / 10, high, rate)
    : linear(0, high, rate, host.clientWidth < 500 ? 4 : 8);
  x.title = `records a second, in 10 ms${apart ? ' (logarithmic)' : ''}`;
  const edges = Array.from({ length: BINS + 1 }, (_, at) => x.value(at / BINS));
  const middles = edges.slice(1).map((_, bin) => x.value((bin + 0.5) / BINS));
  const shapes = runs.map((run, at) => ({ run, bins: rebinned(fine[at], edges) }));
  const y = linear(0, Math.max(...shapes.flatMap(({ bins }) => bins)) * 1.05, percent);
  drawPlot(host, {
    label: 'Distribution of throughput',
    x, y,
    lines: shapes.map(({ run, bins }) => {
      const top = bins.indexOf(Math.max(...bins));
      const [first, last] = [bins.findIndex((share) => share > 0), bins.findLastIndex((share) => share > 0)];
      const steps = bins.flatMap((share, bin) => (bin < first || bin > last ? [] : [[edges[bin], share], [edges[bin + 1], share]]));
      return {
        run, area: 0,
        points: [[edges[first], 0], ...steps, [edges[last + 1], 0]],
        marks: [[middles[top], bins[top]]],
      };
    }),
    stops: middles,
    read: (middle) => {
      const bin = middles.indexOf(middle);
      const from = bin === 0 ? 'up' : rate(edges[bin]);
      return {
        title: `${from} to ${rate(edges[bin + 1])}`,
        rows: sortedRows(shapes.map(({ run, bins }) => ({ run, y: bins[bin], text: `${percent(bins[bin])} of intervals` }))),
      };
    },
  });
  const beyond = shapes.map(({ bins }) => 1 - bins.reduce((sum, share) => sum + share, 0)).filter((share) => share > 1e-6);
  slot(host, beyond.length === 0 ? null : html('p', { class: 'quiet' },
    `Not shown: rates above ${rate(x.high)}, at most ${percent(Math.max(...beyond))} of the intervals of ${plural(beyond.length, 'run')}.`));
}

function drawRate() {
  const host = byId('rate');
  const runs = shownRuns().filter((run) => run.series.rate.length > 0);
  if (runs.length === 0) {
    host.replaceChildren(notice(nothingOf('a series')));
    return;
  }
  const lines = runs.map((run) => {
    const { start_s: start, length_s: length, rate: rates } = run.series;
    return {
      run,
      points: start.flatMap((from, at) => [[from, rates[at]], [from + length[at], rates[at]]]),
      marks: start.map((from, at) => [from + length[at] / 2, rates[at]]).filter((_, at) => at % Math.ceil(start.length / 12) === 0),
    };
  });
  const x = linear(0, Math.max(...lines.flatMap(({ points }) => points.map(([at]) => at))), seconds);
  x.title = 'seconds into the window';
  const y = linear(0, Math.max(...lines.flatMap(({ points }) => points.map(([, value]) => value)), 1) * 1.08, rate);
  const longest = runs.reduce((one, other) => (other.series.start_s.length > one.series.start_s.length ? other : one)).series;
  drawPlot(host, {
    label: 'Throughput over time',
    x, y, lines,
    stops: longest.start_s.map((from, at) => from + longest.length_s[at] / 2),
    read: (middle) => ({
      title: `at ${seconds(middle)}`,
      rows: sortedRows(lines.map(({ run, points }) => {
        const there = middle <= points[points.length - 1][0];
        const value = there ? before(points, middle) : undefined;
        return { run, y: value, text: there ? rate(value) : '–' };
      })),
    }),
  });
}

