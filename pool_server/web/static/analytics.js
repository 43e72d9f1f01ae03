// Draws the values that the tables list, from the JSON each carries. Without this script, and to a screen reader, the
// page is the same.
//   <figure data-chart="id of the table's box" data-kind="count|money|percent|ms" data-stacked><canvas></canvas></figure>
import { t } from "./words.js";

const language = document.documentElement.lang;
const charts = new Map();
const DENSE = 60; // more bars than this have no line on top

// Any colour of the sheet as red, green and blue: a canvas is what turns it into them.
const paint = Object.assign(document.createElement("canvas"), { width: 1, height: 1 }).getContext("2d", { willReadFrequently: true });
function rgb(colour) {
  paint.clearRect(0, 0, 1, 1);
  paint.fillStyle = colour;
  paint.fillRect(0, 0, 1, 1);
  return `rgb(${[...paint.getImageData(0, 0, 1, 1).data].slice(0, 3).join(", ")})`;
}

function colours(root) {
  const style = (selector) => getComputedStyle(selector);
  const probe = document.createElement("span");
  root.append(probe);
  const of = (name) => {
    probe.className = `swatch ${name}`;
    return rgb(style(probe).backgroundColor);
  };
  const found = { of, muted: of(""), ink: of("strong"), rule: rgb(style(root.querySelector(".plot")).borderColor) };
  return { ...found, done: () => probe.remove() };
}

// A colour as the browser computed it, made lighter.
function faint(colour, share) {
  const parts = colour.match(/[\d.]+/g).slice(0, 3);
  return `rgba(${parts.join(", ")}, ${share})`;
}

// Across steps with nothing to say, the line is only a hint of one.
const bridge = (part) => part.p0.skip || part.p1.skip;

function read(box, figure) {
  const drawing = JSON.parse(box.querySelector("table").dataset.drawing);
  const look = colours(figure);
  const datasets = drawing.lines.map((line) => {
    const colour = look.of(line.colour);
    return {
      label: line.name,
      data: line.values,
      borderColor: colour,
      spanGaps: true,
      segment: {
        borderDash: (part) => (bridge(part) ? [2, 3] : undefined),
        borderColor: (part) => (bridge(part) ? faint(colour, 0.45) : undefined),
      },
      backgroundColor: faint(colour, line.values.length > DENSE ? 0.85 : 0.7),
      ...(line.colour === "band" ? { fill: "-1", borderWidth: 0, backgroundColor: colour, order: 1 } : {}),
      ...(line.colour === "before" ? { type: "line", stack: "before", borderDash: [4, 3], segment: {}, order: -1 } : {}),
    };
  });
  look.done();
  return { ...drawing, datasets, muted: look.muted };
}

const UNITS = [[1e12, t("{figure} T")], [1e9, t("{figure} B")], [1e6, t("{figure} M")], [1e3, t("{figure} k")]];
const plain = (value, digits) => value.toLocaleString(language, { minimumFractionDigits: digits, maximumFractionDigits: digits });

function short(value, kind) {
  if (kind === "percent") return `${value} %`;
  if (kind === "ms") return value < 1000 ? `${value} ms` : `${value / 1000} s`;
  const unit = UNITS.find(([size]) => Math.abs(value) >= size);
  const figure = Number((unit ? value / unit[0] : value).toPrecision(unit ? 3 : 15)).toLocaleString(language);
  const amount = unit ? unit[1].replace("{figure}", figure) : figure;
  return kind === "money" ? t("${amount}", { amount }) : amount;
}

function said(value, kind) {
  if (value === null) return t("no data");
  if (kind === "money") return t("${amount}", { amount: plain(value, 2) });
  if (kind === "percent") return `${value} %`;
  if (kind === "ms") return value < 1000 ? `${Math.round(value)} ms` : `${plain(value / 1000, 1)} s`;
  return value.toLocaleString(language);
}

// Only the ticks the server chose, and no more of them than there is room for.
function thinned(axis, ticks) {
  const chosen = ticks.map((text, i) => [text, i]).filter(([text]) => text);
  const step = Math.max(1, Math.ceil(chosen.length / Math.max(2, Math.floor(axis.width / 64))));
  axis.ticks = chosen.filter((_, i) => i % step === 0).map(([label, value]) => ({ value, label }));
}

// A value without neighbours would be no line at all: it is drawn as a dot.
function alone({ dataset, dataIndex }) {
  const empty = (i) => (dataset.data[i] ?? null) === null;
  return empty(dataIndex - 1) && empty(dataIndex + 1) ? 1.5 : 0;
}

