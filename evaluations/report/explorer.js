"use strict";
// What moves in a report. Text of data is only ever set as text, and nothing is loaded.
(() => {
const root = document.documentElement;
root.classList.add("js");

const make = (name, attributes = {}, ...children) => {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(attributes))
    if (key.startsWith("on")) element.addEventListener(key.slice(2), value);
    else if (value !== false) element.setAttribute(key, value === true ? "" : value);
  element.append(...children);
  return element;
};
const minus = text => String(text).replace("-", "\u2212");
const nats = (value, digits = 2) => minus(value.toFixed(digits));
const signed = value => (value >= 0 ? "+" : "\u2212") + Math.abs(value).toFixed(2);

function save(name, type, text) {
  const url = URL.createObjectURL(new Blob([text], {type}));
  make("a", {href: url, download: name}).click();
  setTimeout(() => URL.revokeObjectURL(url), 1000);
}

// Tables: sorted by a click, as numbers where all cells are, and as CSV.
const cells = row => [...row.cells].map(cell => (cell.dataset.text ?? cell.textContent).replaceAll("\u00a0", " ").replaceAll("\u2212", "-"));
function csv(table) {
  const quoted = text => `"${(/^[=@\t]|^[+-](?![\d.])/.test(text) ? "'" + text : text).replaceAll('"', '""')}"`;
  return [...table.rows].map(row => cells(row).map(quoted).join(",")).join("\r\n") + "\r\n";
}
for (const table of document.querySelectorAll("table")) {
  const body = table.tBodies[0], heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, column) => {
    const name = head.textContent;
    head.dataset.text = name;
    head.replaceChildren(make("button", {type: "button", onclick: () => {
      const up = head.getAttribute("aria-sort") !== "ascending";
      const key = row => cells(row)[column];
      const number = text => parseFloat(text.replace(/^\+/, ""));
      const rows = [...body.rows].sort((a, b) => {
        const [x, y] = [number(key(a)), number(key(b))];
        if (isNaN(x) !== isNaN(y)) return isNaN(x) ? 1 : -1; // what has no number comes last, both ways
        const order = isNaN(x) ? key(a).localeCompare(key(b), "en", {numeric: true}) : x - y;
        return up ? order : -order;
      });
      heads.forEach(other => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", up ? "ascending" : "descending");
      body.append(...rows);
    }}, name));
  });
  const name = (table.caption?.textContent || "table").toLowerCase().replace(/[^a-z0-9]+/g, "-").slice(0, 50);
  table.parentNode.after(make("button", {type: "button", class: "csv", onclick: () => save(`${name}.csv`, "text/csv", csv(table))}, "CSV"));
}

