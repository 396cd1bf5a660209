// What the pages' scripts have in common. It inserts text as text, never as HTML.
"use strict";

// Numbers as text.
const count = n => Math.round(n).toLocaleString("en");
const few = n => n < 10 && n % 1 ? n.toFixed(1) : count(n);
const scaled = (n, step, units) => {
  let i = 0;
  for (; n >= step && i < units.length - 1; i++) n /= step;
  return `${few(n)} ${units[i]}`;
};
const bytes = n => scaled(n, 1024, ["B", "KiB", "MiB", "GiB", "TiB"]);
const seconds = s => s < 1 ? scaled(s * 1e6, 1000, ["µs", "ms"]) : s < 120 ? `${few(s)} s` : s < 7200 ? `${few(s / 60)} min` : `${few(s / 3600)} h`;
const share = (part, all) => all > 0 ? part / all : 0;
const percent = x => x > 0 && x < 0.01 ? "<1 %" : `${Math.round(100 * x)} %`;

// add makes an element with a text and appends it to another.
const add = (parent, name, text, className) => {
  const e = document.createElement(name);
  if (text !== undefined) e.textContent = text;
  if (className) e.className = className;
  parent.append(e);
  return e;
};
const svg = (parent, name, attributes) => {
  const e = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) e.setAttribute(key, value);
  parent.append(e);
  return e;
};
const byId = id => document.getElementById(id);
