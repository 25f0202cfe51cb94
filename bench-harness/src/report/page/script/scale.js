// Axes: where a value lies, and which values get a mark.

const nice = (rough) => {
  const decade = 10 ** Math.floor(Math.log10(rough));
  const step = rough / decade;
  return decade * (step <= 1 ? 1 : step <= 2 ? 2 : step <= 5 ? 5 : 10);
};

function evenMarks(low, high, count) {
  const step = nice((high - low) / count);
  const marks = [];
  for (let n = Math.ceil(low / step - 1e-9); n * step <= high * (1 + 1e-9); n += 1) marks.push(n * step);
  return marks;
}

// From 0 (or `low`) to a little above the highest.
function linear(low, high, show, count = 5) {
  const top = high > low ? high : low + 1;
  return {
    low, high: top, show,
    place: (value) => (value - low) / (top - low),
    value: (place) => low + place * (top - low),
    marks: evenMarks(low, top, count).map((at) => ({ at, label: show(at) })),
    lines: [],
  };
}

// `low` and `high` above 0.
function logarithmic(low, high, show) {
  const span = Math.log(high / low);
  const inside = (value) => value >= low * 0.9999 && value <= high * 1.0001;
  const tens = [];
  for (let n = Math.floor(Math.log10(low)); n <= Math.ceil(Math.log10(high)); n += 1) tens.push(10 ** n);
  const times = (factors) => tens.flatMap((ten) => factors.map((factor) => ten * factor)).filter(inside);
  const decades = span / Math.LN10;
  let at = times(decades > 3 ? [1] : [1, 2, 5]);
  // Less than a factor of about 3: 1, 2 and 5 would leave it bare.
  if (at.length < 3) at = evenMarks(low, high, 4);
  return {
    low, high, show,
    place: (value) => Math.log(Math.max(value, low) / low) / span,
    value: (place) => low * Math.exp(place * span),
    marks: at.map((mark) => ({ at: mark, label: show(mark) })),
    lines: decades > 1 ? times([2, 3, 4, 5, 6, 7, 8, 9]) : [],
  };
}

// With room around what is shown.
function logarithmicAround(values, show) {
  const [low, high] = [Math.min(...values), Math.max(...values)];
  const room = Math.max((high / low) ** 0.05, 1.1);
  return logarithmic(low / room, high * room, show);
}

