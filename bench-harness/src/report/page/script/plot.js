// A pair of axes with lines, and a cursor on it that mouse, touch and arrow keys move.
//
// The cursor is a slider to assistive technology: its value is what the lines say where it stands.

const GAP = { top: 10, right: 14, bottom: 42, left: 62 };

// A small shape that tells runs apart without colour.
function marker(run, x, y, size = 4) {
  const shapes = [
    `M${-size},0a${size},${size} 0 1,0 ${2 * size},0a${size},${size} 0 1,0 ${-2 * size},0`,
    `M${-size},${-size}h${2 * size}v${2 * size}h${-2 * size}z`,
    `M0,${-1.3 * size}L${1.2 * size},${size}H${-1.2 * size}z`,
    `M0,${-1.4 * size}L${1.4 * size},0L0,${1.4 * size}L${-1.4 * size},0z`,
    `M0,${1.3 * size}L${1.2 * size},${-size}H${-1.2 * size}z`,
    `M${-size},${-size}L${size},${size}M${size},${-size}L${-size},${size}`,
    `M0,${-1.3 * size}V${1.3 * size}M${-1.3 * size},0H${1.3 * size}`,
  ];
  return svg('path', {
    class: `marker ${run.colour}`,
    d: shapes[run.marker],
    transform: `translate(${x.toFixed(1)},${y.toFixed(1)})`,
  });
}

const path = (points) => points.map(([x, y], at) => `${at ? 'L' : 'M'}${x.toFixed(1)},${y.toFixed(1)}`).join('');

// Labels that would run into the one before them are left out.
function labelled(marks, place, width, room) {
  let free = -Infinity;
  return marks.filter(({ at, label }) => {
    const half = width ? (label.length * width) / 2 : room / 2;
    if (place(at) - half < free) return false;
    free = place(at) + half + (width ? 8 : 0);
    return true;
  });
}