function options(kind, stacked, look) {
  const font = { family: getComputedStyle(document.body).fontFamily, size: 13 };
  const grid = { color: faint(look.muted, 0.18), drawTicks: false };
  return {
    responsive: true,
    categoryPercentage: 1,
    barPercentage: look.labels.length > DENSE ? 0.92 : 0.88,
    maintainAspectRatio: false,
    animation: matchMedia("(prefers-reduced-motion: reduce)").matches ? false : { duration: 120 },
    interaction: { mode: "index", intersect: false },
    elements: {
      line: { borderWidth: 1.5, tension: 0, borderJoinStyle: "round" },
      bar: { borderWidth: { top: look.labels.length > DENSE ? 0 : 1.5 } },
      point: { radius: alone, hoverRadius: 3, hitRadius: 6 },
    },
    scales: {
      x: {
        stacked,
        grid: { display: false },
        border: { color: faint(look.muted, 0.4) },
        ticks: { color: look.muted, font, autoSkip: false, maxRotation: 0, callback: (value) => look.ticks[value] },
        afterBuildTicks: (axis) => thinned(axis, look.ticks),
      },
      y: {
        stacked,
        beginAtZero: true,
        max: kind === "percent" ? 100 : undefined,
        grid,
        border: { display: false },
        ticks: { color: look.muted, font, maxTicksLimit: 5, padding: 6, callback: (value) => short(value, kind) },
      },
    },
    plugins: {
      legend: { display: false },
      tooltip: {
        animation: false,
        titleFont: font,
        bodyFont: font,
        itemSort: stacked ? (a, b) => b.datasetIndex - a.datasetIndex : undefined,
        filter: (item) => !stacked || item.parsed.y > 0,
        callbacks: { label: (item) => ` ${item.dataset.label}: ${said(item.parsed.y, kind)}` },
      },
    },
  };
}

function element(name, text, look) {
  const made = document.createElement(name);
  if (text) made.textContent = text;
  if (look) made.className = look;
  return made;
}

function row(cells, head) {
  const made = element("tr");
  for (const [i, content] of cells.entries()) {
    const cell = element(head || i === 0 ? "th" : "td", "", i ? "number" : head ? "" : "plainweight");
    cell.append(content);
    if (head || i === 0) cell.scope = head ? "col" : "row";
    made.append(cell);
  }
  return made;
}

// What one bar is made of, largest first, and where that stretch of time is shown by something else.
function open(figure, index) {
  const box = document.getElementById(figure.dataset.chart);
  const place = document.getElementById(figure.dataset.chart.replace("-values", "-part"));
  const drawing = JSON.parse(box.querySelector("table").dataset.drawing);
  const parts = drawing.lines.filter((line) => line.colour !== "before" && line.values[index]);
  const whole = parts.reduce((sum, line) => sum + line.values[index], 0);
  const { kind } = figure.dataset;
  const heading = element("h3", `${drawing.labels[index]}: ${said(whole, kind)}`);
  const table = element("table", "", "terms made");
  const body = element("tbody");
  for (const line of parts.sort((a, b) => b.values[index] - a.values[index])) {
    const name = element("span");
    name.append(element("span", "", `swatch ${line.colour}`), element("bdi", line.name));
    body.append(row([name, said(line.values[index], kind), `${plain((100 * line.values[index]) / whole, 0)} %`]));
  }
  const top = element("thead");
  const split = place.querySelector(`[data-split="${place.dataset.field}"]`);
  top.append(row([split?.textContent ?? "", box.querySelector("table").dataset.unit, t("Share")], true));
  table.append(top, body);
  const links = element("p", "", "switch");
  const lead = (address, words) => {
    const link = element("a", words);
    const url = new URL(address, location.href);
    url.searchParams.set("from", drawing.at[index]);
    url.searchParams.set("to", drawing.at[index + 1]);
    return [link, url];
  };
  for (const other of place.querySelectorAll("[data-split]")) {
    if (other === split) continue;
    const [link, url] = lead(place.dataset.here, other.textContent);
    url.searchParams.set("by", other.dataset.split);
    link.href = `${url.pathname}${url.search}#use`;
    links.append(link);
  }
  if (place.dataset.requests) {
    const [link, url] = lead(place.dataset.requests, t("Its requests"));
    link.href = url.pathname + url.search;
    links.append(link);
  }
  const shut = element("button", t("Close"), "plain");
  shut.type = "button";
  shut.addEventListener("click", () => { place.hidden = true; });
  links.append(shut);
  place.querySelectorAll(":scope > :not([data-split])").forEach((old) => old.remove());
  if (whole) place.append(heading, table, links);
  else place.append(element("p", t("{label}: nothing was used.", { label: drawing.labels[index] }), "empty"));
  place.hidden = false;
  return drawing.labels.length;
}

