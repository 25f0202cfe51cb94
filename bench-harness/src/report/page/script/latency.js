// Latency by percentile, and over time.

// What to say when none of the shown runs has what is drawn.
function nothingOf(what) {
  if (shownRuns().length === 0) return 'No run is shown: choose some in the list of runs.';
  return `None of the runs shown has ${what}.`;
}

const WITHOUT = 'acks are not seen one by one with delivery=forget or acks=0';

function drawPercentiles() {
  const host = byId('percentiles');
  const [runs, without] = [shownRuns().filter(latencyOf), shownRuns().filter((run) => !latencyOf(run))];
  if (runs.length === 0) {
    host.replaceChildren(notice(`${nothingOf('latencies')} ${without.length ? `(${WITHOUT})` : ''}`));
    return;
  }
  const curves = runs.map((run) => {
    const { ns, records, max_ns: max } = latencyOf(run);
    const points = ns.map((value, place) => [data.x[place], value]);
    // The slowest record's place is one in all of them.
    if (points[points.length - 1][0] < records) points.push([records, max]);
    return { run, points };
  });
  const last = Math.max(...curves.map(({ points }) => points[points.length - 1][0]));
  const x = logarithmic(1, Math.max(last, 100), percentile);
  const nines = [1, 2, 10, 100, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9].filter((at) => at <= x.high * 1.0001);
  x.marks = nines.map((at) => ({ at, label: at === 1 ? '0' : percentile(at) }));
  x.lines = [];
  x.title = `share of records that are faster (${state.latency} time)`;
  const values = curves.flatMap(({ points }) => points.map(([, value]) => Math.max(value, 1)));
  drawPlot(host, {
    label: `Latency by percentile, ${state.latency} time`,
    x,
    y: logarithmicAround(values, duration),
    lines: curves.map(({ run, points }) => ({
      run, points,
      marks: nines.slice(1).filter((at) => at <= points[points.length - 1][0])
        .map((at) => [at, before(points, at)]),
    })),
    stops: data.x.filter((at) => at <= last),
    read: (at) => ({
      title: percentile(at),
      rows: sortedRows(curves.map(({ run, points }) => {
        const there = at <= latencyOf(run).records * 1.000001;
        const value = there ? before(points, at) : undefined;
        return { run, y: value, text: there ? duration(value) : '–' };
      })),
    }),
  });
  if (without.length > 0) {
    slot(host, notice(`Without latencies: ${without.map((run) => `“${run.name}”`).join(', ')} (${WITHOUT}).`));
  } else {
    slot(host, null);
  }
}

// A line under a plot.
function slot(host, line) {
  host.querySelectorAll(':scope > p').forEach((old) => old.remove());
  if (line) host.append(line);
}

function drawBands() {
  const host = byId('bands');
  const series = (run) => {
    const { start_s: start, length_s: length } = run.series;
    const bands = run.series[state.latency];
    return start.map((from, at) => [from + length[at] / 2, bands.p50[at], bands.p99[at], bands.p99_9[at]])
      .filter((point) => point[1] !== null);
  };
  const runs = shownRuns().map((run) => ({ run, points: series(run) })).filter(({ points }) => points.length > 0);
  if (runs.length === 0) {
    host.replaceChildren(notice(nothingOf('latencies over time')));
    return;
  }
  const end = Math.max(...runs.flatMap(({ run }) => run.series.start_s.map((from, at) => from + run.series.length_s[at])));
  const y = logarithmicAround(runs.flatMap(({ points }) => points.flatMap((point) => point.slice(1))), duration);
  // A plot keeps its place (and the focus) as long as its run is shown.
  const figures = new Map([...host.querySelectorAll('figure')].map((figure) => [figure.dataset.run, figure]));
  const wanted = runs.map(({ run }) => figures.get(String(run.place))
    || html('figure', { 'data-run': run.place }, html('figcaption', {}, sample(run), html('span', {}, breakable(run.name))), html('div', {})));
  host.querySelectorAll(':scope > *').forEach((old) => { if (!wanted.includes(old)) old.remove(); });
  wanted.forEach((figure, at) => { if (host.children[at] !== figure) host.insertBefore(figure, host.children[at] || null); });
  runs.forEach(({ run, points }, at) => {
    const x = linear(0, end, seconds, 4);
    x.title = 'seconds into the window';
    const stops = points.map(([middle]) => middle);
    drawPlot(wanted[at].lastElementChild, {
      label: `Latency over time of ${run.name}`,
      height: 230, x, y,
      bands: points.length < 2 ? [] : [
        { run, points: points.map(([middle, p50, , p999]) => [middle, p50, p999]), pale: true },
        { run, points: points.map(([middle, p50, p99]) => [middle, p50, p99]) },
      ],
      lines: [{
        run, points: points.map(([middle, p50]) => [middle, p50]),
        // One interval is no line.
        marks: points.length < 2 ? points.flatMap(([middle, ...values]) => values.map((value) => [middle, value])) : [],
      }],
      stops,
      read: (middle) => {
        const [, p50, p99, p999] = points[stops.indexOf(middle)];
        return { title: `at ${seconds(middle)}`, rows: [{ run, y: p50, text: `p50 ${duration(p50)}, p99 ${duration(p99)}, p99.9 ${duration(p999)}` }] };
      },
    });
  });
}

