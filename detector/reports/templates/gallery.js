// The images of a validation: boxes drawn over thumbnails, filtered and sorted at any score threshold; enlarged by a click.
const OUTCOMES = ["right", "wrong class", "inexact box", "wrong class and inexact box", "duplicate", "nothing there"];

const PAGE = 30;

// The keypoints of an object, null for one that is not shown.
const pointsOf = joints => joints.split(" ").map(point => point === "-" ? null : point.split(","));
function drawBoxes(overlay, boxes, scale, labels) {
  const size = 13 / scale, placed = [], layers = new Map();
  const add = (layer, kind, d) => layers.set(`${layer} ${kind}`, (layers.get(`${layer} ${kind}`) || "") + d);
  for (const { box: [x, y, width, height], kind, outline, joints, bones } of boxes) {
    add(outline || joints ? "thin" : "edge", kind, `M${x} ${y}h${width}v${height}h${-width}z`);
    if (outline) add("edge", kind, outline), add("tint", kind, outline);
    if (!joints) continue;
    const points = pointsOf(joints);
    (bones || []).forEach(([a, b]) => points[a] && points[b] && add("bone", kind, `M${points[a]}L${points[b]}`));
    points.forEach(point => point && add("dot", kind, `M${point}h0`));
  }
  overlay.replaceChildren();
  const draw = (layer, halo, width) => [...layers].filter(([name]) => name.startsWith(`${layer} `)).forEach(([name, d]) => {
    const kind = name.slice(layer.length + 1);
    if (halo) svg("path", { d, class: `box ${kind} ${layer} halo`, "stroke-width": halo }, overlay);
    svg("path", { d, class: `box ${kind} ${layer}`, "stroke-width": width }, overlay);
  });
  draw("tint", 0, 0);
  draw("thin", 0, 1);
  draw("edge", labels ? 5 : 3.5, labels ? 2.5 : 1.8);
  draw("bone", labels ? 5 : 3, labels ? 2.5 : 1.5);
  draw("dot", labels ? 10 : 5.5, labels ? 7 : 3.5);
  if (!labels) return;
  for (const { box: [x, y, , height], kind, text } of boxes) {
    const wide = text.length * size * 0.55, free = at => !placed.some(p => Math.abs(p.y - at) < size && p.x < x + wide && x < p.x + p.wide);
    const spots = [y - size * 0.3, y + size, y + height - size * 0.3, y + height + size].filter(at => at > size);
    const at = spots.find(free) ?? spots[0] ?? y + size;
    placed.push({ x, y: at, wide });
    svg("text", { x: x + size * 0.15, y: at, class: kind, "font-size": size }, overlay, text);
  }
}
function pane(image, caption) {
  const node = html("span", { class: "pane" });
  if (image.thumb) html("img", { src: image.thumb, alt: "", loading: "lazy", decoding: "async" }, node);
  svg("svg", { viewBox: `0 0 ${image.width} ${image.height}`, "aria-hidden": "true" }, node);
  if (caption) html("b", {}, node, caption);
  return node;
}
const scaleOf = (node, image) => Math.min(node.clientWidth / image.width, node.clientHeight / image.height) || 1;
const boxOf = (columns, i) => columns.box.slice(4 * i, 4 * i + 4);
const shapeOf = ({ bones }, columns, i) => ({ box: boxOf(columns, i), outline: columns.outline?.[i], joints: columns.joints?.[i], bones: bones[columns.class[i]] });
function grouped(numbers, count) {
  const groups = Array.from({ length: count }, () => []);
  numbers.forEach((number, i) => groups[number].push(i));
  return groups;
}

const MARKS = { right: "✓", wrong: "✗", missed: "○" };
function counts(parent, outcome) {
  const node = html("span", { class: "counts" }, parent);
  [["right", outcome.right], ["wrong", outcome.wrong], ["missed", outcome.unmatched]].forEach(([kind, list]) => {
    if (list.length) html("span", { class: `is-${kind}` }, node, `${MARKS[kind]} ${list.length}`);
  });
}