function point(chart, index) {
  const active = chart.data.datasets.map((_, datasetIndex) => ({ datasetIndex, index }));
  chart.setActiveElements(active);
  chart.tooltip.setActiveElements(active, { x: 0, y: 0 });
  chart.update("none");
}

// A bar is opened by a click, or with the arrow keys.
function openable(figure, chart) {
  const canvas = figure.querySelector("canvas");
  let at = -1;
  canvas.addEventListener("click", (event) => {
    const [hit] = chart.getElementsAtEventForMode(event, "index", { intersect: false }, false);
    if (hit) open(figure, (at = hit.index));
  });
  canvas.addEventListener("keydown", (event) => {
    const last = chart.data.labels.length - 1;
    const to = { ArrowLeft: at - 1, ArrowRight: at + 1, Home: 0, End: last, Enter: Math.max(at, 0), " ": Math.max(at, 0) }[event.key];
    if (to === undefined) return;
    event.preventDefault();
    at = at < 0 && event.key === "ArrowLeft" ? last : Math.min(last, Math.max(0, to));
    point(chart, at);
    open(figure, at);
  });
}

function draw(figure) {
  const box = document.getElementById(figure.dataset.chart);
  const look = read(box, figure);
  const { kind } = figure.dataset;
  const data = { labels: look.labels, datasets: look.datasets };
  const set = options(kind, "stacked" in figure.dataset, look);
  const type = "stacked" in figure.dataset ? "bar" : "line";
  const there = charts.get(figure);
  if (!there) {
    charts.set(figure, new Chart(figure.querySelector("canvas"), { type, data, options: set }));
    if (look.at) openable(figure, charts.get(figure));
    return;
  }
  there.data = data;
  there.options = set;
  there.update("none");
}

// The first request of an empty page brings a chart whose place is not there yet.
function placeMissing() {
  return [...document.querySelectorAll("[data-drawable]")].some((mark) => !document.getElementById(mark.dataset.drawable));
}

// A chart is drawn when it comes near the window, each in a task of its own, so that a click in between is answered at
// once: the page is painted before the first and after each.
const painted = () => new Promise((next) => requestAnimationFrame(() => setTimeout(next)));
const stale = new Set();
const near = new Set();
let drawing = false;

async function drawNear() {
  if (drawing) return;
  drawing = true;
  for (let figure; (figure = [...stale].find((one) => near.has(one))); ) {
    if (!document.hidden) await painted();
    stale.delete(figure);
    if (figure.isConnected) draw(figure);
  }
  drawing = false;
}

const watcher = new IntersectionObserver(
  (seen) => {
    for (const { target, isIntersecting } of seen) {
      if (isIntersecting) near.add(target);
      else near.delete(target);
    }
    drawNear();
  },
  { rootMargin: "320px" },
);

function drawAll() {
  if (placeMissing()) {
    location.reload();
    return;
  }
  for (const figure of document.querySelectorAll("[data-chart]")) {
    stale.add(figure);
    watcher.observe(figure);
  }
  for (const details of document.querySelectorAll("details:has([data-drawing])")) sheet(details);
  drawNear();
}

// Paper has no window to come near to.
addEventListener("beforeprint", () => {
  for (const figure of stale) if (figure.isConnected) draw(figure);
  stale.clear();
});

// The values of a chart, as they are shown, for a spreadsheet.
function sheet(details) {
  if (details.querySelector("[data-sheet]")) return;
  const button = element("button", t("Download as CSV"), "small");
  Object.assign(button, { type: "button" });
  button.dataset.sheet = "";
  button.addEventListener("click", () => {
    const table = details.querySelector("[data-drawing]");
    const drawing = JSON.parse(table.dataset.drawing);
    const cell = (text) => `"${(/^(?:[\t\r\n]|\s*[=+\-@＝＋－＠])/.test(text) ? `'${text}` : text).replaceAll('"', '""')}"`;
    const lines = [
      [cell(table.tHead.rows[0].cells[0].textContent), ...drawing.lines.map((line) => cell(line.name))],
      ...drawing.labels.map((label, i) => [cell(label), ...drawing.lines.map((line) => line.values[i] ?? "")]),
    ];
    const text = lines.map((line) => line.join(",")).join("\r\n");
    const link = element("a");
    link.href = URL.createObjectURL(new Blob([`\ufeff${text}\r\n`], { type: "text/csv" }));
    link.download = `${details.querySelector("caption").textContent.replace(/[^\p{L}\d]+/gu, "-")}.csv`;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
  });
  details.append(button);
}

drawAll();
document.addEventListener("refreshed", drawAll);
document.addEventListener("themechange", drawAll);
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", drawAll);
