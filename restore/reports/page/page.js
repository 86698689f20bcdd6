// Sorts and filters the tables and drives the viewer. Everything it shows is already in the page.
"use strict";
(() => {
  const byId = (id) => document.getElementById(id);
  const views = JSON.parse(byId("views").textContent);
  const viewer = byId("viewer");
  const frame = byId("frame");
  const stage = byId("stage");
  const picture = byId("picture");
  const slider = byId("slider");
  const crops = byId("crops");
  const images = Object.fromEntries(
    [...picture.querySelectorAll("img")].map((image) => [image.dataset.layer, image]));
  const figures = [...crops.querySelectorAll("figure")];
  const labels = Object.fromEntries(
    figures.map((figure) => [figure.dataset.layer, figure.querySelector("b").textContent]));

  // Region: x, y, w, h in target pixels. Cut: per cent of the width that shows the left layer.
  // Gain: how much brighter errors are shown than they are; 0 shows the images.
  const usual = { left: "baseline", right: "r0" };
  const state = { view: null, chosen: { ...usual }, cut: 50, region: [0, 0, 1, 1], gain: 0 };
  const clamp = (value, low, high) => Math.min(Math.max(value, low), high);
  const calm = () => matchMedia("(prefers-reduced-motion: reduce)").matches;

  // ---- tables ----

  const collator = new Intl.Collator("en", { numeric: true });
  let measure = "psnr";

  // A cell's key: its own, or that of the measure it shows now.
  const keyOf = (cell) => cell.dataset.key ?? cell.querySelector(`.${measure}`).dataset.key;

  // Columns of a sorter, in a head of one or two lines.
  function columnOf(head) {
    const table = head.closest("table");
    const lines = [...table.tHead.rows];
    if (lines.length === 1 || head.rowSpan > 1) return head.cellIndex;
    return [...lines[0].cells].filter((cell) => cell.rowSpan > 1).length + head.cellIndex;
  }

  function sortBy(head) {
    const table = head.closest("table"), body = table.tBodies[0];
    const column = columnOf(head);
    const isText = head.dataset.kind === "text";
    const before = head.getAttribute("aria-sort");
    const up = before ? before === "descending" : isText || head.classList.contains("up");
    const order = (a, b) => {
      if (isText) return (up ? 1 : -1) * collator.compare(a.key, b.key);
      if (a.key === "" || b.key === "") return (a.key === "") - (b.key === "");
      const first = Number(a.key), second = Number(b.key);
      return (up ? 1 : -1) * ((first > second) - (first < second));
    };
    for (const other of table.querySelectorAll(".sorter")) other.removeAttribute("aria-sort");
    head.setAttribute("aria-sort", up ? "ascending" : "descending");
    const rows = [...body.rows].map((row) => ({ row, key: keyOf(row.cells[column]) }));
    body.append(...rows.sort(order).map(({ row }) => row));
  }

  for (const head of document.querySelectorAll(".sorter")) {
    head.addEventListener("click", () => sortBy(head));
  }

  const table = byId("images");
  const body = table && table.tBodies[0];
  const openable = () => [...body.rows].filter((row) => row.dataset.view && !row.hidden);

  function filter() {
    const only = byId("only")?.value ?? "", rule = byId("rule")?.value;
    const named = (byId("named")?.value ?? "").trim().toLowerCase();
    for (const row of body.rows) {
      row.hidden = (only !== "" && row.dataset.set !== only)
        || (rule !== undefined && row.dataset.rule !== rule)
        || !row.cells[0].dataset.key.toLowerCase().includes(named);
    }
    const shown = new Set(openable().map((row) => row.dataset.view));
    for (const thumb of thumbs) thumb.hidden = !shown.has(thumb.dataset.view);
  }

  function showMeasure(name) {
    measure = name;
    for (const part of body.querySelectorAll(".psnr, .ssim")) {
      part.hidden = !part.classList.contains(name);
    }
  }

  // ---- viewer ----

  const strip = byId("strip");
  const thumbs = strip ? [...strip.children] : [];

  function step(by) {
    const rows = openable();
    if (!rows.length) return;
    const at = rows.findIndex((row) => Number(row.dataset.view) === state.view);
    open(Number(rows[(Math.max(at, by < 0 ? 0 : -1) + by + rows.length) % rows.length].dataset.view));
  }

  function reveal() {
    const top = viewer.getBoundingClientRect().top;
    if (top >= 0 && top < innerHeight / 2) return;
    viewer.scrollIntoView({ behavior: calm() ? "auto" : "smooth", block: "start" });
  }

  function mark(parts, index) {
    for (const part of parts) {
      if (Number(part.dataset.view ?? -1) === index) part.setAttribute("aria-current", "true");
      else part.removeAttribute("aria-current");
    }
  }

  function open(index) {
    const view = views[index];
    state.view = index;
    viewer.hidden = false;
    byId("viewer-name").textContent = view.image;
    showFigures();
    mark(body.rows, index);
    mark(thumbs, index);
    const thumb = thumbs[index];
    if (thumb) strip.scrollLeft = thumb.offsetLeft - (strip.clientWidth - thumb.offsetWidth) / 2;
    for (const [layer, file] of Object.entries(view.files)) {
      document.querySelectorAll(`[data-layer="${layer}"]`).forEach((part) => { part.hidden = !file; });
      if (file) images[layer].src = file;
      else images[layer].removeAttribute("src");
      images[layer].alt = `${labels[layer]} of ${view.image}`;
    }
    const there = Object.keys(view.files).filter((layer) => view.files[layer]);
    for (const side of ["left", "right"]) {
      if (!view.files[state.chosen[side]]) state.chosen[side] = usual[side];
      if (!view.files[state.chosen[side]]) state.chosen[side] = there.at(-1);
    }
    byId("show").hidden = !view.files.target;
    if (!view.files.target) showGain(0);
    showLayers();
    layout();
    setRegion(...view.zoom);
  }

  // Scores of the open image under the protocol that the table of images shows.
  function showFigures() {
    const view = views[state.view];
    const rule = byId("rule")?.value ?? Object.keys(view.notes)[0];
    const notes = view.notes[rule];
    const parts = [view.set, `${view.width} × ${view.height}`];
    if (notes) parts.push(notes.gain ? `${rule}: gain ${notes.gain}` : rule);
    byId("viewer-about").textContent = parts.join(" · ");
    for (const figure of figures) {
      figure.querySelector("span").textContent = notes?.[figure.dataset.layer] ?? "";
    }
  }

  function showLayers() {
    const { left, right } = state.chosen;
    for (const [layer, image] of Object.entries(images)) {
      image.classList.toggle("left", layer === left && left !== right);
      image.classList.toggle("right", layer === right);
    }
    for (const side of ["left", "right"]) {
      document.querySelector(`input[name="${side}"][value="${state.chosen[side]}"]`).checked = true;
      byId(`tag-${side}`).textContent = labels[state.chosen[side]];
    }
    setCut(state.cut);
    drawErrors();
  }

  function showGain(gain) {
    state.gain = gain;
    document.querySelector(`input[name="show"][value="${gain}"]`).checked = true;
    byId("scale").hidden = gain === 0;
    byId("scale-end").textContent = gain ? `${Math.round(255 / gain)} of 255` : "";
    crops.dataset.gain = picture.dataset.gain = gain;
    if (state.view === null) return;
    drawErrors();
    drawCrops();
  }

  const ready = (image) => image.complete && image.naturalWidth > 0;

  // |layer − target| of a part of both, on a canvas; the page's filters give it brightness and colour.
  function subtract(brush, part, layer) {
    const { width, height } = views[state.view];
    const [x, y, w, h] = part, target = images.target;
    for (const [image, how] of [[images[layer], "copy"], [target, "difference"]]) {
      if (!ready(image)) return;
      const across = image.naturalWidth / width, down = image.naturalHeight / height;
      brush.imageSmoothingEnabled = false;
      brush.globalCompositeOperation = how;
      brush.drawImage(image, x * across, y * down, w * across, h * down,
        0, 0, brush.canvas.width, brush.canvas.height);
    }
  }

  function drawErrors() {
    const { width, height } = views[state.view];
    for (const side of ["left", "right"]) {
      const canvas = byId(`error-${side}`);
      canvas.hidden = state.gain === 0;
      if (canvas.hidden) continue;
      canvas.width = width;
      canvas.height = height;
      subtract(canvas.getContext("2d"), [0, 0, width, height], state.chosen[side]);
    }
  }

  // As large as fits; from twice its size on by whole numbers, with its pixels left visible.
  function layout() {
    const { width, height } = views[state.view];
    const fit = Math.min(frame.clientWidth / width, Math.max(260, innerHeight * 0.6) / height);
    const scale = fit >= 2 ? Math.floor(fit) : fit;
    stage.style.width = `${width * scale}px`;
    stage.style.aspectRatio = `${width} / ${height}`;
    for (const [layer, image] of Object.entries(images)) {
      const enlarged = width * scale / (image.naturalWidth || width);
      image.classList.toggle("pixelated", layer === "lq" ? enlarged > 1 : enlarged >= 2);
    }
  }

  function setCut(cut) {
    state.cut = clamp(Math.round(cut * 10) / 10, 0, 100);
    stage.style.setProperty("--cut", `${state.cut}%`);
    byId("tag-left").hidden = state.cut < 15;
    byId("tag-right").hidden = state.cut > 85;
    slider.setAttribute("aria-valuenow", Math.round(state.cut));
    const { left, right } = state.chosen;
    slider.setAttribute("aria-valuetext",
      `${Math.round(state.cut)}% ${labels[left]}, the rest ${labels[right]}`);
  }

  // Width left to one crop, in screen pixels.
  function cropPlace() {
    const look = getComputedStyle(crops);
    const shown = figures.filter((figure) => !figure.hidden).length;
    const most = Number(look.getPropertyValue("--columns"));
    const columns = Math.ceil(shown / Math.ceil(shown / most));
    crops.style.gridTemplateColumns = `repeat(${columns}, auto)`;
    const gaps = (columns - 1) * parseFloat(look.columnGap);
    return Math.max(1, Math.floor((crops.clientWidth - gaps) / columns * devicePixelRatio));
  }

  function setRegion(x, y, w, h) {
    const { width, height } = views[state.view];
    w = clamp(Math.round(w), 1, width);
    h = clamp(Math.round(h), 1, height);
    x = clamp(Math.round(x), 0, width - w);
    y = clamp(Math.round(y), 0, height - h);
    state.region = [x, y, w, h];
    const place = { left: x / width, top: y / height, width: w / width, height: h / height };
    for (const [edge, part] of Object.entries(place)) {
      byId("region").style[edge] = `${100 * part}%`;
    }
    drawCrops();
  }

  // The region about the same centre, `by` times as wide, between 8 pixels and half a kilopixel.
  function resizeRegion(by) {
    const { width, height } = views[state.view];
    const [x, y, w, h] = state.region;
    const side = clamp(Math.round(Math.max(w, h) * by), 8, Math.min(512, Math.max(width, height)));
    const times = side / Math.max(w, h);
    const [wide, high] = [Math.min(width, w * times), Math.min(height, h * times)];
    setRegion(x + (w - wide) / 2, y + (h - high) / 2, wide, high);
  }

  // Each target pixel becomes a square of `times` by `times` screen pixels, where there is room.
  function drawCrops() {
    const { width, height } = views[state.view];
    const [x, y, w, h] = state.region;
    const room = cropPlace() / Math.max(w, h);
    const times = room < 1 ? room : Math.floor(room);
    for (const figure of figures.filter((one) => !one.hidden)) {
      const canvas = figure.querySelector("canvas");
      const image = images[figure.dataset.layer];
      canvas.width = Math.max(1, Math.round(w * times));
      canvas.height = Math.max(1, Math.round(h * times));
      figure.style.width = canvas.style.width = `${canvas.width / devicePixelRatio}px`;
      if (!ready(image)) continue;
      const brush = canvas.getContext("2d");
      if (state.gain) {
        subtract(brush, state.region, figure.dataset.layer);
        continue;
      }
      const across = image.naturalWidth / width, down = image.naturalHeight / height;
      brush.imageSmoothingEnabled = false;
      brush.drawImage(image, x * across, y * down, w * across, h * down,
        0, 0, canvas.width, canvas.height);
    }
    byId("where").textContent = `x ${x}, y ${y}, ${w} × ${h} px at ×${Number(times.toFixed(2))}`;
  }

  // ---- hands on the controls ----

  function cutAt(event) {
    const box = stage.getBoundingClientRect();
    setCut(100 * (event.clientX - box.left) / box.width);
  }

  function regionAt(event) {
    const { width, height } = views[state.view];
    const box = picture.getBoundingClientRect();
    const [, , w, h] = state.region;
    setRegion((event.clientX - box.left) / box.width * width - w / 2,
      (event.clientY - box.top) / box.height * height - h / 2, w, h);
  }

  slider.addEventListener("pointerdown", (event) => {
    if (event.button !== 0) return;
    slider.setPointerCapture(event.pointerId);
    slider.focus();
    event.preventDefault();
  });
  slider.addEventListener("pointermove", (event) => {
    if (slider.hasPointerCapture(event.pointerId)) cutAt(event);
  });
  slider.addEventListener("keydown", (event) => {
    const to = {
      ArrowLeft: state.cut - 1, ArrowDown: state.cut - 1, PageDown: state.cut - 10, Home: 0,
      ArrowRight: state.cut + 1, ArrowUp: state.cut + 1, PageUp: state.cut + 10, End: 100,
    }[event.key];
    if (to === undefined) return;
    event.preventDefault();
    setCut(to);
  });

  picture.addEventListener("click", regionAt);
  picture.addEventListener("pointermove", (event) => {
    if (event.pointerType === "mouse" && event.buttons === 1) regionAt(event);
  });
  picture.addEventListener("keydown", (event) => {
    const by = { "+": 1 / 2, "=": 1 / 2, "-": 2, "−": 2 }[event.key];
    if (by && !event.ctrlKey && !event.metaKey) {
      event.preventDefault();
      resizeRegion(by);
    }
    const way = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key];
    if (!way) return;
    event.preventDefault();
    const [x, y, w, h] = state.region;
    const far = event.shiftKey ? 1 : Math.max(1, Math.round(w / 8));
    setRegion(x + far * way[0], y + far * way[1], w, h);
  });

  for (const input of document.querySelectorAll(".choices input")) {
    input.addEventListener("change", () => {
      state.chosen[input.name] = input.value;
      showLayers();
    });
  }
  for (const input of document.querySelectorAll('input[name="show"]')) {
    input.addEventListener("change", () => showGain(Number(input.value)));
  }
  for (const image of Object.values(images)) {
    image.addEventListener("load", () => { layout(); drawCrops(); drawErrors(); });
  }
  byId("previous").addEventListener("click", () => step(-1));
  byId("next").addEventListener("click", () => step(1));
  byId("closer").addEventListener("click", () => resizeRegion(1 / 2));
  byId("farther").addEventListener("click", () => resizeRegion(2));
  for (const thumb of thumbs) {
    thumb.addEventListener("click", () => open(Number(thumb.dataset.view)));
  }
  addEventListener("resize", () => {
    if (state.view === null) return;
    layout();
    setRegion(...state.region);
  });

  if (!table) return;
  body.addEventListener("click", (event) => {
    const row = event.target.closest("tr[data-view]");
    if (!row) return;
    open(Number(row.dataset.view));
    reveal();
  });
  for (const name of ["only", "rule"]) byId(name)?.addEventListener("change", filter);
  byId("rule")?.addEventListener("change", () => state.view !== null && showFigures());
  byId("named")?.addEventListener("input", filter);
  byId("measure").addEventListener("change", (event) => showMeasure(event.target.value));
  const first = openable()[0];
  if (first) open(Number(first.dataset.view));
})();
