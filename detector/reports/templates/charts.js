// Draws each .chart from its JSON: lines, bars, a heat map of places, or a forest of intervals. Redrawn when its width changes.
const SVG = "http://www.w3.org/2000/svg";
function svg(name, attributes = {}, parent = null, text = null) {
  const node = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  if (text !== null) node.textContent = text;
  if (parent) parent.append(node);
  return node;
}
function html(name, attributes = {}, parent = null, text = null) {
  const node = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  if (text !== null) node.textContent = text;
  if (parent) parent.append(node);
  return node;
}
const HUES = [217, 28, 152, 284, 190, 335, 48, 95, 250, 8];
const color = number => number === null ? "var(--quiet)" : `hsl(${HUES[number] ?? number * 137.508 % 360} 70% var(--chart-l))`;
const short = (text, limit) => text.length > limit ? text.slice(0, limit - 1) + "…" : text;

function niceTicks(low, high, count, whole) {
  const raw = (high - low) / Math.max(1, count) || 1, power = 10 ** Math.floor(Math.log10(raw));
  let step = [1, 2, 2.5, 5, 10].map(f => f * power).find(s => s >= raw * 0.999);
  if (whole) step = Math.max(1, Math.round(step));
  const ticks = [];
  for (let tick = Math.ceil(low / step - 1e-9) * step; tick <= high + step * 1e-6; tick += step) ticks.push(Math.abs(tick) < step * 1e-9 ? 0 : tick);
  return ticks;
}
function shown(value) {
  if (Math.abs(value) >= 1000) return Math.round(value).toLocaleString("en");
  if (value !== 0 && Math.abs(value) < 0.001) return value.toExponential(1).replace("e", "e");
  return String(+value.toPrecision(4));
}
function extent(values, axis) {
  const known = values.filter(v => v !== null);
  let low = axis.min ?? Math.min(...known), high = axis.max ?? Math.max(...known);
  if (!isFinite(low) || !isFinite(high)) [low, high] = [0, 1];
  if (low === high) [low, high] = axis.min === undefined ? [low - 0.5, high + 0.5] : [low, low + 1];
  const room = (high - low) * (axis.room ?? 0.05);
  return [axis.min ?? low - (axis.tight ? 0 : room), axis.max ?? high + (axis.tight ? 0 : room)];
}

