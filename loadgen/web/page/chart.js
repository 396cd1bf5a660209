// Charts of a run: lines over time, drawn as SVG so that they have the page's colours.
"use strict";

const room = { left: 58, right: 8, top: 8, bottom: 20 }; // px around the lines, for labels
const pixels = 2;       // px that a point needs; where there is less, several points are drawn as one
const labelRoom = 90;   // px that a label of the time needs

// clock is a time of the run.
const clock = s => {
  const two = n => String(Math.floor(n)).padStart(2, "0");
  return s < 3600 ? `${Math.floor(s / 60)}:${two(s % 60)}` : `${Math.floor(s / 3600)}:${two(s % 3600 / 60)}:${two(s % 60)}`;
};

// steps are the values from low to high at which lines of the grid are: 1, 2 or 5 times
// a power of ten, at most most of them.
const steps = (low, high, most) => {
  const least = (high - low) / most || 1;
  const power = 10 ** Math.floor(Math.log10(least));
  const step = [1, 2, 5, 10].map(n => n * power).find(n => n >= least * 0.999);
  const all = [];
  for (let v = Math.ceil(low / step) * step; v <= high * 1.0001; v += step) all.push(v);
  return all;
};

// decades are the powers of ten around low and high.
const decades = (low, high) => {
  const all = [];
  for (let e = Math.floor(Math.log10(low)); e <= Math.ceil(Math.log10(high)); e++) all.push(10 ** e);
  if (all.length === 1) all.push(10 * all[0]);
  return all;
};

const timeSteps = [1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400, 21600, 43200, 86400];

// thin makes neighbours one point each, until there are at most most. The greatest
// value of each column is kept, so that no peak vanishes.
const thin = (points, most) => {
  const n = Math.ceil(points.length / Math.max(1, most));
  if (n <= 1) return points;
  const all = [];
  for (let i = 0; i < points.length; i += n) {
    const part = points.slice(i, i + n);
    all.push(part[0].map((_, c) => part.reduce((top, p) => p[c] !== null && (top === null || p[c] > top) ? p[c] : top, null)));
  }
  return all;
};