// The head: light and dark, and all numbers.
const dark = () => (root.dataset.theme ?? (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light")) === "dark";
const everything = () => ({
  ...JSON.parse(document.getElementById("numbers").textContent),
  tables: [...document.querySelectorAll("table")].map(table => ({
    caption: table.caption?.textContent, rows: [...table.rows].map(cells),
  })),
});
document.querySelector("header").append(make("div", {class: "tools"},
  make("button", {type: "button", onclick: () => save("report.json", "application/json", JSON.stringify(everything(), null, 1))}, "All numbers, JSON"),
  make("button", {type: "button", onclick: () => { root.dataset.theme = dark() ? "light" : "dark"; }}, "Light or dark")));

document.querySelector("nav details").open = innerWidth > 700;

// Images of a grid: larger by a click.
const zoomed = make("dialog", {onclick: () => zoomed.close()});
document.body.append(zoomed);
for (const image of document.querySelectorAll("img.pixelated")) {
  const open = () => {
    zoomed.replaceChildren(make("img", {src: image.src, alt: image.alt}), make("p", {}, image.alt));
    zoomed.showModal();
  };
  image.tabIndex = 0;
  image.addEventListener("click", open);
  image.addEventListener("keydown", event => { if (event.key === "Enter") open(); });
}

// Information maps.
function bytes(text) {
  return Uint8Array.from(atob(text), letter => letter.charCodeAt(0));
}
function explorer(place) {
  const data = JSON.parse(place.querySelector("script").textContent);
  const {height: H, width: W, count: N, layers, channels: C} = data, size = H * W;
  const pixels = data.images ? bytes(data.images) : null;
  for (const layer of layers) {
    const raw = new DataView(bytes(layer.map).buffer);
    layer.values = Float32Array.from({length: N * size}, (_, k) => raw.getInt16(2 * k, true) * layer.step);
    const mean = new DataView(bytes(layer.mean).buffer);
    layer.average = Float32Array.from({length: size}, (_, k) => mean.getFloat32(4 * k, true));
    layer.limit = quantile(layer.values, 0.995);
    layer.averageLimit = Math.max(...layer.average.map(Math.abs)) || 1;
  }
  function quantile(values, share) {
    const sorted = values.map(Math.abs).sort();
    return sorted[Math.floor(share * (sorted.length - 1))] || 1;
  }
  const state = {at: 0, order: [...Array(N).keys()], pixel: null, shown: size, timer: null};
  const select = make("select", {onchange: reorder}, make("option", {value: "seeded"}, "in the order of the test"));
  layers.forEach((layer, k) => {
    select.append(make("option", {value: `${k} down`}, `most nats of ${layer.name} first`),
      make("option", {value: `${k} up`}, `fewest nats of ${layer.name} first`));
  });
  const slider = make("input", {type: "range", min: 0, max: N - 1, value: 0, "aria-label": "test image", oninput: () => go(+slider.value)});
  const shared = make("input", {type: "checkbox", checked: true, onchange: draw});
  const over = make("input", {type: "checkbox", checked: true, onchange: draw});
  const average = make("input", {type: "checkbox", onchange: () => { stop(); draw(); }});
  const play = make("button", {type: "button", onclick: () => state.timer ? (stop(), draw()) : start()}, "▶ In raster order");
  const title = make("span"), readout = make("output", {class: "readout"}), scale = make("span", {class: "scale"});
  const bench = make("div", {class: "bench"});
  const panels = [null, ...layers].filter((layer, k) => k || pixels).map(layer => {
    const canvas = make("canvas", {width: W, height: H, tabindex: 0, role: "img"}), told = make("span", {}, "\u00a0");
    canvas.addEventListener("pointermove", event => {
      const box = canvas.getBoundingClientRect();
      point(Math.floor((event.clientY - box.top) / box.height * H), Math.floor((event.clientX - box.left) / box.width * W));
    });
    canvas.addEventListener("pointerleave", () => { state.pixel = null; draw(); });
    canvas.addEventListener("keydown", event => {
      const step = {ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1]}[event.key];
      if (!step) return;
      event.preventDefault();
      const [row, column] = state.pixel ?? [Math.floor(H / 2), Math.floor(W / 2)];
      point(row + step[0], column + step[1]);
    });
    const ends = make("span", {class: "scale"});
    bench.append(make("div", {}, make("h3", {}, layer ? layer.name : "input", told), canvas, ends));
    return {layer, canvas, told, ends};
  });
  place.append(
    make("div", {class: "controls"}, make("label", {}, "Images ", select),
      make("div", {class: "slide"},
        make("button", {type: "button", "aria-label": "image before", onclick: () => go(state.at - 1)}, "‹"), slider,
        make("button", {type: "button", "aria-label": "image after", onclick: () => go(state.at + 1)}, "›")),
      title),
    bench, readout,
    make("div", {class: "controls"}, play, make("label", {}, shared, "one scale for all layers"),
      make("label", {}, over, "over the picture"), make("label", {}, average, `mean of all ${data.total} test images`), scale),
    make("p", {class: "scale"}, data.told));

  function point(row, column) {
    state.pixel = [Math.min(Math.max(row, 0), H - 1), Math.min(Math.max(column, 0), W - 1)];
    draw();
  }
  function go(at) {
    stop();
    average.checked = false;
    state.at = Math.min(Math.max(at, 0), N - 1);
    slider.value = state.at;
    draw();
  }
  function reorder() {
    const [k, way] = select.value.split(" "), order = [...Array(N).keys()];
    if (way) order.sort((a, b) => (layers[k].sums[a] - layers[k].sums[b]) * (way === "up" ? 1 : -1));
    state.order = order;
    go(0);
  }
  function start() {
    const began = performance.now(), long = 6000;
    state.shown = 0;
    play.textContent = "■ Stop";
    const tick = now => {
      state.shown = Math.min(size, Math.floor((now - began) / long * size));
      if (state.shown === size) stop();
      draw();
      if (state.timer) state.timer = requestAnimationFrame(tick);
    };
    state.timer = requestAnimationFrame(tick);
  }
  function stop() {
    if (state.timer) cancelAnimationFrame(state.timer);
    state.timer = null;
    state.shown = size;
    play.textContent = "▶ In raster order";
  }
  const grey = (image, k) => { // luminance of a pixel, 0 to 255
    const at = c => pixels[(image * C + c) * size + k];
    return C === 1 ? at(0) : 0.299 * at(0) + 0.587 * at(1) + 0.114 * at(2);
  };
  function draw() {
    const image = state.order[state.at], mean = average.checked, behind = pixels && over.checked && !mean && image < data.pictures;
    const of = layer => mean ? layer.average : layer.values.subarray(image * size, (image + 1) * size);
    const limits = layers.map(layer => mean ? layer.averageLimit : layer.limit), widest = Math.max(...limits);
    const which = mean ? `mean of ${data.total} images` : `image ${state.at + 1} of ${N}, number ${data.index[image]} in its data set`;
    title.textContent = which;
    slider.setAttribute("aria-valuetext", which);
    for (const {layer, canvas, told, ends} of panels) {
      const context = canvas.getContext("2d"), drawn = context.createImageData(W, H);
      const values = layer && of(layer), limit = shared.checked ? widest : layer && limits[layers.indexOf(layer)];
      for (let k = 0; k < size; k++) {
        let colour;
        if (!layer) {
          const at = c => mean || image >= data.pictures ? 235 : pixels[(image * C + (C === 1 ? 0 : c)) * size + k];
          colour = [at(0), at(1), at(2)];
          if (k >= state.shown) colour = colour.map(c => 0.25 * c + 150);
        } else {
          const share = k < state.shown ? Math.min(Math.abs(values[k]) / limit, 1) : 0;
          const base = behind ? 255 - 0.22 * grey(image, k) : 255; // dark on light: ink where the picture is bright
          colour = (values[k] > 0 ? [178, 24, 43] : [5, 80, 174]).map(c => base + share * (c - base));
        }
        if (state.pixel && (k === state.pixel[0] * W + state.pixel[1])) colour = [255, 190, 0];
        drawn.data.set([...colour, 255], 4 * k);
      }
      context.putImageData(drawn, 0, 0);
      if (!layer) { canvas.setAttribute("aria-label", which); continue; }
      let sum = 0;
      if (state.shown < size) for (let k = 0; k < state.shown; k++) sum += values[k];
      const all = mean ? layer.nats : layer.sums[image];
      told.textContent = state.shown < size ? `${nats(sum, 1)} of ${nats(all, 1)} nats` : `${nats(all)} nats`;
      canvas.setAttribute("aria-label", `${layer.name}: ${told.textContent}, ${which}`);
      ends.replaceChildren(`\u2212${limit.toPrecision(2)}`, make("i", {style: "flex:1;min-width:1.5rem"}), `+${limit.toPrecision(2)}`);
    }
    if (state.pixel) {
      const [row, column] = state.pixel, k = row * W + column;
      const told = layers.map(layer => `${layer.name} ${mean ? signed3(of(layer)[k]) : signed(of(layer)[k])}`);
      readout.textContent = `row ${row + 1}, column ${column + 1}: ${told.join(", ")} nats`;
    } else readout.textContent = "Point at a pixel to read its nats.";
  }
  const signed3 = value => (value >= 0 ? "+" : "\u2212") + Math.abs(value).toFixed(3);
  place.hidden = false;
  draw();
}
for (const place of document.querySelectorAll(".explorer")) explorer(place);
root.dataset.ready = "";
})();
