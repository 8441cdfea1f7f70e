"use strict";
// What is shown follows from `state`; `draw` brings the page in line with it. Maps are unpacked when an image is first
// shown, see data.py for their format. A block's grid has queries and keys in rows; head -1 is the mean over heads.

const byId = (id) => document.getElementById(id);
const data = JSON.parse(byId("data").textContent);
const all = document.documentElement.style;
const state = { image: 0, block: 0, head: -1, at: [0.5, 0.5], beside: "" };
let hovered = null; // where the pointer is; goes before state.at
let grids = []; // of the image shown, unpacked, one for each block; null where there is none

// Maps

async function unpacked(grid) {
  if (!grid) return null;
  const packed = Uint8Array.from(atob(grid.data), (letter) => letter.charCodeAt(0));
  const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("deflate"));
  const buffer = await new Response(stream).arrayBuffer();
  const p = grid.queries[0] * grid.queries[1], q = grid.keys[0] * grid.keys[1];
  return { ...grid, p, q, row: grid.channels ? ofFactors(grid, buffer, p, q) : ofBytes(grid, buffer, p, q), means: {} };
}

function ofBytes(grid, buffer, p, q) {
  const count = grid.heads * p;
  const low = new Float32Array(buffer, 0, count), step = new Float32Array(buffer, 4 * count, count);
  const bytes = new Uint8Array(buffer, 8 * count);
  return (head, query) => {
    const n = head * p + query;
    return Float32Array.from(bytes.subarray(n * q, (n + 1) * q), (byte) => low[n] + step[n] * byte);
  };
}

function ofFactors(grid, buffer, p, q) {
  const { channels, tokens, scale } = grid, numbers = new Int16Array(buffer);
  const keys = numbers.subarray(grid.heads * p * channels);
  return (head, query) => {
    const own = (head * p + query) * channels;
    const weights = new Float32Array(tokens).map((_, token) => {
      let sum = 0;
      for (let c = 0, key = (head * tokens + token) * channels; c < channels; c++) sum += numbers[own + c] * keys[key + c];
      return scale * sum;
    });
    const most = weights.reduce((a, b) => Math.max(a, b));
    const powers = weights.map((logit) => Math.exp(logit - most));
    const total = powers.reduce((a, b) => a + b);
    return powers.map((power) => power / total).subarray(tokens - q);
  };
}

function mean(count, map) {
  const sum = map(0).slice();
  for (let n = 1; n < count; n++) map(n).forEach((weight, key) => (sum[key] += weight));
  return sum.map((weight) => weight / count);
}

const mapOf = (grid, head, query) => (head < 0 ? mean(grid.heads, (h) => grid.row(h, query)) : grid.row(head, query));
const meanOf = (grid, head) => (grid.means[head] ??= mean(grid.p, (query) => mapOf(grid, head, query)));

/** Row and column of the grid's query that is nearest to a place in the picture. */
function nearest(grid, [y, x]) {
  const closest = (places, v) => places.reduce((best, place, n) => (Math.abs(place - v) < Math.abs(places[best] - v) ? n : best), 0);
  return [closest(grid.rows, y), closest(grid.columns, x)];
}

function mapAt(grid, head, at) {
  const [row, column] = nearest(grid, at);
  return mapOf(grid, Math.min(head, grid.heads - 1), row * grid.queries[1] + column);
}

// Drawing

const colours = Array.from({ length: 256 }, (_, level) => {
  const place = (level / 255) * (data.colours.length - 1), n = Math.min(Math.floor(place), data.colours.length - 2);
  const channel = (stop, c) => parseInt(data.colours[stop].slice(1 + 2 * c, 3 + 2 * c), 16);
  return [0, 1, 2].map((c) => Math.round(channel(n, c) + (place - n) * (channel(n + 1, c) - channel(n, c))));
});

/**
 * Paints a map, one pixel a cell; returns the weights that the first and the last colour stand for. A cell with several
 * keys has the colour of their mean: cells of a grid may hold different numbers of keys.
 */
function paint(canvas, grid, sums) {
  const [rows, columns] = grid.held;
  const map = sums.map((weight, cell) => weight / (rows[Math.floor(cell / columns.length)] * columns[cell % columns.length]));
  const lowest = map.reduce((a, b) => Math.min(a, b)), high = map.reduce((a, b) => Math.max(a, b));
  const low = byId("contrast").checked ? lowest : Math.min(0, lowest);
  [canvas.height, canvas.width] = grid.keys;
  const pixels = new ImageData(grid.keys[1], grid.keys[0]);
  map.forEach((weight, cell) => pixels.data.set([...colours[Math.round((255 * (weight - low)) / (high - low || 1))], 255], 4 * cell));
  canvas.getContext("2d").putImageData(pixels, 0, 0);
  return [low, high];
}

const short = (number) => (number === 0 ? "0" : Number(number.toPrecision(2)).toString());
const named = (block) => data.blocks[block].name || "(the model)";
const decimals = (number) => (number === null ? "" : number.toFixed(3));
const sides = ([height, width]) => `${height}×${width}`;