// newChart makes a chart in parent. spec has an id, a title, a hint, format (a value as
// text), series (name and column each), and if the axis is logarithmic, log; top is the
// axis' end if that is fixed.
const newChart = (parent, spec) => {
  const figure = add(parent, "figure", undefined, "chart");
  figure.id = spec.id;
  add(figure, "h3", spec.title);
  if (spec.hint) add(figure, "p", spec.hint, "hint");
  const legend = add(figure, "ul");
  const values = spec.series.map((series, i) => {
    const item = add(legend, "li");
    const sample = svg(item, "svg", { viewBox: "0 0 26 10", "aria-hidden": "true" });
    svg(sample, "path", { d: "M0 5H26", class: `s${i}` });
    item.append(`${series.name} `);
    return add(item, "b", "–");
  });
  const moment = add(legend, "li", "");
  const plot = svg(figure, "svg", { class: "plot", role: "img", tabindex: "0", "aria-label": spec.title });
  let drawn = null;   // what is drawn: points, columns, and x of a time
  let cursor = null;  // the time that is pointed at; null is now

  const show = () => {
    plot.querySelector(".cursor")?.remove();
    if (!drawn || !drawn.points.length) return;
    const { points, columns, x } = drawn;
    const at = columns.at;
    const p = cursor === null ? points.at(-1) : points.reduce((a, b) => Math.abs(b[at] - cursor) < Math.abs(a[at] - cursor) ? b : a);
    spec.series.forEach((series, i) => {
      const v = p[columns[series.column]];
      values[i].textContent = v === null ? "–" : spec.format(v);
    });
    moment.textContent = cursor === null ? "" : `at ${clock(p[at])}`;
    if (cursor !== null) svg(plot, "line", { class: "cursor", x1: x(p[at]), x2: x(p[at]), y1: room.top, y2: plot.clientHeight - room.bottom });
    plot.setAttribute("aria-label", `${spec.title}, ${cursor === null ? "now" : moment.textContent}: ` +
      spec.series.map((series, i) => `${series.name} ${values[i].textContent}`).join(", "));
  };

  plot.addEventListener("pointermove", e => {
    if (!drawn) return;
    cursor = drawn.time(e.clientX - plot.getBoundingClientRect().left);
    show();
  });
  const leave = () => { cursor = null; show(); };
  plot.addEventListener("pointerleave", leave);
  plot.addEventListener("blur", leave);
  plot.addEventListener("keydown", e => {
    if (!drawn || !drawn.points.length) return;
    const times = drawn.points.map(p => p[drawn.columns.at]);
    const i = cursor === null ? times.length - 1 : times.reduce((best, t, k) => Math.abs(t - cursor) < Math.abs(times[best] - cursor) ? k : best, 0);
    const to = { ArrowLeft: i - 1, ArrowRight: i + 1, Home: 0, End: times.length - 1, Escape: null }[e.key];
    if (to === undefined) return;
    e.preventDefault();
    cursor = to === null ? null : times[Math.min(times.length - 1, Math.max(0, to))];
    show();
  });

  // draw draws all points of the run. columns has the place of each column in a point,
  // begins the phases.
  const draw = (all, columns, begins) => {
    const used = spec.series.map(series => columns[series.column]);
    const flat = all.flatMap(p => used.map(c => p[c])).filter(v => v !== null && (!spec.log || v > 0));
    figure.hidden = Boolean(spec.optional) && !flat.some(v => v > 0);
    const width = plot.clientWidth, height = plot.clientHeight;
    if (figure.hidden || !all.length || !width) return;
    const end = Math.max(1, all.at(-1)[columns.at]);
    const x = t => room.left + (width - room.left - room.right) * t / end;
    const most = flat.reduce((a, b) => Math.max(a, b), 0), least = flat.reduce((a, b) => Math.min(a, b), Infinity);
    let lines, low, high, place;
    if (spec.log) {
      lines = decades(Math.min(least, most || 1), most || 1);
      [low, high] = [lines[0], lines.at(-1)];
      place = v => Math.log(Math.max(v, low) / low) / Math.log(high / low);
    } else {
      high = spec.top ?? (most * 1.05 || 1);
      lines = steps(0, high, 4);
      place = v => Math.min(v, high) / high;
    }
    const y = v => height - room.bottom - (height - room.top - room.bottom) * place(v);
    plot.replaceChildren();
    for (const v of lines) {
      svg(plot, "line", { class: "grid", x1: room.left, x2: width - room.right, y1: y(v), y2: y(v) });
      svg(plot, "text", { x: room.left - 6, y: y(v) + 4, "text-anchor": "end" }).textContent = spec.format(v);
    }
    const apart = timeSteps.find(s => s * (width - room.left) / end >= labelRoom) ?? end;
    for (let t = 0; t <= end; t += apart) svg(plot, "text", { x: x(t), y: height - 5, "text-anchor": !t ? "start" : x(t) + labelRoom / 3 > width ? "end" : "middle" }).textContent = clock(t);
    for (const b of begins) svg(svg(plot, "line", { class: "phase", x1: x(b.began_seconds), x2: x(b.began_seconds), y1: room.top, y2: height - room.bottom }), "title", {}).textContent = b.name;
    const points = thin(all, (width - room.left) / pixels);
    const gap = 3 * (points.length > 1 ? points.at(-1)[columns.at] - points.at(-2)[columns.at] : 1); // s without a value, where a line ends
    for (let i = used.length - 1; i >= 0; i--) { // the first lies on top
      const c = used[i];
      let d = "", before = -Infinity;
      for (const p of points) {
        const t = p[columns.at];
        if (p[c] === null) continue;
        d += `${t - before > gap ? "M" : "L"}${x(t).toFixed(1)} ${y(p[c]).toFixed(1)}`;
        if (t - before > gap) d += "h0.01"; // so that a lone point is seen
        before = t;
      }
      svg(plot, "path", { class: `s${i}`, d });
    }
    drawn = { points, columns, x, time: px => (px - room.left) * end / (width - room.left - room.right) };
    show();
  };
  return { draw };
};
