// The linked figure of notebook 01: a heat map of cells, the scatter of the chosen one. All that it shows is in `data`;
// the choice (layer, feature, pair, episode, selected) is written back, so that other cells of the notebook can follow.
const NS = "http://www.w3.org/2000/svg";
const COLOURS = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9"];
const SIZE = 380, EDGE = 46;

function add(parent, name, facts = {}, text = "") {
  const node = document.createElementNS(NS, name);
  for (const [key, value] of Object.entries(facts)) node.setAttribute(key, value);
  if (text) node.textContent = text;
  parent.append(node);
  return node;
}

function element(parent, name, className, text = "") {
  const node = document.createElement(name);
  node.className = className;
  node.textContent = text;
  parent.append(node);
  return node;
}

function colour(value) { // purple below zero, orange above
  const share = Math.min(Math.abs(value) / 0.8, 1), end = value < 0 ? [94, 60, 153] : [230, 97, 1];
  return `rgb(${end.map(c => Math.round(247 + (c - 247) * share)).join(",")})`;
}

function correlation(points) {
  const n = points.length, mean = i => points.reduce((sum, p) => sum + p[i], 0) / n, mx = mean(0), my = mean(1);
  const sum = (f) => points.reduce((total, p) => total + f(p[0] - mx, p[1] - my), 0);
  return sum((a, b) => a * b) / Math.sqrt(sum((a) => a * a) * sum((a, b) => b * b) || 1);
}

function inside([x, y], path) { // is the point within the drawn loop?
  let within = false;
  for (let i = 0, j = path.length - 1; i < path.length; j = i++) {
    const [ax, ay] = path[i], [bx, by] = path[j];
    if ((ay > y) !== (by > y) && x < ((bx - ax) * (y - ay)) / (by - ay) + ax) within = !within;
  }
  return within;
}

const signed = value => (value < 0 ? "−" : "+") + Math.abs(value).toFixed(2);