function panel(figure, grid, map, at) {
  const [low, high] = paint(figure.querySelector("canvas"), grid, map);
  const bar = document.createElement("i");
  figure.querySelector(".scale").replaceChildren(short(low), bar, short(high));
  const mark = figure.querySelector(".mark");
  mark.hidden = !at || grid.p === 1;
  if (mark.hidden) return;
  const [row, column] = nearest(grid, at), [height, width] = grid.full[0];
  Object.assign(mark.style, { top: `${100 * grid.rows[row]}%`, left: `${100 * grid.columns[column]}%`, height: `${100 / height}%`, width: `${100 / width}%` });
}

function reach(block, map) {
  if (!data.blocks[block].softmax) return "";
  const sum = map.reduce((a, b) => a + b);
  const entropy = map.reduce((h, weight) => (weight > 0 ? h - (weight / sum) * Math.log(weight / sum) : h), 0);
  return ` Looks at ${Math.exp(entropy).toFixed(1)} of ${map.length} cells.`;
}

function distance(a, b) {
  const dot = (u, v) => u.reduce((sum, weight, n) => sum + weight * v[n], 0), norms = Math.sqrt(dot(a, a) * dot(b, b));
  return (1 - (norms && dot(a, b) / norms)) / 2;
}

/** The map that stands beside the chosen one: that of another block or, for "mean", the mean over the block's queries. */
function besideMap(at) {
  const chosen = byId("beside").value, block = chosen === "mean" ? state.block : Number(chosen), grid = grids[block];
  return { block, grid, at: chosen === "mean" ? null : at, map: chosen === "mean" ? meanOf(grid, state.head) : mapAt(grid, -1, at) };
}

function drawMaps() {
  const grid = grids[state.block], at = hovered ?? state.at;
  const map = mapAt(grid, state.head, at), [row, column] = nearest(grid, at);
  const [first, second] = document.querySelectorAll(".stage figure");
  panel(first, grid, map, at);
  const query = grid.p === 1 ? "One map for all queries." : `Query at row ${row + 1}, column ${column + 1} of ${sides(grid.queries)}.`;
  byId("readout").textContent = query + reach(state.block, map);
  const beside = besideMap(at);
  panel(second, beside.grid, beside.map, beside.at);
  const apart = beside.map.length === map.length ? ` Distance between the two maps: ${decimals(distance(map, beside.map))}.` : "";
  second.querySelector(".readout").textContent = (beside.at && beside.grid.p === 1 ? "One map for all queries." : "") + reach(beside.block, beside.map) + apart;
  document.querySelectorAll("#blocks canvas").forEach((canvas, n) => {
    if (grids[n]) paint(canvas, grids[n], mapAt(grids[n], n === state.block ? state.head : -1, at));
  });
  document.querySelectorAll("#heads canvas").forEach((canvas, n) => paint(canvas, grid, mapAt(grid, n - 1, at)));
}

function element(name, className, text = "") {
  const made = document.createElement(name);
  made.className = className;
  made.textContent = text;
  return made;
}

/** Fills a fieldset with radio buttons that look like pictures; items are [value, text, number, picture if it has one]. */
function tiles(id, items, chosen, choose) {
  const old = byId(id).querySelector(".tiles"), box = element("div", "tiles");
  for (const [value, text, number, picture] of items) {
    const tile = element("label", "tile"), input = element("input", ""), face = element("span", "picture");
    Object.assign(input, { type: "radio", name: id, value, checked: value === chosen, disabled: number === undefined });
    input.addEventListener("change", () => choose(value));
    if (picture) face.style.backgroundImage = `url("${picture}")`;
    else face.append(element("canvas", ""));
    tile.title = text;
    tile.append(input, face, element("span", "text", text.replace(/[._]/g, "$&\u200b")), element("span", "number", number === undefined ? "no 2D map" : decimals(number)));
    box.append(tile);
  }
  const left = old?.scrollLeft ?? 0, focused = old?.contains(document.activeElement);
  old?.remove();
  byId(id).append(box);
  box.scrollLeft = left;
  if (focused) box.querySelector(":checked")?.focus();
}

function drawImages() {
  const order = Number(byId("sort").value), number = (n) => data.images[n].dependence[state.block];
  const numbers = data.images.map((_, n) => n);
  if (order) numbers.sort((a, b) => order * (number(a) - number(b)) || a - b);
  tiles("images", numbers.map((n) => [n, data.images[n].name, number(n), data.images[n].picture]), state.image, (n) => change({ image: n }));
}

