// Bars, one a run, from 0: lengths compare as the numbers do.

// rows: [{run, name, value, parts: [share of value…], text}]
function bars(rows, label) {
  const longest = Math.max(...rows.map(({ value }) => value ?? 0), Number.MIN_VALUE);
  return html('ul', { class: 'bars', 'aria-label': label }, ...rows.map(({ run, name, value, parts, text }) => {
    const picture = svg('svg', { width: '100%', height: 16, 'aria-hidden': 'true' });
    let from = 0;
    (parts || [1]).forEach((part, at) => {
      const width = ((value ?? 0) / longest) * part * 100;
      picture.append(svg('rect', { class: `bar ${at ? 'pale' : ''} ${run ? run.colour : 'plain'}`, x: `${from}%`, width: `${width}%`, height: 16 }));
      from += width;
    });
    return html('li', {},
      html('span', { class: 'bar-name' }, ...(run ? [sample(run)] : []), html('span', {}, breakable(name))),
      html('span', { class: 'bar-picture' }, picture),
      html('span', { class: 'number' }, text));
  }));
}

function drawCpu() {
  const host = byId('cpu');
  const runs = shownRuns();
  if (runs.every((run) => figureOf(run, 'cpu_us_per_record') === null)) {
    host.replaceChildren(notice(nothingOf('CPU per record: it takes records that were acked')));
    return;
  }
  host.replaceChildren(bars(runs.map((run) => {
    const value = figureOf(run, 'cpu_us_per_record');
    const [user, system] = [figureOf(run, 'cpu_user_s') || 0, figureOf(run, 'cpu_system_s') || 0];
    const share = user + system > 0 ? user / (user + system) : 1;
    return { run, name: run.name, value, parts: [share, 1 - share], text: value === null ? 'no record was acked' : micros(value) };
  }), 'CPU per record'));
}

