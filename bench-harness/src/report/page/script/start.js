// Everything is put in its place, drawn, and drawn again when something changes.

function startThemes() {
  const buttons = document.querySelectorAll('button[data-theme]');
  buttons.forEach((button) => button.addEventListener('click', () => {
    buttons.forEach((other) => other.setAttribute('aria-pressed', String(other === button)));
    // Without the attribute the system's wish counts.
    if (button.dataset.theme === 'auto') delete document.documentElement.dataset.theme;
    else document.documentElement.dataset.theme = button.dataset.theme;
  }));
}

function about() {
  const distinct = (values) => [...new Set(values.filter((value) => value !== null))];
  const environment = (key) => {
    const found = row(data.environment, key);
    const values = found ? distinct(found.values) : [];
    return values.length === 1 ? String(values[0]) : undefined;
  };
  const days = distinct(data.runs.map((run) => run.started.slice(0, 10))).sort();
  const [host, cpu, cpus, kernel] = ['host', 'cpu_model', 'cpus', 'kernel'].map(environment);
  byId('about').textContent = [
    plural(data.runs.length, 'run'),
    days.length > 1 ? `${days[0]} to ${days[days.length - 1]}` : days[0],
    host || 'several hosts',
    cpu && cpus && `${cpu} × ${cpus}`,
    kernel && `Linux ${kernel}`,
    `ringpost-bench ${data.version}`,
  ].filter(Boolean).join(' · ');
}

function drawAllPlots() {
  drawPercentiles();
  drawDistribution();
  drawRate();
  drawBands();
}

about();
startThemes();
startLegend();
onChange(drawAllPlots);
onChange(drawCpu);
startSweep();
startDifference();
compared(byId('settings'), data.settings, 'settings');
compared(byId('environment'), data.environment, 'surroundings');
startFigures();
changed();

// Pictures are as wide as there is room, with letters of the same size.
let drawnWidth = byId('percentiles').clientWidth;
new ResizeObserver(() => {
  const width = byId('percentiles').clientWidth;
  if (width === drawnWidth) return;
  drawnWidth = width;
  drawAllPlots();
}).observe(byId('percentiles'));
