// Elements. Text is only ever set as text: nothing of a result is read as markup.

const SVG = 'http://www.w3.org/2000/svg';

function fill(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value === undefined || value === null || value === false) continue;
    element.setAttribute(name, value === true ? '' : value);
  }
  element.append(...children.flat().filter((child) => child !== null && child !== undefined));
  return element;
}

const html = (tag, attributes = {}, ...children) =>
  fill(document.createElement(tag), attributes, children);
const svg = (tag, attributes = {}, ...children) =>
  fill(document.createElementNS(SVG, tag), attributes, children);
// A name that may be broken behind its signs before it is broken inside a word.
const breakable = (text) => text.split(/(?<=[=,;/_-])/).flatMap((part) => [part, html('wbr')]);
const byId = (id) => document.getElementById(id);
const notice = (text) => html('p', { class: 'notice' }, text);

