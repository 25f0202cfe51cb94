// Numbers as people read them.

// Three figures, without an exponent or an idle zero behind the point.
function figures(value) {
  const size = Math.abs(value);
  if (size >= 100 || size === 0) return String(Math.round(value));
  return String(Number(value.toPrecision(3)));
}

function scaled(value, units) {
  const size = Math.abs(value);
  // 999.6 is shown as 1 of the next unit, not as 1000 of this one.
  const [factor, unit] = units.find(([at]) => size >= at * 0.9995) || units[units.length - 1];
  return figures(value / factor) + (unit && '\u2009' + unit);
}

const duration = (ns) => scaled(ns, [[1e9, 's'], [1e6, 'ms'], [1e3, 'µs'], [1, 'ns']]);
const amount = (value) => scaled(value, [[1e9, 'G'], [1e6, 'M'], [1e3, 'k'], [1, '']]);
const rate = (perSecond) => (perSecond === 0 ? '0' : amount(perSecond) + '/s');
const bytes = (value) => scaled(value, [[2 ** 30, 'GiB'], [2 ** 20, 'MiB'], [2 ** 10, 'KiB'], [1, 'B']]);
const seconds = (s) => figures(s) + '\u2009s';
const micros = (us) => duration(us * 1e3);
// A ratio to the percent.
const times = (ratio) => '×\u2009' + (ratio >= 9.995 ? figures(ratio) : ratio >= 0.0995 ? ratio.toFixed(2) : ratio.toPrecision(2));
const percent = (share) => figures(share * 100) + '\u2009%';

// 1/(1−p) as a percentile: as many nines as it takes.
function percentile(x) {
  if (x <= 1) return '0\u2009%';
  const decimals = Math.max(0, Math.ceil(Math.log10(x) - 1e-9) - 1);
  const shown = (100 - 100 / x).toFixed(Math.min(decimals, 9));
  return String(Number(shown)) + '\u2009%';
}

// Every digit, thousands set apart.
function exact(value) {
  const [whole, part] = String(value).split('.');
  if (whole.includes('e')) return String(value);
  const apart = whole.replace(/\B(?=(\d{3})+(?!\d))/g, '\u2009');
  return part === undefined ? apart : apart + '.' + part;
}

const plural = (count, noun) => `${count} ${noun}${count === 1 ? '' : 's'}`;

// 100B < 1KiB, 500us < 5ms, 90k < 1M; nothing when it is not a number.
function magnitude(text) {
  const units = {
    '': 1, B: 1, KiB: 1024, MiB: 1024 ** 2, GiB: 1024 ** 3,
    us: 1e-6, ms: 1e-3, s: 1, m: 60, k: 1e3, M: 1e6,
  };
  const parts = /^(\d+(?:\.\d+)?)\s*([A-Za-z]*)$/.exec(text);
  return parts && parts[2] in units ? Number(parts[1]) * units[parts[2]] : undefined;
}

