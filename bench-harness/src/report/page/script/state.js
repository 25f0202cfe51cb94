// What the page shows at the moment. Whoever draws registers, and is called when it changes.

const data = JSON.parse(byId('data').textContent);
// Colours for eight; then they come again with other dashes. Markers go round in seven, so that
// neighbours differ in shape too.
const COLOURS = 8;
const DASHES = ['', '7 4', '2 3', '9 3 2 3'];
const MARKERS = 7;
data.runs.forEach((run, place) => {
  run.place = place;
  run.colour = `c${place % COLOURS}`;
  run.dash = DASHES[Math.floor(place / COLOURS) % DASHES.length];
  run.marker = place % MARKERS;
  run.shown = true;
});

const state = { latency: 'response' };
const drawers = [];

const shownRuns = () => data.runs.filter((run) => run.shown);
const latencyOf = (run) => run[state.latency];
const row = (rows, key) => rows.find((candidate) => candidate.key === key);
const figureOf = (run, key) => {
  const found = row(data.figures, key);
  return found ? found.values[run.place] : null;
};

function onChange(draw) {
  drawers.push(draw);
}

function changed() {
  drawers.forEach((draw) => draw());
}