class Gallery {
  constructor(node) {
    this.node = node;
    this.data = JSON.parse(node.querySelector("script").textContent);
    const { images, objects, models } = this.data;
    this.pairs = models.length > 1;
    this.thresholds = models.map(m => m.threshold);
    this.objectsOf = grouped(objects.image, images.length);
    this.detectionsOf = models.map(m => grouped(m.image, images.length));
    this.shots = images.map((image, i) => this.shot(image, i));
    this.grid = html("div", { class: this.pairs ? "gallery pairs" : "gallery" });
    this.observer = new IntersectionObserver(entries => entries.forEach(entry => {
      entry.target.near = entry.isIntersecting;
      if (entry.isIntersecting) this.fill(entry.target);
    }), { rootMargin: "600px" });
    this.shots.forEach(shot => this.observer.observe(shot));
    this.addControls();
    node.append(this.grid);
    this.more = html("button", { type: "button", class: "button more" }, node);
    this.limit = PAGE;
    this.more.addEventListener("click", () => { this.limit = Infinity; this.arrange(); });
    this.addDialog();
    this.measure();
    this.arrange();
    addEventListener("beforeprint", () => [...this.grid.children].slice(0, 12).forEach(shot => this.fill(shot)));
  }
  outcome(model, image) {
    const { objects, models } = this.data, columns = models[model], threshold = this.thresholds[model] - 1e-9;
    const right = [], wrong = [], held = new Set(), near = new Set();
    for (const i of this.detectionsOf[model][image]) {
      if (columns.score[i] < threshold) continue;
      (columns.kind[i] ? wrong : right).push(i);
      if (columns.kind[i] === 0) held.add(columns.object[i]);
      if (columns.kind[i] === 1 || columns.kind[i] === 2) near.add(columns.object[i]);
    }
    const unmatched = this.objectsOf[image].filter(i => !objects.ignored[i] && !held.has(i));
    const total = 2 * right.length + wrong.length + unmatched.length;
    // Of a pair, F1 is the mean over the IoUs 0.50, 0.55 ... 0.95, so that better boxes count.
    const exact = i => this.pairs ? Math.floor((columns.overlap[i] - 0.5) * 20 + 1e-6) + 1 : 10;
    const sum = right.reduce((sum, i) => sum + Math.min(10, exact(i)), 0) / 10;
    return { right, wrong, unmatched, missed: unmatched.filter(i => !near.has(i)), f1: total ? 2 * sum / total : 1 };
  }
  measure() {
    this.outcomes = this.data.images.map((_, image) => this.data.models.map((_, model) => this.outcome(model, image)));
    this.tally.textContent = this.data.models.map((model, m) => {
      const sum = part => this.outcomes.reduce((total, of) => total + of[m][part].length, 0);
      const [right, wrong, lost] = [sum("right"), sum("wrong"), sum("unmatched")];
      const share = (part, whole) => whole ? (part / whole).toFixed(3) : "-";
      return `${this.pairs ? model.name + ": " : ""}${right} right, ${wrong} wrong, ${lost} not found · precision ${share(right, right + wrong)}, recall ${share(right, right + lost)}, F1 ${share(2 * right, 2 * right + wrong + lost)}`;
    }).join("\n");
    this.shots.forEach(shot => { shot.stale = true; if (shot.near) this.fill(shot); });
  }
  boxes(model, image) {
    const { objects, models, classes } = this.data, columns = models[model], { right, wrong, unmatched } = this.outcomes[image][model];
    const label = i => `${classes[columns.class[i]]} ${columns.score[i].toFixed(2)}`;
    return [
      ...this.objectsOf[image].filter(i => objects.ignored[i]).map(i => ({ ...shapeOf(this.data, objects, i), kind: "ignored", text: "not counted" })),
      ...unmatched.map(i => ({ ...shapeOf(this.data, objects, i), kind: "missed", text: classes[objects.class[i]] })),
      ...right.map(i => ({ ...shapeOf(this.data, columns, i), kind: "right", text: label(i) })),
      ...wrong.map(i => ({ ...shapeOf(this.data, columns, i), kind: "wrong", text: label(i), why: this.why(columns, i) })),
    ];
  }
  why(columns, i) {
    const object = columns.object[i], name = object < 0 ? "" : this.data.classes[this.data.objects.class[object]];
    const about = object < 0 ? "" : columns.kind[i] === 1 || columns.kind[i] === 3 ? `: labeled ${name}, IoU ${columns.overlap[i].toFixed(2)}` : `: IoU ${columns.overlap[i].toFixed(2)}`;
    return OUTCOMES[columns.kind[i]] + about;
  }
  shot(image, number) {
    const node = html("button", { type: "button", class: "shot" });
    node.number = number;
    node.stale = true;
    node.addEventListener("click", () => this.open(number));
    node.append(html("span", { class: "panes" }), html("span", { class: "caption" }));
    const panes = node.firstChild;
    this.data.models.forEach(m => {
      const empty = html("span", { class: "pane" }, panes);
      if (this.pairs) html("b", {}, empty, m.name);
    });
    html("span", {}, node.lastChild, image.name);
    html("div", {}, node.lastChild, "\u00a0");
    node.lastChild.prepend(node.lastChild.lastChild);
    return node;
  }
  fill(node) {
    if (!node.stale) return;
    const image = this.data.images[node.number], outcome = this.outcomes[node.number];
    if (!node.filled) {
      node.firstChild.replaceChildren(...this.data.models.map(m => pane(image, this.pairs ? m.name : "")));
      node.filled = true;
    }
    [...node.firstChild.children].forEach((one, m) => drawBoxes(one.querySelector("svg"), this.boxes(m, node.number), 1, false));
    const line = html("div", {});
    line.append(`F1 ${outcome.map(o => o.f1.toFixed(2)).join(" → ")}`);
    if (!this.pairs) counts(line, outcome[0]);
    node.lastChild.firstChild.replaceWith(line);
    node.stale = false;
  }
  addControls() {
    const bar = html("div", { class: "controls" }, this.node), { classes, floor } = this.data;
    const choice = (name, options) => {
      const select = html("select", {}, html("label", {}, bar, name));
      options.forEach(([value, text]) => html("option", { value }, select, text));
      select.addEventListener("change", () => this.arrange());
      return select;
    };
    this.range = this.slider(bar);
    const orders = [["worst", "lowest F1"], ["best", "highest F1"], ["sure", "most confident error"], ["unsure", "least confident right"], ["wrong", "most wrong"], ["lost", "most not found"], ["name", "file name"]];
    if (this.pairs) orders.unshift(["loses", `worse with ${this.data.models.at(-1).name}`], ["gains", `better with ${this.data.models.at(-1).name}`]);
    this.order = choice("sort", orders);
    this.kind = choice("show", [["", "all images"], ...OUTCOMES.slice(1).map((text, i) => [i + 1, text]), ["missed", "missed object"], ["clean", "no error"]]);
    this.one = choice("class", [["", "any"], ...classes.map((name, i) => [i, short(name, 30)])]);
    this.search = html("input", { type: "search", placeholder: "file name", "aria-label": "file name" }, bar);
    this.search.addEventListener("input", () => this.arrange());
    this.count = html("span", { class: "quiet", role: "status" }, bar);
    const key = html("div", { class: "controls" }, this.node);
    [["right", "right"], ["wrong", "wrong"], ["missed", "object not found"]].forEach(([kind, text]) => {
      const item = html("span", { class: "key" }, key), sample = svg("svg", { viewBox: "0 0 29 13", "aria-hidden": "true" }, item);
      svg("rect", { x: 2, y: 2, width: 25, height: 9, class: `box ${kind}`, "stroke-width": 2.2 }, sample);
      html("span", { class: `is-${kind}` }, item, MARKS[kind]);
      html("span", {}, item, text);
    });
    this.tally = html("span", { class: "tally quiet", style: "white-space: pre-line" }, key);
  }
  slider(parent) {
    const label = html("label", {}, parent, "score ≥"), { floor } = this.data, top = Math.max(1, ...this.data.models.map(m => m.threshold));
    const range = html("input", { type: "range", min: floor, max: top, step: 0.01, value: this.thresholds[0] }, label);
    const output = html("output", {}, label);
    const best = html("button", { type: "button", class: "button", title: "the score with the best F1" }, parent, "best F1");
    const update = () => { output.textContent = new Set(this.thresholds).size > 1 ? "best F1" : this.thresholds[0].toFixed(2); range.value = this.thresholds[0]; };
    (this.updates ||= []).push(update);
    const changed = () => { this.measure(); this.updates.forEach(u => u()); if (this.shown !== undefined && this.dialog.open) this.enlarge(); };
    range.addEventListener("input", () => {
      this.thresholds = this.thresholds.map(() => +range.value);
      cancelAnimationFrame(this.waiting);
      this.waiting = requestAnimationFrame(changed);
    });
    range.addEventListener("change", () => { changed(); this.arrange(); });
    best.addEventListener("click", () => { this.thresholds = this.data.models.map(m => m.threshold); changed(); this.arrange(); });
    update();
    return range;
  }
  fits(number) {
    const { objects, models } = this.data, only = this.one.value === "" ? null : +this.one.value, kind = this.kind.value;
    const name = this.data.images[number].name.toLowerCase();
    if (!name.includes(this.search.value.trim().toLowerCase())) return false;
    return this.outcomes[number].some((outcome, m) => {
      const columns = models[m], about = i => only === null || columns.class[i] === only || (columns.object[i] >= 0 && objects.class[columns.object[i]] === only);
      const ofClass = i => only === null || objects.class[i] === only;
      if (kind === "missed") return outcome.missed.some(ofClass);
      if (kind === "clean") return !outcome.wrong.length && !outcome.unmatched.length && (outcome.right.some(about) || only === null);
      if (kind) return outcome.wrong.some(i => columns.kind[i] === +kind && about(i));
      return only === null || outcome.right.some(about) || outcome.wrong.some(about) || outcome.unmatched.some(ofClass);
    });
  }
  arrange() {
    const last = this.data.models.length - 1, of = i => this.outcomes[i][last], score = i => this.data.models[last].score[i];
    const keys = {
      worst: i => of(i).f1, best: i => -of(i).f1, wrong: i => -of(i).wrong.length, lost: i => -of(i).unmatched.length,
      sure: i => -Math.max(-1, ...of(i).wrong.map(score)), unsure: i => Math.min(2, ...of(i).right.map(score)),
      gains: i => this.outcomes[i][0].f1 - of(i).f1, loses: i => of(i).f1 - this.outcomes[i][0].f1,
    };
    const key = keys[this.order.value], names = this.data.images.map(image => image.name);
    this.list = this.shots.map((_, i) => i).filter(i => this.fits(i));
    const measured = key && this.list.map(key), place = new Map(this.list.map((i, n) => [i, measured && measured[n]]));
    const rank = this.order.value === "worst" ? i => -of(i).wrong.length - of(i).unmatched.length : () => 0;
    this.list.sort((a, b) => (key ? place.get(a) - place.get(b) || rank(a) - rank(b) : 0) || names[a].localeCompare(names[b], "en", { numeric: true }));
    this.grid.replaceChildren(...this.list.slice(0, this.limit).map(i => this.shots[i]));
    this.more.hidden = this.list.length <= this.limit;
    this.more.textContent = `show all ${this.list.length} images`;
    this.count.textContent = `${this.list.length} of ${this.shots.length} images`;
  }
  addDialog() {
    this.dialog = html("dialog", { class: "large" }, document.body);
    const bar = html("div", { class: "bar-top" }, this.dialog);
    this.title = html("strong", {}, bar);
    this.slider(html("span", { class: "controls", style: "margin: 0" }, bar));
    const button = (text, name, act) => html("button", { type: "button", class: "button", "aria-label": name, title: name }, bar, text).addEventListener("click", act);
    button("←", "previous image (left arrow)", () => this.step(-1));
    button("→", "next image (right arrow)", () => this.step(1));
    bar.lastChild.autofocus = true;
    button("boxes", "show or hide boxes (b)", () => this.toggle());
    button("✕", "close (Escape)", () => this.dialog.close());
    this.panes = html("div", { class: "panes" }, this.dialog);
    this.side = html("div", { class: "side quiet" }, this.dialog);
    this.dialog.addEventListener("keydown", event => {
      if (event.target.matches("input")) return;
      const act = { ArrowLeft: () => this.step(-1), ArrowRight: () => this.step(1), b: () => this.toggle() }[event.key];
      if (act) { act(); event.preventDefault(); }
    });
    this.dialog.addEventListener("click", event => { if (event.target === this.dialog) this.dialog.close(); });
    this.dialog.addEventListener("close", () => { const shot = this.shots[this.shown]; if (shot.isConnected) shot.focus(); });
    addEventListener("resize", () => { if (this.dialog.open) this.enlarge(); });
  }
  toggle() { this.bare = !this.bare; this.enlarge(); }
  step(by) {
    const at = this.list.indexOf(this.shown);
    this.shown = this.list[(at + by + this.list.length) % this.list.length] ?? this.shown;
    this.enlarge();
  }
  open(number) {
    this.shown = number;
    this.dialog.showModal();
    this.enlarge();
  }
  enlarge() {
    const image = this.data.images[this.shown], at = this.list.indexOf(this.shown), outcome = this.outcomes[this.shown];
    this.title.textContent = `${image.name} · F1 ${outcome.map(f => f.f1.toFixed(2)).join(" → ")}${at < 0 ? "" : ` · ${at + 1} of ${this.list.length}`}`;
    this.panes.replaceChildren(...this.data.models.map(m => pane(image, this.pairs ? m.name : "")));
    this.side.replaceChildren();
    [...this.panes.children].forEach((one, m) => {
      const boxes = this.boxes(m, this.shown);
      drawBoxes(one.querySelector("svg"), this.bare ? [] : boxes, scaleOf(one, image), true);
      const part = (kind, title, text) => {
        const rows = boxes.filter(b => b.kind === kind).map(text);
        if (rows.length) html("div", {}, this.side, `${this.pairs ? this.data.models[m].name + ", " : ""}${title}: ${rows.join("; ")}`);
      };
      part("wrong", "wrong", b => `${b.text} (${b.why})`);
      part("missed", "not found", b => b.text);
      part("right", "right", b => b.text);
    });
  }
}

