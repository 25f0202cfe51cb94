// How much the runs differ: their key figures as ratios to one of them.

// better: 1 where more is, -1 where less is, 0 where it depends.
const COMPARED = [
  { key: 'records_per_s', name: 'records/s', show: rate, better: 1 },
  { key: 'cpu_us_per_record', name: 'CPU per record', show: micros, better: -1 },
  ...[['p50', 'p50'], ['p90', 'p90'], ['p99', 'p99'], ['p99_9', 'p99.9'], ['p99_99', 'p99.99'], ['max', 'slowest']].map(([key, name]) => ({
    key: () => `latency_us.${state.latency}.${key}`, name, show: micros, better: -1,
  })),
  { key: 'throughput.p1', name: 'slowest 10 ms', show: rate, better: 1 },
  { key: 'records_per_batch', name: 'records per batch', show: amount, better: 0 },
  { key: 'kernel_entries_per_request', name: 'kernel entries per request', show: amount, better: -1 },
  { key: 'peak_rss_bytes', name: 'peak memory', show: bytes, better: -1 },
];
const BETTER = { 1: 'more is better', '-1': 'less is better', 0: '' };
// What differs by less than this is not coloured: twins do as well.
const TWINS = 1.05;

function startDifference() {
  const host = byId('difference');
  if (data.runs.length < 2) {
    host.append(notice('One run: there is nothing to compare it with.'));
    return;
  }
  let reference = data.runs[0];
  const select = html('select', {}, ...data.runs.map((run) => html('option', { value: run.place }, run.name)));
  select.addEventListener('change', () => { reference = data.runs[Number(select.value)]; draw(); });
  const picture = html('div', {});
  host.append(html('div', { class: 'controls' }, html('label', {}, 'Compared with ', select)), picture);

  const draw = () => {
    const figures = COMPARED
      .map((compared) => ({ ...compared, key: typeof compared.key === 'function' ? compared.key() : compared.key }))
      .filter(({ key }) => data.runs.some((run) => figureOf(run, key) !== null));
    const field = (run, { key, show, better }) => {
      const [value, base] = [figureOf(run, key), figureOf(reference, key)];
      if (value === null) return html('td', { class: 'none' }, '–');
      const quiet = html('span', { class: 'quiet' }, show(value));
      if (run === reference) return html('td', {}, html('span', { class: 'ratio' }, '1'), quiet);
      // Nothing is a multiple of nothing.
      if (!(base > 0)) return html('td', {}, html('span', { class: 'ratio' }, '–'), quiet);
      const gain = (value / base) ** better;
      const kind = gain >= TWINS ? 'better' : gain <= 1 / TWINS ? 'worse' : '';
      return html('td', { class: kind }, html('span', { class: 'ratio' }, times(value / base)), quiet);
    };
    const others = shownRuns().filter((run) => run !== reference);
    picture.replaceChildren(boxed(`Ratios to ${reference.name}`, html('table', { class: 'difference' },
      html('thead', {}, html('tr', {}, html('th', { scope: 'col' }, ''), ...figures.map(({ name, better }) =>
        html('th', { scope: 'col' }, name, html('span', { class: 'quiet' }, BETTER[better]))))),
      html('tbody', {}, ...[reference, ...others].map((run) => html('tr', { class: run === reference ? 'reference' : '', 'data-run': run.place },
        html('th', { scope: 'row' }, html('span', { class: 'row-name' }, sample(run), html('span', {}, breakable(run.name)))),
        ...figures.map((figure) => field(run, figure))))))), html('p', { class: 'quiet' },
      `Each figure divided by that of “${reference.name}”; below it the figure itself. Coloured from 5 % on: green is better, red is worse.`));
  };
  onChange(draw);
}
