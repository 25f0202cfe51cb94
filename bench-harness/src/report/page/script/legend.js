// The runs: each a button that takes it out of the pictures and brings it back.

// A run's line, as short as a word.
function sample(run) {
  return svg('svg', { class: 'sample', width: 30, height: 14, viewBox: '0 0 30 14', 'aria-hidden': 'true' },
    svg('path', { class: `line ${run.colour}`, d: 'M1,7H29', 'stroke-dasharray': run.dash || null }),
    marker(run, 15, 7));
}

function inShort(run) {
  const words = [];
  const perSecond = figureOf(run, 'records_per_s');
  const cpu = figureOf(run, 'cpu_us_per_record');
  if (perSecond !== null) words.push(rate(perSecond));
  if (cpu !== null) words.push(`${micros(cpu)} CPU/record`);
  return words.join(' · ');
}

function startLegend() {
  const buttons = data.runs.map((run) => {
    const button = html('button', { type: 'button', class: 'run-button', 'aria-pressed': 'true', 'data-run': run.place },
      sample(run),
      html('span', { class: 'run-words' },
        html('span', { class: 'run-name' }, breakable(run.name)),
        html('span', { class: 'quiet' }, inShort(run)),
        ...(run.good ? [] : [html('span', { class: 'bad' }, '✗ not good')]),
        ...run.remarks.map((remark) => html('span', { class: 'bad' }, remark))));
    button.addEventListener('click', () => { run.shown = !run.shown; changed(); });
    // Pointing at a run sets its lines off from the others.
    const point = (on) => () => {
      document.documentElement.classList.toggle('pointing', on);
      document.querySelectorAll(`g.run[data-run="${run.place}"]`).forEach((group) => group.classList.toggle('pointed', on));
    };
    button.addEventListener('pointerenter', point(true));
    button.addEventListener('pointerleave', point(false));
    return button;
  });
  byId('legend').replaceChildren(...buttons.map((button) => html('li', {}, button)));
  const all = (shown) => () => { data.runs.forEach((run) => { run.shown = shown; }); changed(); };
  byId('show-all').addEventListener('click', all(true));
  byId('show-none').addEventListener('click', all(false));
  onChange(() => buttons.forEach((button, place) => button.setAttribute('aria-pressed', String(data.runs[place].shown))));

  const meanings = {
    response: 'From the time a record was meant to be sent: waiting behind a slow one counts.',
    service: 'From the time a record was really sent: waiting before that does not count.',
  };
  const switches = document.querySelectorAll('[data-latency]');
  switches.forEach((button) => button.addEventListener('click', () => { state.latency = button.dataset.latency; changed(); }));
  onChange(() => {
    switches.forEach((button) => button.setAttribute('aria-pressed', String(button.dataset.latency === state.latency)));
    byId('latency-meaning').textContent = meanings[state.latency];
  });
}