// Crops around single boxes; a click enlarges the image in the gallery.
function suspects(list, gallery) {
  const { images, objects, classes, models } = gallery.data, [columns] = models, kind = list.dataset.suspects;
  gallery.data.suspects[kind].forEach(i => {
    const source = kind === "unfound" ? objects : columns, number = source.image[i], image = images[number];
    const [x, y, w, h] = boxOf(source, i), side = Math.min(Math.max(image.width, image.height), Math.max(w, h) * 2.2);
    const inside = (middle, span, whole) => span > whole ? (whole - span) / 2 : Math.max(0, Math.min(middle - span / 2, whole - span));
    const left = inside(x + w / 2, side * 4 / 3, image.width), top = inside(y + h / 2, side, image.height);
    const shot = html("button", { type: "button", class: "shot" }, list), frame = html("span", { class: "pane", style: "display: block" }, shot);
    const crop = svg("svg", { viewBox: `${left} ${top} ${side * 4 / 3} ${side}` }, frame);
    if (image.thumb) svg("image", { href: image.thumb, width: image.width, height: image.height, preserveAspectRatio: "none" }, crop);
    drawBoxes(svg("g", {}, crop), [{ ...shapeOf(gallery.data, source, i), kind: kind === "unfound" ? "missed" : "wrong" }], 1, false);
    const label = kind === "unfound" ? `${classes[objects.class[i]]}, labeled`
      : `${classes[columns.class[i]]} ${columns.score[i].toFixed(2)}${kind === "renamed" ? `, labeled ${classes[objects.class[columns.object[i]]]}` : ""}`;
    const caption = html("span", { class: "caption" }, shot, label);
    html("span", {}, caption, image.name);
    shot.addEventListener("click", () => gallery.open(number));
  });
}

function summary(names) {
  const counts = new Map();
  names.forEach(name => counts.set(name, (counts.get(name) || 0) + 1));
  return [...counts].map(([name, count]) => count > 1 ? `${count} ${name}` : name).join(", ") || "no object";
}
function batches(node) {
  const { images, objects, classes } = JSON.parse(node.querySelector("script").textContent), of = grouped(objects.image, images.length);
  const grid = html("div", { class: "gallery small" }, node);
  images.forEach((image, i) => {
    const shot = html("div", { class: "shot", style: "cursor: default" }, grid), one = pane(image, "");
    one.style.display = "block";
    one.style.aspectRatio = `${image.width} / ${image.height}`;
    shot.append(one);
    drawBoxes(one.querySelector("svg"), of[i].map(j => ({ box: boxOf(objects, j), kind: "object", text: "" })), 1, false);
    html("span", {}, html("span", { class: "caption" }, shot, summary(of[i].map(j => classes[objects.class[j]]))), image.name);
  });
}

const galleries = [...document.querySelectorAll("[data-gallery]")].map(node => new Gallery(node));
document.querySelectorAll("[data-suspects]").forEach(node => suspects(node, galleries[0]));
document.querySelectorAll("[data-batches]").forEach(batches);
