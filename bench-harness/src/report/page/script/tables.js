// Settings, environment and all figures, as tables that scroll inside their box.

const boxed = (label, table) => html('div', { class: 'scroll', tabindex: '0', role: 'region', 'aria-label': label }, table);
const shownValue = (value) => (value === null ? '–' : typeof value === 'number' ? exact(Number(value.toPrecision(9))) : String(value));

// Which values to mark: those that more than half of the runs do not have; of two runs both; none where
// there is no such value, for then a mark would say nothing.
function marked(values) {
  const counts = new Map();
  values.forEach((value) => counts.set(value, (counts.get(value) || 0) + 1));
  const [value, count] = [...counts].reduce((one, other) => (other[1] > one[1] ? other : one));
  return (each) => (count * 2 > values.length ? each !== value : values.length === 2);
}

function compared(host, rows, what) {
  const known = rows.filter(({ values }) => values.some((value) => value !== null));
  const differs = known.filter(({ values }) => values.some((value) => value !== values[0]));
  const same = known.filter((candidate) => !differs.includes(candidate));
  if (data.runs.length > 1) {
    host.append(differs.length === 0
      ? html('p', {}, `All runs have the same ${what}.`)
      : html('p', {}, `${differs.length} of ${known.length} differ. What differs from most runs is marked.`));
  }
  if (differs.length > 0) {
    host.append(boxed(`${what} that differ`, html('table', { class: 'compared' },
      html('thead', {}, html('tr', {}, html('th', { scope: 'col' }, ''), ...data.runs.map((run) => html('th', { scope: 'col' }, sample(run), html('span', {}, breakable(run.name)))))),
      html('tbody', {}, ...differs.map(({ key, values }) => {
        // Measured on the spot, findings differ in their digits always; in words or verdict they count.
        const compare = (value) => (key.startsWith('findings.') ? String(value).replace(/[\d.]+/g, '#') : value);
        const differs = marked(values.map(compare));
        return html('tr', {}, html('th', { scope: 'row' }, key), ...values.map((value) =>
          html('td', {}, differs(compare(value)) ? html('mark', {}, shownValue(value)) : shownValue(value))));
      })))));
  }
  if (same.length > 0) {
    const list = html('dl', {}, ...same.map(({ key, values }) => html('div', {}, html('dt', {}, key), html('dd', {}, shownValue(values[0])))));
    host.append(data.runs.length === 1 ? list : html('details', {}, html('summary', {}, `The same in all runs: ${same.length}`), list));
  }
}

// The figures people look at first; the others follow by name.
const FIRST = [
  'records_per_s', 'mib_per_s', 'cpu_us_per_record',
  ...['response', 'service'].flatMap((kind) => ['p50', 'p90', 'p99', 'p99_9', 'p99_99', 'max', 'mean'].map((name) => `latency_us.${kind}.${name}`)),
  'throughput.p1', 'throughput.p10', 'throughput.p50', 'throughput.p90', 'throughput.p99',
  'acked_records', 'sent_records', 'offered_records', 'unsent_records', 'not_written_records', 'unknown_records',
];

function startFigures() {
  const host = byId('figures');
  const rows = data.figures.filter(({ values }) => values.some((value) => value !== null));
  const rank = ({ key }) => (FIRST.indexOf(key) + 1 || FIRST.length + 1);
  rows.sort((one, other) => rank(one) - rank(other) || (one.key < other.key ? -1 : 1));
  const columns = [
    { key: 'run', of: (run) => run.name },
    ...rows.map(({ key, values }) => ({ key, number: true, of: (run) => values[run.place] })),
    { key: 'started', of: (run) => run.started },
    { key: 'command', of: (run) => run.command },
  ];
  const order = { column: undefined, ascending: true };
  const body = html('tbody', {});
  const heads = columns.map((column) => {
    const button = html('button', { type: 'button' }, column.key);
    const head = html('th', { scope: 'col', class: column.number ? 'number' : '', 'aria-sort': 'none' }, button);
    button.addEventListener('click', () => {
      order.ascending = order.column === column ? !order.ascending : true;
      order.column = column;
      draw();
    });
    return head;
  });
  const draw = () => {
    const runs = [...data.runs];
    const { column, ascending } = order;
    if (column) {
      // What is not known comes last, whichever way.
      const known = (run) => (column.of(run) === null ? 1 : 0);
      const compare = (one, other) => (column.number ? one - other : String(one).localeCompare(String(other), undefined, { numeric: true }));
      runs.sort((one, other) => known(one) - known(other)
        || (ascending ? 1 : -1) * (known(one) ? 0 : compare(column.of(one), column.of(other))));
    }
    heads.forEach((head, at) => head.setAttribute('aria-sort', columns[at] !== column ? 'none' : ascending ? 'ascending' : 'descending'));
    body.replaceChildren(...runs.map((run) => html('tr', {}, ...columns.map(({ key, number, of }) =>
      key === 'run'
        ? html('th', { scope: 'row' }, html('span', { class: 'row-name' }, sample(run), html('span', {}, breakable(run.name))))
        : html('td', { class: number ? 'number' : 'text' }, shownValue(of(run)))))));
  };
  draw();
  host.append(boxed('All figures', html('table', { class: 'sortable' }, html('thead', {}, html('tr', {}, ...heads)), body)));
}