// plot.lines: [{run, points: [[x, y]…], marks: [[x, y]…], area: y of its foot or nothing}]
// plot.bands: [{run, points: [[x, low, high]…], pale}], under the lines
// plot.stops: where the cursor can stand, ascending
// plot.read: x → {title, rows: [{run, text, y}]}
function drawPlot(host, plot) {
  const width = Math.max(host.clientWidth, 220);
  const height = plot.height || Math.round(Math.min(420, Math.max(260, width * 0.5)));
  const inner = { width: width - GAP.left - GAP.right, height: height - GAP.top - GAP.bottom };
  const x = (value) => GAP.left + plot.x.place(value) * inner.width;
  const y = (value) => GAP.top + (1 - plot.y.place(value)) * inner.height;
  const [left, right, top, bottom] = [GAP.left, width - GAP.right, GAP.top, height - GAP.bottom];
  const line = (kind, x1, y1, x2, y2) => svg('line', { class: kind, x1, y1, x2, y2 });
  const picture = svg('svg', { width, height, viewBox: `0 0 ${width} ${height}`, 'aria-hidden': 'true' });

  for (const at of plot.y.lines) picture.append(line('grid faint', left, y(at), right, y(at)));
  for (const at of plot.x.lines) picture.append(line('grid faint', x(at), top, x(at), bottom));
  for (const { at } of plot.y.marks) picture.append(line('grid', left, y(at), right, y(at)));
  for (const { at } of plot.x.marks) picture.append(line('grid', x(at), top, x(at), bottom));
  picture.append(line('axis', left, bottom, right, bottom));
  for (const { at, label } of labelled([...plot.y.marks], (at) => -y(at), 0, 15)) {
    picture.append(svg('text', { class: 'tick', x: left - 8, y: y(at) + 4, 'text-anchor': 'end' }, label));
  }
  for (const { at, label } of labelled(plot.x.marks, x, 6.6)) {
    const end = Math.min(x(at), width - label.length * 3.3);
    picture.append(svg('text', { class: 'tick', x: end, y: bottom + 17, 'text-anchor': 'middle' }, label));
  }
  picture.append(svg('text', { class: 'tick title', x: (left + right) / 2, y: height - 6, 'text-anchor': 'middle' }, plot.x.title));

  for (const { run, points, pale } of plot.bands || []) {
    const upper = points.map(([at, , high]) => [x(at), y(high)]);
    const lower = points.map(([at, low]) => [x(at), y(low)]).reverse();
    picture.append(svg('path', { class: `band ${pale ? 'pale' : ''} ${run.colour}`, d: path([...upper, ...lower]) + 'z' }));
  }
  for (const { run, points, marks, area } of plot.lines) {
    const group = svg('g', { class: 'run', 'data-run': run.place });
    const placed = points.map(([at, value]) => [x(at), y(value)]);
    if (area !== undefined && placed.length > 0) {
      const foot = y(area);
      const shape = [[placed[0][0], foot], ...placed, [placed[placed.length - 1][0], foot]];
      group.append(svg('path', { class: `band area ${run.colour}`, d: path(shape) + 'z' }));
    }
    if (placed.length > 1) {
      group.append(svg('path', { class: `line ${run.colour}`, d: path(placed), 'stroke-dasharray': run.dash || null }));
    }
    for (const [at, value] of marks || []) group.append(marker(run, x(at), y(value)));
    picture.append(group);
  }

  const cursor = svg('g', { class: 'cursor' });
  picture.append(cursor);
  const readout = html('div', { class: 'readout', hidden: true });
  const stops = plot.stops;
  // The same element stays, so that it keeps the keyboard's focus over a redraw.
  let slider = host.querySelector('.plot');
  if (!slider) {
    slider = html('div', { class: 'plot', role: 'slider', tabindex: '0' });
    host.replaceChildren(slider);
  }
  slider.replaceChildren(picture, readout);
  fill(slider, { 'aria-label': plot.label, 'aria-valuemin': 0, 'aria-valuemax': Math.max(stops.length - 1, 0) }, []);

  const stand = (place) => {
    const at = stops[place];
    if (at === undefined) return;
    host.cursor = place;
    const { title, rows } = plot.read(at);
    cursor.replaceChildren(
      line('cursor', x(at), top, x(at), bottom),
      ...rows.filter((told) => told.y !== undefined).map((told) => marker(told.run, x(at), y(told.y), 5)),
    );
    readout.replaceChildren(
      html('p', {}, title),
      html('table', {}, ...rows.map(({ run, text }) =>
        html('tr', {}, html('td', {}, sample(run)), html('td', { class: 'name' }, breakable(run.name)), html('td', { class: 'number' }, text)))),
    );
    readout.hidden = false;
    const beside = x(at) + 14 + readout.offsetWidth <= width ? x(at) + 14 : x(at) - 14 - readout.offsetWidth;
    readout.style.left = `${Math.max(0, Math.min(beside, width - readout.offsetWidth))}px`;
    slider.setAttribute('aria-valuenow', place);
    slider.setAttribute('aria-valuetext', `${title}: ${rows.map(({ run, text }) => `${run.name} ${text}`).join(', ')}`);
  };
  const leave = () => {
    cursor.replaceChildren();
    readout.hidden = true;
  };
  slider.onpointermove = slider.onpointerdown = (event) => {
    const at = plot.x.value((event.clientX - slider.getBoundingClientRect().left - left) / inner.width);
    const distance = (stop) => Math.abs(plot.x.place(stop) - plot.x.place(at));
    let nearest = 0;
    stops.forEach((stop, place) => { if (distance(stop) < distance(stops[nearest])) nearest = place; });
    stand(nearest);
  };
  slider.onpointerleave = () => { if (document.activeElement !== slider) leave(); };
  slider.onfocus = () => { if (slider.matches(':focus-visible')) stand(Math.min(host.cursor || 0, stops.length - 1)); };
  slider.onblur = leave;
  slider.onkeydown = (event) => {
    const last = stops.length - 1;
    const now = host.cursor || 0;
    const to = {
      ArrowRight: now + 1, ArrowUp: now + 1, ArrowLeft: now - 1, ArrowDown: now - 1,
      PageUp: now + 10, PageDown: now - 10, Home: 0, End: last,
    }[event.key];
    if (event.key === 'Escape') leave();
    if (to === undefined) return;
    event.preventDefault();
    stand(Math.max(0, Math.min(last, to)));
  };
  slider.setAttribute('aria-valuenow', 0);
  slider.setAttribute('aria-valuetext', 'arrow keys move the cursor');
  if (document.activeElement === slider && slider.matches(':focus-visible')) stand(Math.min(host.cursor || 0, stops.length - 1));
}

// The value of [[x, y]…] at the last x that is not above `at`.
function before(points, at) {
  let found;
  for (const [x, y] of points) {
    if (x > at * 1.000001) break;
    found = y;
  }
  return found;
}

// Rows of a readout in the order the eye meets the lines, top first.
const sortedRows = (rows) => rows.sort((one, other) => (other.y ?? -Infinity) - (one.y ?? -Infinity));