function render({ model, el }) {
  el.innerHTML = `<style>
    .pk { display: flex; flex-wrap: wrap; gap: 8px 24px; font: 13px sans-serif; position: relative; min-height: 470px }
    .pk > div { max-width: 100% } .pk .map { overflow-x: auto } .pk .cloud svg { max-width: 100%; height: auto; display: block }
    .pk svg { touch-action: none; user-select: none; color: inherit } .pk text { fill: currentColor; font-size: 11px; pointer-events: none }
    .pk .cell, .pk circle { cursor: pointer } .pk .chosen { stroke: #0072B2; stroke-width: 4 } .pk .plot { cursor: crosshair }
    .pk button { margin: 0 4px 4px 0; padding: 2px 8px; font: inherit; cursor: pointer }
    .pk button.on { background: #0072B2; color: #fff } .pk .tip { position: absolute; z-index: 9; max-width: 260px;
      padding: 6px; background: #fff; color: #000; border: 1px solid #888; pointer-events: none; display: none }
    .pk .tip img { display: block; margin-bottom: 4px } .pk .said { min-height: 34px; max-width: 430px } </style>`;
  const root = element(el, "div", "pk");
  const left = element(root, "div", "map"), right = element(root, "div", "cloud"), tip = element(root, "div", "tip");
  const pairs = element(right, "div", "pairs"), plot = element(right, "div", "holder"), said = element(right, "div", "said");
  let view = null; // [x, y, half-width] of the scatter; null is the whole

  const choose = (name, value) => {
    if (JSON.stringify(model.get(name)) === JSON.stringify(value)) return; // a redraw would break a double click
    model.set(name, value);
    model.save_changes();
  };
  const cell = () => model.get("data").cells[`${model.get("layer")}|${model.get("feature")}`];

  function drawMap() {
    const { layers, features, cells } = model.get("data"), wide = 86, high = 40;
    left.replaceChildren();
    element(left, "div", "title", "held-out correlation (95 % of the null below); frame: survives. Click a cell.");
    const across = 100 + wide * features.length, down = 60 + high * layers.length;
    const svg = add(left, "svg", { width: across, viewBox: `0 0 ${across} ${down}`, role: "img" });
    layers.forEach((layer, row) => {
      add(svg, "text", { x: 94, y: 14 + high * (row + 0.5), "text-anchor": "end" }, layer);
      features.forEach((feature, column) => {
        const found = cells[`${layer}|${feature}`], x = 100 + wide * column, y = 10 + high * row;
        const chosen = layer === model.get("layer") && feature === model.get("feature");
        const box = add(svg, "rect", { x: x + 2, y: y + 2, width: wide - 4, height: high - 4, fill: colour(found.mean),
          stroke: found.survives ? "#000" : "none", class: chosen ? "cell chosen" : "cell",
          "data-cell": `${layer}|${feature}` });
        const label = `${signed(found.mean)} (${found.null.toFixed(2)})`;
        const text = add(svg, "text", { x: x + wide / 2, y: y + high / 2 + 4, "text-anchor": "middle",
          style: "fill:#000", "font-weight": found.survives ? "bold" : "normal" }, label);
        box.onclick = () => { choose("layer", layer); choose("feature", feature); };
      });
    });
    features.forEach((feature, column) => feature.split(" ").forEach((word, line) => add(svg, "text",
      { x: 100 + wide * (column + 0.5), y: 26 + high * layers.length + 13 * line, "text-anchor": "middle" }, word)));
  }

  function drawPairs() {
    const { r, high } = cell();
    pairs.replaceChildren();
    r.forEach((value, pair) => {
      const button = element(pairs, "button", pair === model.get("pair") ? "on" : "", `pair ${pair + 1}: ${signed(value)}`);
      button.title = `held-out correlation of pair ${pair + 1}; 95 % of its null stay below ${high[pair].toFixed(2)}`;
      button.onclick = () => choose("pair", pair);
    });
  }

  function drawCloud() {
    const data = model.get("data"), found = cell(), pair = Math.min(model.get("pair"), found.r.length - 1);
    const [xs, ys] = found.points[pair], [cx, cy, half] = view || [0, 0, data.limit];
    const to = (x, y) => [EDGE + (SIZE - EDGE) * (0.5 + (x - cx) / (2 * half)), (SIZE - EDGE) * (0.5 - (y - cy) / (2 * half))];
    const back = (px, py) => [cx + ((px - EDGE) / (SIZE - EDGE) - 0.5) * 2 * half, cy - (py / (SIZE - EDGE) - 0.5) * 2 * half];
    plot.replaceChildren();
    const svg = add(plot, "svg", { width: SIZE + 1, viewBox: `0 0 ${SIZE + 1} ${SIZE}`, class: "plot", tabindex: 0 });
    add(svg, "rect", { x: EDGE, y: 0, width: SIZE - EDGE, height: SIZE - EDGE, fill: "transparent", stroke: "#999" });
    for (let tick = Math.ceil(cx - half); tick <= cx + half; tick += Math.max(1, Math.round(half / 3)))
      add(svg, "text", { x: to(tick, 0)[0], y: SIZE - EDGE + 14, "text-anchor": "middle" }, String(tick));
    for (let tick = Math.ceil(cy - half); tick <= cy + half; tick += Math.max(1, Math.round(half / 3)))
      add(svg, "text", { x: EDGE - 5, y: to(0, tick)[1] + 4, "text-anchor": "end" }, String(tick));
    add(svg, "text", { x: EDGE + (SIZE - EDGE) / 2, y: SIZE - 10, "text-anchor": "middle" }, `datasets, direction ${pair + 1}`);
    add(svg, "text", { transform: `translate(12 ${(SIZE - EDGE) / 2}) rotate(-90)`, "text-anchor": "middle" },
      `parameters, direction ${pair + 1}`);
    const sources = [...new Set(data.episodes.map(e => e.source))], picked = new Set(model.get("selected"));
    data.episodes.forEach((episode, number) => {
      const [x, y] = to(xs[number], ys[number]);
      if (x < EDGE || x > SIZE || y < 0 || y > SIZE - EDGE) return;
      const ring = number === model.get("episode"), paint = COLOURS[sources.indexOf(episode.source) % COLOURS.length];
      const dot = add(svg, "circle", { cx: x, cy: y, r: ring ? 8 : 5, fill: paint, "data-episode": number,
        "fill-opacity": picked.size && !picked.has(number) ? 0.15 : 0.75, stroke: ring ? "currentColor" : "none", "stroke-width": 2 });
      dot.onpointerenter = event => showTip(event, episode);
      dot.onpointerleave = () => { tip.style.display = "none"; };
      dot.onclick = () => choose("episode", number);
    });
    (found.added[pair] || [[], []])[0].forEach((value, number) => {
      const other = found.added[pair][1][number], [px, py] = to(value, other);
      const x = Math.max(EDGE + 12, Math.min(px, SIZE - 12)), y = Math.max(12, Math.min(py, SIZE - EDGE - 12));
      const where = x === px && y === py ? "" : ` (beyond the edge: ${signed(value)}, ${signed(other)})`;
      add(svg, "text", { x, y: y + 7, "text-anchor": "middle", style: "font-size:22px", class: "added" }, "★");
      const [shift, anchor] = x > 0.6 * SIZE ? [-11, "end"] : [11, "start"];
      add(svg, "text", { x: x + shift, y: y + 4, "text-anchor": anchor }, data.added[number] + where);
    });
    if (sources.length > 1) sources.forEach((source, number) => add(svg, "text", { x: EDGE + 8, y: 16 + 14 * number,
      style: `fill:${COLOURS[number % COLOURS.length]}` }, `● ${source}`));
    let path = null, line = null;
    const place = event => {
      const box = svg.getBoundingClientRect(), scale = (SIZE + 1) / box.width; // narrow pages shrink it
      return [(event.clientX - box.left) * scale, (event.clientY - box.top) * scale];
    };
    svg.onpointerdown = event => {
      if (event.target.tagName === "circle") return;
      path = [place(event)];
      line = add(svg, "polygon", { fill: "#0072B222", stroke: "#0072B2" });
      svg.setPointerCapture(event.pointerId);
    };
    svg.onpointermove = event => {
      if (!path) return;
      path.push(place(event));
      line.setAttribute("points", path.map(p => p.join(",")).join(" "));
    };
    svg.onpointerup = () => {
      if (!path) return;
      const loop = path;
      path = null;
      choose("selected", loop.length < 4 ? [] : data.episodes.map((_, n) => n).filter(n => inside(to(xs[n], ys[n]), loop)));
    };
    svg.onwheel = event => {
      event.preventDefault();
      const [x, y] = back(...place(event)), factor = event.deltaY < 0 ? 0.8 : 1.25, next = Math.min(half * factor, data.limit);
      view = next >= data.limit ? null : [x + (cx - x) * (next / half), y + (cy - y) * (next / half), next];
      drawCloud();
    };
    plot.ondblclick = () => { view = null; drawCloud(); };
    const chosen = data.episodes[model.get("episode")], group = [...picked].map(n => data.episodes[n]);
    const mean = group.reduce((sum, e) => sum + e.accuracy, 0) / (group.length || 1);
    const within = group.length > 2 ? `, r = ${signed(correlation([...picked].map(n => [xs[n], ys[n]])))} among them` : "";
    said.textContent = group.length ? `${group.length} of ${data.episodes.length} episodes selected, mean accuracy ` +
      `${mean.toFixed(1)} %${within}. Click beside the points to clear.` : `Ringed: ${chosen.name} (${chosen.classes.join(", ")}), ` +
      `${chosen.accuracy} %. Hover: an episode; click: ring it; draw: select; wheel: zoom; double click: all.`;
  }

  function showTip(event, episode) {
    tip.replaceChildren();
    element(tip, "img", "").src = episode.picture;
    element(tip, "div", "", `${episode.name}: ${episode.classes.join(", ")}; accuracy ${episode.accuracy} %`);
    const box = root.getBoundingClientRect();
    tip.style.left = `${Math.max(0, Math.min(event.clientX - box.left + 12, box.width - 270))}px`;
    tip.style.top = `${event.clientY - box.top + 12}px`;
    tip.style.display = "block";
  }

  function draw() {
    if (!model.get("data").cells) return;
    tip.style.display = "none";
    drawMap();
    drawPairs();
    drawCloud();
  }
  for (const name of ["layer", "feature", "pair", "episode", "selected"]) model.on(`change:${name}`, draw);
  model.on("change:data", () => { view = null; draw(); });
  draw();
}
export default { render };