class Chart {
  constructor(node) {
    this.node = node;
    this.spec = JSON.parse(node.querySelector("script").textContent);
    this.hidden = new Set();
    this.width = 0;
    node.setAttribute("role", "img");
    this.addLegend();
    this.canvas = html("div", {}, node);
    this.tip = html("div", { class: "tip", hidden: "" }, node);
    node.addEventListener("pointermove", event => this.hover(event));
    node.addEventListener("pointerleave", () => { this.tip.hidden = true; });
  }
  addLegend() {
    const all = (this.spec.series || []).filter(s => s.name && !s.quiet);
    if (all.length < 2) return;
    const legend = html("div", { class: "legend" }, this.node);
    const chosen = all.length > 12 ? all.filter(s => s.keep) : all;
    chosen.forEach(series => {
      const button = html("button", { type: "button", "aria-pressed": "true" }, legend);
      const sample = svg("svg", { viewBox: "0 0 22 10", "aria-hidden": "true" }, button);
      if (this.spec.type === "bars") svg("rect", { x: 3, y: 0, width: 16, height: 10, style: `fill: ${color(series.color)}` }, sample);
      else svg("path", { d: "M0 5H22", style: this.stroke(series) }, sample);
      html("span", {}, button, series.name);
      button.addEventListener("click", () => {
        this.hidden.has(series.name) ? this.hidden.delete(series.name) : this.hidden.add(series.name);
        button.setAttribute("aria-pressed", String(!this.hidden.has(series.name)));
        this.draw();
      });
    });
    if (chosen.length < all.length) {
      const select = html("select", { "aria-label": "highlight" }, legend);
      html("option", { value: "" }, select, "highlight …");
      all.filter(s => !s.keep).forEach(s => html("option", { value: s.name }, select, short(s.name, 40)));
      select.addEventListener("change", () => { this.strong = select.value; this.draw(); });
    }
  }
  // Fills the tile, which is as tall as its neighbor.
  fit() {
    this.room = 0;
    this.draw();
    const tile = this.node.parentElement, below = parseFloat(getComputedStyle(tile).paddingBottom);
    return Math.floor(tile.getBoundingClientRect().bottom - below - this.node.getBoundingClientRect().bottom - 1);
  }
  height(least, most, share) { return Math.max(least, Math.min(most, this.width * share)) + (this.room || 0); }
  stroke(series) {
    const strong = this.strong && series.name === this.strong, many = this.spec.series.length > 12 && !series.keep;
    const paint = strong ? "var(--bad)" : color(many ? null : series.color);
    const dash = series.dash ? `stroke-dasharray: ${series.dash};` : "";
    return `stroke: ${paint}; fill: none; stroke-width: ${strong ? 3 : series.width || (many ? 0.7 : 1.8)}; stroke-linejoin: round; ${dash} opacity: ${strong || !many ? series.opacity ?? 1 : 0.45}`;
  }
  draw(width = Math.floor(this.node.clientWidth)) {
    if (!width) return;
    this.width = width;
    this.points = [];
    this.canvas.replaceChildren();
    this[this.spec.type](width);
  }
  frame(width, height, x, y, xs, ys) {
    const yTicks = y.names ? [] : niceTicks(...ys, Math.min(5, height / 45), y.whole);
    const longest = Math.max(3, ...yTicks.map(t => shown(t).length));
    const box = { left: 26 + 6.4 * longest, right: width - 12, top: 8, bottom: height - 38 };
    const root = svg("svg", { viewBox: `0 0 ${width} ${height}`, "aria-label": this.spec.label || "" }, this.canvas);
    const logX = x.log, at = logX ? Math.log : v => v;
    const px = v => box.left + (at(v) - at(xs[0])) / (at(xs[1]) - at(xs[0])) * (box.right - box.left);
    const py = v => box.bottom - (v - ys[0]) / (ys[1] - ys[0]) * (box.bottom - box.top);
    yTicks.forEach(t => {
      svg("path", { class: "grid", d: `M${box.left} ${py(t)}H${box.right}` }, root);
      svg("text", { x: box.left - 6, y: py(t) + 4, "text-anchor": "end" }, root, shown(t));
    });
    const xTicks = x.ticks ? x.ticks.filter(t => t >= xs[0] && t <= xs[1]) : niceTicks(...xs, Math.max(2, Math.min(8, width / 90)), x.whole);
    xTicks.forEach(t => {
      svg("path", { class: "axis", d: `M${px(t)} ${box.bottom}v4` }, root);
      svg("text", { x: px(t), y: box.bottom + 17, "text-anchor": "middle" }, root, x.names ? short(x.names[t], 14) : shown(t));
    });
    svg("path", { class: "axis", d: `M${box.left} ${box.bottom}H${box.right}` }, root);
    svg("text", { x: (box.left + box.right) / 2, y: height - 4, "text-anchor": "middle" }, root, x.label);
    svg("text", { transform: `translate(12 ${(box.top + box.bottom) / 2}) rotate(-90)`, "text-anchor": "middle" }, root, y.label);
    return { root, box, px, py };
  }
  lines(width) {
    const { x, y, series, marks = [], rules = [] } = this.spec, height = this.height(220, 300, 0.55);
    const visible = series.filter(s => !this.hidden.has(s.name));
    const xs = extent(series.flatMap(s => s.x).concat(marks.map(m => m.x)), { tight: true, ...x });
    const ys = extent(series.flatMap(s => [...s.y, ...(s.low || []), ...(s.high || [])]), y);
    const { root, box, px, py } = this.frame(width, height, x, y, xs, ys);
    rules.forEach(rule => {
      svg("path", { d: `M${px(rule.x)} ${box.top}V${box.bottom}`, style: "stroke: var(--quiet); stroke-dasharray: 4 3" }, root);
      const late = px(rule.x) > (box.left + box.right) / 2;
      svg("text", { x: px(rule.x) + (late ? -5 : 5), y: box.top + 10, "text-anchor": late ? "end" : "start", class: "strong" }, root, rule.text);
    });
    [...visible].sort((a, b) => (a.name === this.strong) - (b.name === this.strong)).forEach(s => {
      let path = "", pen = "M";
      s.x.forEach((v, i) => {
        if (s.y[i] === null) { pen = "M"; return; }
        path += `${pen}${px(v).toFixed(1)} ${py(s.y[i]).toFixed(1)}`; pen = "L";
        this.points.push({ x: px(v), y: py(s.y[i]), text: `${s.name ? s.name + "\n" : ""}${x.label} ${x.names ? x.names[v] : shown(v)}: ${shown(s.y[i])}` });
        if (s.low) svg("path", { d: `M${px(v)} ${py(s.low[i])}V${py(s.high[i])}m-4 0h8M${px(v) - 4} ${py(s.low[i])}h8`, style: `stroke: ${color(s.color)}; stroke-width: 1.5; fill: none` }, root);
        if (s.dots) svg("circle", { cx: px(v), cy: py(s.y[i]), r: 2.6, style: `fill: ${color(s.color)}` }, root);
      });
      svg("path", { d: path, style: this.stroke(s) }, root);
    });
    marks.filter(m => !this.hidden.has(m.of)).forEach(mark => {
      svg("circle", { cx: px(mark.x), cy: py(mark.y), r: mark.text ? 5 : 3.6, style: `fill: ${color(mark.color ?? null)}; stroke: var(--card); stroke-width: 1.5` }, root);
      if (!mark.text) return;
      const late = px(mark.x) > (box.left + box.right) / 2, low = py(mark.y) < box.top + 22;
      svg("text", { x: px(mark.x) + (late ? -8 : 8), y: py(mark.y) + (low ? 16 : -8), "text-anchor": late ? "end" : "start", class: "strong" }, root, mark.text);
    });
  }
  bars(width) {
    const { x, y, series } = this.spec, count = x.names.length, height = this.height(220, 280, 0.5);
    const visible = series.filter(s => !this.hidden.has(s.name));
    const ys = extent(series.flatMap(s => s.y), { min: 0, ...y });
    const slanted = x.slant && (width - 60) / count < 64, slant = slanted ? 42 : 0;
    const every = Math.ceil(count * (slanted ? 16 : 38) / (width - 60));
    const { root, box, py } = this.frame(width, height + slant, { ...x, ticks: [], label: "" }, y, [0, count], ys);
    if (slant) { root.setAttribute("viewBox", `0 0 ${width} ${height + slant + 14}`); }
    const step = (box.right - box.left) / count, thick = step * 0.8 / Math.max(1, visible.length);
    x.names.forEach((name, i) => {
      const middle = box.left + (i + 0.5) * step;
      if (i % every === 0) {
        const place = slant ? { transform: `translate(${middle + 4} ${box.bottom + 12}) rotate(-38)`, "text-anchor": "end" } : { x: middle, y: box.bottom + 17, "text-anchor": "middle" };
        svg("text", place, root, short(String(name), 14));
      }
      visible.forEach((s, j) => {
        const top = py(s.y[i]);
        svg("rect", { x: middle - step * 0.4 + j * thick, y: top, width: Math.max(1, thick - 0.5), height: Math.max(0, box.bottom - top), rx: 1.5, style: `fill: ${color(s.color)}; opacity: .85` }, root);
        this.points.push({ x: middle - step * 0.4 + (j + 0.5) * thick, y: top, text: `${s.name ? s.name + "\n" : ""}${name}: ${(s.text || s.y.map(shown))[i]}` });
      });
    });
    svg("text", { x: (box.left + box.right) / 2, y: height + (slant ? slant + 8 : -4), "text-anchor": "middle" }, root, x.label);
  }
  heat(width) {
    const { maps, label } = this.spec, gap = 16, side = Math.min((width - gap * (maps.length - 1)) / maps.length, 250 + (this.room || 0));
    const root = svg("svg", { viewBox: `0 0 ${width} ${side + 40}`, "aria-label": label }, this.canvas);
    maps.forEach(({ name, cells }, number) => {
      const cell = side / cells.length, most = Math.max(1, ...cells.flat()), left = (width - maps.length * (side + gap) + gap) / 2 + number * (side + gap);
      cells.forEach((row, i) => row.forEach((n, j) => {
        svg("rect", { x: left + j * cell, y: 20 + i * cell, width: cell + 0.3, height: cell + 0.3, style: `fill: rgb(var(--heat)); fill-opacity: ${(n / most).toFixed(3)}` }, root);
        this.points.push({ x: left + (j + 0.5) * cell, y: 20 + (i + 0.5) * cell, text: `${name}: ${n} box centers` });
      }));
      svg("rect", { x: left, y: 20, width: side, height: side, style: "fill: none; stroke: var(--line)" }, root);
      svg("text", { x: left + side / 2, y: 13, "text-anchor": "middle" }, root, name);
    });
    svg("text", { x: width / 2, y: side + 36, "text-anchor": "middle" }, root, label);
  }
  forest(width) {
    const { rows, label } = this.spec, names = Math.min(width * 0.38, 12 + 6.6 * Math.max(4, ...rows.map(r => Math.min(30, r.name.length))));
    const line = 34, height = rows.length * line + 52, left = names + 8, right = width - 20;
    const [low, high] = extent([0, ...rows.flatMap(r => [r.low, r.high])], {});
    const root = svg("svg", { viewBox: `0 0 ${width} ${height}`, "aria-label": label }, this.canvas);
    const px = v => left + (v - low) / (high - low) * (right - left), bottom = height - 40;
    niceTicks(low, high, Math.max(2, (right - left) / 80)).forEach(t => {
      svg("path", { class: "grid", d: `M${px(t)} 4V${bottom}` }, root);
      svg("text", { x: px(t), y: bottom + 16, "text-anchor": "middle" }, root, shown(t));
    });
    svg("path", { d: `M${px(0)} 4V${bottom}`, style: "stroke: var(--text); stroke-width: 1.2" }, root);
    rows.forEach((row, i) => {
      const y = 4 + (i + 0.62) * line, paint = `var(--${row.tone || "quiet"})`;
      svg("text", { x: names, y: y + 4, "text-anchor": "end", class: "strong" }, root, short(row.name, Math.floor((names - 12) / 6.2)));
      svg("path", { d: `M${px(row.low)} ${y}H${px(row.high)}`, style: `stroke: ${paint}; stroke-width: 6; stroke-linecap: round; opacity: .4` }, root);
      svg("circle", { cx: px(row.value), cy: y, r: 5, style: `fill: ${paint}` }, root);
      svg("text", { x: px(row.value), y: y - 9, "text-anchor": "middle", class: "strong" }, root, row.text);
      this.points.push({ x: px(row.value), y, text: `${row.name}\n${row.text} (${shown(row.low)} to ${shown(row.high)})` });
    });
    svg("text", { x: (left + right) / 2, y: height - 6, "text-anchor": "middle" }, root, label);
  }
  hover(event) {
    const drawing = this.canvas.firstElementChild;
    if (!drawing || !this.points.length) return;
    const area = drawing.getBoundingClientRect(), x = event.clientX - area.left, y = event.clientY - area.top;
    let best = null, least = 900;
    for (const point of this.points) {
      const distance = (point.x - x) ** 2 + (point.y - y) ** 2;
      if (distance < least) [best, least] = [point, distance];
    }
    this.tip.hidden = best === null;
    if (best === null) return;
    this.tip.textContent = best.text;
    const offset = area.top - this.node.getBoundingClientRect().top;
    this.tip.style.left = `${Math.max(0, Math.min(best.x + 10, this.width - this.tip.offsetWidth))}px`;
    this.tip.style.top = `${best.y + offset - this.tip.offsetHeight - 8}px`;
  }
}
const charts = [...document.querySelectorAll(".chart")].map(node => new Chart(node));
function drawCharts() {
  charts.forEach(chart => { chart.room = 0; chart.draw(); });
  const rooms = charts.map(chart => chart.fit());
  charts.forEach((chart, i) => { if (rooms[i] > 0 && rooms[i] < 400) { chart.room = rooms[i]; chart.draw(); } });
}
let drawnAt = 0;
new ResizeObserver(() => {
  if (drawnAt !== document.body.clientWidth) drawCharts();
  drawnAt = document.body.clientWidth;
}).observe(document.body);
// A sheet of paper has two columns of this width, whatever the window has.
addEventListener("beforeprint", () => charts.forEach(chart => { chart.room = 0; chart.draw(chart.node.closest(".full") ? 680 : 320); }));
addEventListener("afterprint", drawCharts);
