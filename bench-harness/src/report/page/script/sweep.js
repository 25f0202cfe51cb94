// What varies between the runs, and what it does to a figure: bars for one key, a map for two.

const SWEPT = [
  { key: 'records_per_s', name: 'records/s', show: rate, better: 1 },
  { key: 'cpu_us_per_record', name: 'CPU per record', show: micros, better: -1 },
  ...[['p50', 'p50'], ['p99', 'p99'], ['p99_9', 'p99.9']].map(([key, name]) => ({
    key: () => `latency_us.${state.latency}.${key}`, name: `latency ${name}`, show: micros, better: -1,
  })),
];

const worded = (value) => (value === null ? 'none' : String(value));

// Values in the order of their size, or of their appearance.
function inOrder(values) {
  const distinct = [...new Set(values)];
  return distinct.every((value) => magnitude(value) !== undefined)
    ? distinct.sort((one, other) => magnitude(one) - magnitude(other))
    : distinct;
}

// The keys that differ. One whose value follows from another's is named with it.
function dimensions() {
  const found = [];
  const varying = data.settings
    .map(({ key, values }) => ({ key, values: values.map(worded), order: inOrder(values.map(worded)) }))
    .filter(({ order }) => order.length > 1)
    .sort((one, other) => other.order.length - one.order.length);
  for (const candidate of varying) {
    const leader = found.find(({ values }) => {
      const follows = new Map();
      return values.every((value, run) => {
        if (!follows.has(value)) follows.set(value, candidate.values[run]);
        return follows.get(value) === candidate.values[run];
      });
    });
    if (leader) leader.with.push(candidate.key);
    else found.push({ ...candidate, with: [] });
  }
  return found;
}

function startSweep() {
  const host = byId('sweep');
  const keys = dimensions();
  const cells = keys.reduce((product, { order }) => product * order.length, 1);
  if (data.runs.length < 2 || keys.length === 0) {
    host.append(notice(data.runs.length < 2 ? 'One run: nothing varies.' : 'All runs have the same settings.'));
    return;
  }
  if (data.runs.length < cells * 0.7) {
    host.append(notice(`${plural(keys.length, 'setting')} differ (${keys.map(({ key }) => key).join(', ')}), but not as in a sweep: most combinations are missing.`));
    return;
  }
  const choice = { figure: 0, down: 0, across: keys.length > 1 ? 1 : undefined, fixed: keys.map(() => 0) };
  const picture = html('div', {});
  const pick = (name, options, at, change) => {
    const select = html('select', {}, ...options.map((option, place) => html('option', { value: place, selected: place === at }, option)));
    select.dataset.pick = name;
    select.addEventListener('change', () => {
      change(Number(select.value));
      build();
      draw();
      // The new one in its place, so that arrow keys go on where they were.
      [...controls.querySelectorAll('select')].find((other) => other.dataset.pick === name)?.focus();
    });
    return html('label', {}, `${name} `, select);
  };
  const controls = html('div', { class: 'controls' });
  const build = () => {
    const picks = [pick('Figure', SWEPT.map(({ name }) => name), choice.figure, (to) => { choice.figure = to; })];
    if (keys.length > 2) {
      const names = keys.map(({ key }) => key);
      const swap = (side, other) => (to) => {
        if (choice[other] === to) choice[other] = choice[side];
        choice[side] = to;
      };
      picks.push(pick('Down', names, choice.down, swap('down', 'across')), pick('Across', names, choice.across, swap('across', 'down')));
      keys.forEach(({ key, order }, place) => {
        if (place !== choice.down && place !== choice.across) {
          picks.push(pick(key, order, choice.fixed[place], (to) => { choice.fixed[place] = to; }));
        }
      });
    }
    controls.replaceChildren(...picks);
  };
  const followers = keys.filter((key) => key.with.length > 0)
    .map((key) => `With ${key.key} change: ${key.with.join(', ')}.`);
  host.append(controls, picture, ...(followers.length ? [html('p', { class: 'quiet' }, followers.join(' '))] : []));

  // A cell's run; of several the one in the middle, a real one, not a mean.
  const cell = (swept, key, wanted) => {
    const runs = shownRuns()
      .filter((run) => wanted.every(([at, value]) => keys[at].values[run.place] === value))
      .map((run) => ({ run, value: figureOf(run, key) }))
      .filter(({ value }) => value !== null)
      .sort((one, other) => one.value - other.value);
    return runs.length ? { ...runs[Math.floor((runs.length - 1) / 2)], runs: runs.length } : undefined;
  };
  const draw = () => {
    const swept = SWEPT[choice.figure];
    const key = typeof swept.key === 'function' ? swept.key() : swept.key;
    if (keys.length === 1) {
      const rows = keys[0].order.map((value) => ({ value, cell: cell(swept, key, [[0, value]]) }));
      picture.replaceChildren(bars(rows.map(({ value, cell: found }) => ({
        name: `${keys[0].key} = ${value}`,
        value: found ? found.value : 0,
        text: found ? swept.show(found.value) : '–',
      })), swept.name));
      return;
    }
    const fixed = keys.map(({ order }, place) => [place, order[choice.fixed[place]]])
      .filter(([place]) => place !== choice.down && place !== choice.across);
    const [down, across] = [keys[choice.down], keys[choice.across]];
    const grid = down.order.map((one) => across.order.map((other) =>
      cell(swept, key, [[choice.down, one], [choice.across, other], ...fixed])));
    const values = grid.flat().filter(Boolean).map(({ value }) => value);
    if (values.length === 0) {
      picture.replaceChildren(notice(nothingOf('this figure')));
      return;
    }
    const [low, high] = [Math.min(...values), Math.max(...values)];
    // Equal ratios get equal steps of colour where there is more than a factor of four.
    const shade = (value) => {
      if (high === low) return 0.5;
      if (low > 0 && high / low > 4) return Math.log(value / low) / Math.log(high / low);
      return (value - low) / (high - low);
    };
    const best = swept.better > 0 ? high : low;
    picture.replaceChildren(html('div', { class: 'scroll', tabindex: '0', role: 'region', 'aria-label': `${swept.name} by ${down.key} and ${across.key}` },
      html('table', { class: 'heat' },
        html('caption', {}, `${swept.name}: the stronger the colour, the more; the frame marks the best`),
        html('thead', {}, html('tr', {}, html('th', { class: 'corner' }, `${down.key} ↓`, html('br'), `${across.key} →`), ...across.order.map((value) => html('th', { scope: 'col' }, value)))),
        html('tbody', {}, ...grid.map((line, at) => html('tr', {}, html('th', { scope: 'row' }, down.order[at]),
          ...line.map((found) => {
            if (!found) return html('td', { class: 'none' }, '–');
            const field = html('td', { class: found.value === best ? 'best' : '', title: `${found.run.name}${found.runs > 1 ? `, the middle one of ${found.runs}` : ''}` }, swept.show(found.value));
            field.style.setProperty('--shade', `${Math.round(shade(found.value) * 100)}%`);
            return field;
          })))))));
  };
  build();
  onChange(draw);
}