function drawChoices() {
  const image = data.images[state.image], block = data.blocks[state.block], grid = grids[state.block];
  byId("name").textContent = image.name;
  byId("label").textContent = image.label === null ? "" : `class ${image.label}`;
  tiles("blocks", data.blocks.map(({ dependence }, n) => [n, named(n), grids[n] ? dependence : undefined]), state.block, (n) => change({ block: n }));
  const heads = [[-1, "mean", block.dependence], ...block.heads.map((dependence, head) => [head, `head ${head + 1}`, dependence])];
  byId("heads").hidden = grid.heads === 1;
  tiles("heads", grid.heads === 1 ? [] : heads, state.head, (head) => change({ head }));
  const others = data.blocks.map((_, n) => n).filter((n) => n !== state.block && grids[n]);
  byId("beside").replaceChildren(new Option("mean over all queries", "mean"), ...others.map((n) => new Option(named(n), n)));
  const single = others.filter((n) => grids[n].p === 1).sort((a, b) => Math.abs(a - state.block) - Math.abs(b - state.block));
  byId("beside").value = others.includes(state.beside) ? state.beside : state.beside === "" && grid.p > 1 && single.length ? single[0] : "mean";
  const added = String(grid.keys) === String(grid.full[1]) ? "" : ", of those in a cell the mean weight";
  byId("grids").textContent = `Grid of this block: queries ${sides(grid.queries)} of ${sides(grid.full[0])} positions, keys ${sides(grid.keys)} of ${sides(grid.full[1])}${added}.`;
}

// What the reader does

/** Takes over a new state, and shows it once the image's maps are there. */
async function change(part) {
  Object.assign(state, part);
  const image = data.images[state.image];
  const found = await Promise.all(image.grids.map((grid) => grid && (grid.unpacked ??= unpacked(grid))));
  if (image !== data.images[state.image]) return; // another one was chosen meanwhile
  grids = found;
  if (!grids[state.block]) state.block = grids.findIndex((grid) => grid);
  if (state.head >= grids[state.block].heads) state.head = -1;
  all.setProperty("--picture", `url("${image.picture}")`);
  all.setProperty("--ratio", image.width / image.height);
  document.body.classList.toggle("coarse", image.width < 128);
  drawImages();
  drawChoices();
  drawMaps();
  writeAddress();
}

function pin(at) {
  hovered = null;
  state.at = at;
  drawMaps();
  writeAddress();
}

/** The part of the address after # holds what is shown, counted from 1, so that a view can be linked to. */
function writeAddress() {
  const grid = grids[state.block], parts = new URLSearchParams({ image: state.image + 1, block: data.blocks[state.block].name });
  if (state.head >= 0) parts.set("head", state.head + 1);
  if (grid.p > 1) parts.set("query", nearest(grid, state.at).map((n) => n + 1));
  try {
    history.replaceState(null, "", `#${parts}`);
  } catch {} // a preview inside a mail program may not allow it
}

function readAddress() {
  const parts = new URLSearchParams(location.hash.slice(1));
  const image = parts.has("image") ? Number(parts.get("image")) - 1 : 0;
  const block = data.blocks.findIndex(({ name }) => name === parts.get("block"));
  const most = data.blocks.reduce((best, { dependence }, n) => (dependence > data.blocks[best].dependence ? n : best), 0);
  const found = { image: data.images[image] ? image : 0, block: block < 0 ? most : block, head: Math.max(0, Math.floor(parts.get("head")) || 0) - 1 };
  const grid = data.images[found.image].grids[found.block], [row, column] = (parts.get("query") ?? "").split(",").map((n) => n - 1);
  if (grid?.rows[row] !== undefined && grid.columns[column] !== undefined) found.at = [grid.rows[row], grid.columns[column]];
  return found;
}

function place(event) {
  const box = event.currentTarget.getBoundingClientRect();
  return [(event.clientY - box.top) / box.height, (event.clientX - box.left) / box.width];
}

for (const picture of [byId("picker"), byId("second")]) {
  picture.addEventListener("pointermove", (event) => {
    if (event.pointerType === "touch") return; // there a tap chooses, and a stroke scrolls
    hovered = place(event);
    drawMaps();
  });
  picture.addEventListener("pointerleave", () => {
    hovered = null;
    drawMaps();
  });
  picture.addEventListener("click", (event) => pin(place(event)));
}

byId("picker").addEventListener("keydown", (event) => {
  const step = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] }[event.key];
  if (!step) return;
  event.preventDefault();
  // a block with one map has no queries to step through: then a step is one of the first other block's
  const grid = [grids[state.block], ...grids].reduce((a, b) => (a.p === 1 && b?.p > 1 ? b : a));
  const [row, column] = nearest(grid, state.at);
  pin([grid.rows[row + step[0]] ?? state.at[0], grid.columns[column + step[1]] ?? state.at[1]]);
});

byId("sort").addEventListener("change", drawImages);
byId("contrast").addEventListener("change", drawMaps);
byId("beside").addEventListener("change", () => change({ beside: byId("beside").value === "mean" ? "mean" : Number(byId("beside").value) }));
byId("opacity").addEventListener("input", () => all.setProperty("--opacity", byId("opacity").value / 100));
addEventListener("hashchange", () => change(readAddress()));

all.setProperty("--colours", `linear-gradient(90deg, ${data.colours.join()})`);
change(readAddress()).catch((error) => {
  byId("readout").textContent = `The maps cannot be unpacked by this browser (${error.message}); a newer one may do it.`;
});
