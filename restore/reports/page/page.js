// Sorts the table of images and drives the viewer. Everything it shows is already in the page.
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
  const usual = { left: "baseline", right: "restored" };
  const state = { view: null, chosen: { ...usual }, cut: 50, region: [0, 0, 1, 1] };
  const clamp = (value, low, high) => Math.min(Math.max(value, low), high);

  // ---- table ----

  const table = byId("images");
  const body = table && table.tBodies[0];
  const heads = table ? [...table.tHead.rows[0].cells] : [];
  const collator = new Intl.Collator("en", { numeric: true });

  function sortBy(head) {
    const column = heads.indexOf(head);
    const isText = head.dataset.kind === "text";
    const before = head.getAttribute("aria-sort");
    const up = before ? before === "descending" : isText;
    const key = (row) => row.cells[column].dataset.key;
    const order = (a, b) => {
      if (isText) return (up ? 1 : -1) * collator.compare(key(a), key(b));
      if (key(a) === "" || key(b) === "") return (key(a) === "") - (key(b) === "");
      const first = Number(key(a)), second = Number(key(b));
      return (up ? 1 : -1) * ((first > second) - (first < second));
    };
    heads.forEach((other) => other.removeAttribute("aria-sort"));
    head.setAttribute("aria-sort", up ? "ascending" : "descending");
    body.append(...[...body.rows].sort(order));
  }

  const openable = () => [...body.rows].filter((row) => row.dataset.view && !row.hidden);

  function step(by) {
    const rows = openable();
    if (!rows.length) return;
    const at = rows.findIndex((row) => Number(row.dataset.view) === state.view);
    open(Number(rows[(Math.max(at, by < 0 ? 0 : -1) + by + rows.length) % rows.length].dataset.view));
  }

  function reveal() {
    const top = viewer.getBoundingClientRect().top;
    if (top >= 0 && top < innerHeight / 2) return;
    const calm = matchMedia("(prefers-reduced-motion: reduce)").matches;
    viewer.scrollIntoView({ behavior: calm ? "auto" : "smooth", block: "start" });
  }

  // ---- viewer ----

  function open(index) {
    const view = views[index];
    state.view = index;
    viewer.hidden = false;
    byId("viewer-name").textContent = view.image;
    const gain = view.notes.gain ? ` · gain ${view.notes.gain}` : "";
    byId("viewer-about").textContent = `${view.set} · ${view.width} × ${view.height}${gain}`;
    for (const row of body.rows) {
      if (Number(row.dataset.view ?? -1) === index) row.setAttribute("aria-current", "true");
      else row.removeAttribute("aria-current");
    }
    for (const [layer, file] of Object.entries(view.files)) {
      document.querySelectorAll(`[data-layer="${layer}"]`).forEach((part) => { part.hidden = !file; });
      if (file) images[layer].src = file;
      else images[layer].removeAttribute("src");
      images[layer].alt = `${labels[layer]} of ${view.image}`;
    }
    for (const figure of figures) {
      figure.querySelector("span").textContent = view.notes[figure.dataset.layer] ?? "";
    }
    for (const side of ["left", "right"]) {
      if (!view.files[state.chosen[side]]) state.chosen[side] = usual[side];
    }
    showLayers();
    layout();
    setRegion(...view.zoom);
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
    const columns = Math.min(shown, Number(look.getPropertyValue("--columns")));
    const gaps = (columns - 1) * parseFloat(look.columnGap);
    return Math.floor((crops.clientWidth - gaps) / columns * devicePixelRatio);
  }

  function setRegion(x, y, w, h) {
    const { width, height } = views[state.view];
    w = clamp(w, 1, Math.min(width, cropPlace()));
    h = clamp(h, 1, height);
    x = clamp(Math.round(x), 0, width - w);
    y = clamp(Math.round(y), 0, height - h);
    state.region = [x, y, w, h];
    const place = { left: x / width, top: y / height, width: w / width, height: h / height };
    for (const [edge, part] of Object.entries(place)) {
      byId("region").style[edge] = `${100 * part}%`;
    }
    drawCrops();
  }

  // Each target pixel becomes a square of `times` by `times` screen pixels.
  function drawCrops() {
    const { width, height } = views[state.view];
    const [x, y, w, h] = state.region;
    const times = Math.max(1, Math.floor(cropPlace() / Math.max(w, h)));
    for (const figure of figures.filter((one) => !one.hidden)) {
      const canvas = figure.querySelector("canvas");
      const image = images[figure.dataset.layer];
      canvas.width = w * times;
      canvas.height = h * times;
      figure.style.width = canvas.style.width = `${w * times / devicePixelRatio}px`;
      if (!image.complete || !image.naturalWidth) continue;
      const across = image.naturalWidth / width, down = image.naturalHeight / height;
      const brush = canvas.getContext("2d");
      brush.imageSmoothingEnabled = false;
      brush.drawImage(image, x * across, y * down, w * across, h * down,
        0, 0, canvas.width, canvas.height);
    }
    byId("where").textContent = `x ${x}, y ${y}, ${w} × ${h} px at ×${times}`;
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
    const way = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key];
    if (!way) return;
    event.preventDefault();
    const [x, y, w, h] = state.region;
    const far = event.shiftKey ? 1 : Math.max(1, Math.round(w / 8));
    setRegion(x + far * way[0], y + far * way[1], w, h);
  });

  for (const input of document.querySelectorAll(".segments input")) {
    input.addEventListener("change", () => {
      state.chosen[input.name] = input.value;
      showLayers();
    });
  }
  for (const image of Object.values(images)) {
    image.addEventListener("load", () => { layout(); drawCrops(); });
  }
  byId("previous").addEventListener("click", () => step(-1));
  byId("next").addEventListener("click", () => step(1));
  addEventListener("resize", () => {
    if (state.view === null) return;
    layout();
    setRegion(...state.region);
  });

  if (!table) return;
  for (const head of heads) head.addEventListener("click", () => sortBy(head));
  body.addEventListener("click", (event) => {
    const row = event.target.closest("tr[data-view]");
    if (!row) return;
    open(Number(row.dataset.view));
    reveal();
  });
  byId("only")?.addEventListener("change", (event) => {
    const name = event.target.value;
    for (const row of body.rows) row.hidden = name !== "" && row.dataset.set !== name;
  });
  const first = openable()[0];
  if (first) open(Number(first.dataset.view));
})();
