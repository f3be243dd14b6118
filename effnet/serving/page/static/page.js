// The page of `effnet serve`: one module, no dependencies. Text from the server becomes text nodes, never HTML.

const $ = (selector, root = document) => root.querySelector(selector);
const all = (selector, root = document) => [...root.querySelectorAll(selector)];
const main = () => $("main");
const SVG = "http://www.w3.org/2000/svg";

function make(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.append(...children);
  return made;
}

const say = (text) => { $("#said").textContent = text; };
const percent = (share) => {
  if (share > 0 && share < 0.001) return "< 0.1 %";
  return `${share < 0.0995 || (share >= 0.995 && share < 0.9995) ? (100 * share).toFixed(1) : Math.round(100 * share)} %`;
};
const headers = (more = {}) => {
  const key = sessionStorage.getItem("key");
  return key ? { authorization: `Bearer ${key}`, ...more } : more;
};

async function ask(path, options = {}) {
  const response = await fetch(path, { ...options, headers: headers(options.headers) });
  if (response.ok) return response;
  const data = await response.json().catch(() => ({}));
  throw Object.assign(new Error(data.error || `The server answered ${response.status}.`), { response });
}

// A document is parsed by XMLHttpRequest: it is no sink of HTML, so the policy of trusted types stays whole.
function load(address) {
  return new Promise((resolve, reject) => {
    const request = new XMLHttpRequest();
    request.open("GET", address);
    request.responseType = "document";
    for (const [name, value] of Object.entries(headers({ accept: "text/html" }))) request.setRequestHeader(name, value);
    request.onload = () => resolve(request);
    request.onerror = () => reject(new Error("The server does not answer."));
    request.send();
  });
}

async function swap(address, selector, { keep = false } = {}) {
  const request = await load(address);
  const fresh = request.response && $(selector, request.response);
  const old = $(selector);
  if (!fresh || !old) return location.assign(address);
  const focused = old.contains(document.activeElement) || selector === "main";
  old.replaceWith(document.adoptNode(fresh));
  if (!keep) history.replaceState(null, "", address);
  if (focused && !keep) fresh.focus({ preventScroll: true });
  if (selector === "main") begin();
  else images(fresh);
  return fresh;
}

// Images behind a key cannot be loaded by an element, which sends no key.
function images(root) {
  for (const image of all("img", root)) {
    const settle = () => image.classList.toggle("small", image.naturalWidth > 0 && image.naturalWidth < 100);
    const lost = () => image.replaceWith(make("span", { class: "lost" }, image.alt || "not readable"));
    image.addEventListener("load", settle);
    image.addEventListener("error", lost);
    if (image.complete && image.naturalWidth) settle();
    if (image.dataset.src) seen.observe(image);
  }
}

const seen = new IntersectionObserver((entries) => {
  for (const { isIntersecting, target } of entries) {
    if (!isIntersecting) continue;
    seen.unobserve(target);
    ask(target.dataset.src).then((response) => response.blob()).then((blob) => {
      const address = URL.createObjectURL(blob);
      target.addEventListener("load", () => URL.revokeObjectURL(address), { once: true });
      target.src = address;
    }).catch(() => target.dispatchEvent(new Event("error")));
  }
}, { rootMargin: "300px" });

let polling = 0;
function poll() {
  clearTimeout(polling);
  const selector = main().dataset.poll;
  if (!selector) return;
  polling = setTimeout(async () => {
    try {
      if (document.hidden) return;
      const request = await load(location.href);
      const fresh = request.response && $("main", request.response);
      if (!fresh) return;
      if (selector === "main") { await swap(location.href, "main", { keep: true }); return; }
      const old = $(selector);
      const part = $(selector, fresh);
      if (old && part && !old.contains(document.activeElement)) old.replaceWith(document.adoptNode(part));
      if (fresh.dataset.poll) main().dataset.poll = fresh.dataset.poll; else delete main().dataset.poll;
    } catch { /* the next try may find the server again */ } finally { poll(); }
  }, 2000);
}

// ---- the key -------------------------------------------------------------------------------------------------------

async function keyView() {
  const form = $("#key");
  const open = async () => {
    if (!sessionStorage.getItem("key")) return false;
    const request = await load(location.href);
    if (request.status === 401) { sessionStorage.removeItem("key"); return false; }
    main().replaceWith(document.adoptNode($("main", request.response)));
    begin();
    return true;
  };
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    sessionStorage.setItem("key", $("#secret").value.trim());
    if (!(await open())) { $("#wrong").hidden = false; $("#secret").select(); }
  });
  if (!(await open())) { form.hidden = false; $("#secret").focus(); }
}

// ---- try -----------------------------------------------------------------------------------------------------------

const ACCEPTED = ["image/jpeg", "image/png", "image/webp"];
let stream = null;
let last = null;
let turn = 0;

function tryView() {
  const file = $("#file");
  $("#address").textContent = location.origin;
  file.addEventListener("change", () => { if (file.files[0]) send(file.files[0]); file.value = ""; });
  $("#camera").addEventListener("click", () => (stream ? stop() : camera()));
  $("#heaton").addEventListener("change", () => drawHeat());
  $("#heatof").addEventListener("change", () => drawHeat());
  $("#drop").addEventListener("click", () => file.click());
  $("#heatbox").hidden = main().dataset.heat !== "1";
  last = null;
}

async function send(blob) {
  if (!/^image\//.test(blob.type)) { refuse(new Error(`An image is needed; got ${blob.type || "a file of no known type"}.`)); return; }
  stop();
  const mine = ++turn;
  try {
    const small = await acceptable(blob);
    await show(small);
    await answer(small, mine);
  } catch (error) { if (mine === turn) refuse(error); }
}

// What the server does not take, the browser converts: other formats, and photographs above a limit.
async function acceptable(blob) {
  const { most, pixels } = main().dataset;
  const bitmap = await createImageBitmap(blob).catch(() => null);
  if (!bitmap) {
    if (ACCEPTED.includes(blob.type)) return blob; // the server says what is wrong with it
    throw new Error("This browser cannot read that image. Save it as JPEG, PNG or WebP.");
  }
  const area = bitmap.width * bitmap.height;
  if (ACCEPTED.includes(blob.type) && blob.size <= most && area <= pixels) return blob;
  const scale = Math.min(1, 2048 / Math.max(bitmap.width, bitmap.height));
  const canvas = make("canvas", { width: Math.round(bitmap.width * scale), height: Math.round(bitmap.height * scale) });
  canvas.getContext("2d").drawImage(bitmap, 0, 0, canvas.width, canvas.height);
  return new Promise((resolve) => canvas.toBlob(resolve, "image/jpeg", 0.92));
}

async function show(blob) {
  const image = $("#image");
  const address = URL.createObjectURL(blob);
  await new Promise((resolve) => {
    image.onload = image.onerror = resolve;
    image.src = address;
  });
  URL.revokeObjectURL(address);
  image.classList.toggle("small", image.naturalWidth > 0 && image.naturalWidth < 100);
  image.hidden = false;
  $("#video").hidden = true;
  $("#drop").hidden = true;
  $("#shown").hidden = false;
  clear();
}

function clear() {
  for (const id of ["#over", "#heat"]) {
    const canvas = $(id);
    canvas.width = canvas.height = 0;
  }
  $("#heat").hidden = true;
  $("#heatof").hidden = true;
  $("#image").classList.remove("grey");
}

async function answer(blob, mine) {
  const { kind, model, heat } = main().dataset;
  const query = new URLSearchParams({ model });
  if (heat === "1" && !stream) query.set("heatmap", "1");
  if (kind === "segmentation") query.set("mask", "rle");
  const begun = performance.now();
  const response = await ask(`/predict?${query}`, { method: "POST", body: blob, headers: { "content-type": blob.type } });
  const data = await response.json();
  if (mine !== turn) return;
  render(data, performance.now() - begun);
}

function refuse(error) {
  if (error.response && error.response.status === 401) { sessionStorage.removeItem("key"); location.reload(); return; }
  stop();
  $("#result").replaceChildren(make("p", { class: "bad", role: "alert" }, error.message));
}

function render(data, whole) {
  const parts = [];
  if (data.predictions) parts.push(...classes(data));
  else if (data.outputs) parts.push(...outputs(data.outputs));
  else if (data.objects) parts.push(...objects(data));
  else if (data.shares) parts.push(...shares(data));
  else if (data.embedding) parts.push(...embedding(data));
  const times = data.time_ms;
  const names = [["queue", "waited"], ["decode", "decoded"], ["run", "model"]];
  const row = names.map(([name, word]) => make("div", {}, make("dt", {}, word), make("dd", {}, `${times[name].toFixed(1)} ms`)));
  row.push(make("div", {}, make("dt", {}, "round trip"), make("dd", {}, `${whole.toFixed(0)} ms`)));
  parts.push(make("dl", { class: "times" }, ...row));
  $("#result").replaceChildren(...parts);
  $("#result").dataset.done = Number($("#result").dataset.done || 0) + 1;
  last = data;
  if (data.heatmap) heats(data.heatmap);
}

function bars(rows, { colours = {} } = {}) {
  return make("ul", { class: "bars" }, ...rows.map(({ name, share, text, on = true }) => {
    const bar = document.createElementNS(SVG, "svg");
    const rect = document.createElementNS(SVG, "rect");
    for (const [key, value] of Object.entries({ class: "bar", viewBox: "0 0 100 6", preserveAspectRatio: "none", "aria-hidden": "true" })) bar.setAttribute(key, value);
    rect.setAttribute("width", Math.max(0, Math.min(100, 100 * share)));
    rect.setAttribute("height", "6");
    if (colours[name]) rect.style.fill = colours[name];
    bar.append(rect);
    return make("li", on ? {} : { class: "off" }, make("span", { class: "name" }, name), make("span", { class: "share" }, text ?? percent(share)), bar);
  }));
}

function classes(data) {
  const [first] = data.predictions;
  const head = data.known
    ? make("p", { class: "answer" }, first.label)
    : make("p", { class: "answer unknown" }, "unknown");
  const found = [head];
  if (!data.known) found.push(make("p", { class: "quiet" }, `Nearest is ${first.label}, below the model's threshold.`));
  found.push(bars(data.predictions.map(({ label, probability }) => ({ name: label, share: probability }))));
  if (data.parents) found.push(make("h3", {}, "Groups"), bars(Object.entries(data.parents).map(([name, share]) => ({ name, share }))));
  return found;
}

function outputs(given) {
  return Object.entries(given).flatMap(([name, found]) => {
    const title = make("h3", {}, name);
    if (typeof found === "number") return [title, make("p", { class: "answer" }, Number(found.toPrecision(4)).toString())];
    if (found.tags) {
      const rows = Object.entries(found.probabilities).sort((a, b) => b[1] - a[1]).slice(0, 8);
      return [title, bars(rows.map(([tag, share]) => ({ name: tag, share, on: found.tags.includes(tag) })))];
    }
    const head = found.known ? [] : [make("p", { class: "quiet" }, "unknown: below the threshold")];
    return [title, ...head, bars(found.predictions.map(({ label, probability }) => ({ name: label, share: probability, on: found.known })))];
  });
}

const palette = () => JSON.parse(main().dataset.colours);

function objects(data) {
  const colours = palette();
  const canvas = $("#over");
  const scale = Math.max(1, 900 / Math.max(data.width, data.height));
  canvas.width = Math.round(data.width * scale);
  canvas.height = Math.round(data.height * scale);
  const pen = canvas.getContext("2d");
  const size = Math.max(canvas.width, canvas.height) / 40;
  pen.font = `600 ${size}px system-ui, sans-serif`;
  pen.textBaseline = "top";
  for (const { label, score, box } of [...data.objects].reverse()) {
    const [left, top, right, bottom] = box.map((side) => side * scale);
    const colour = colours[label] || "#0072b2";
    pen.lineWidth = size / 6 + 3;
    pen.strokeStyle = "rgb(0 0 0 / .55)";
    pen.strokeRect(left, top, right - left, bottom - top);
    pen.lineWidth = size / 6;
    pen.strokeStyle = colour;
    pen.strokeRect(left, top, right - left, bottom - top);
    const text = `${label} ${percent(score)}`;
    const width = pen.measureText(text).width + size / 2;
    const above = Math.max(0, top - size * 1.3);
    pen.fillStyle = "rgb(0 0 0 / .72)";
    pen.fillRect(left, above, width, size * 1.3);
    pen.fillStyle = "#fff";
    pen.fillText(text, left + size / 4, above + size * 0.15);
  }
  const counts = {};
  for (const { label } of data.objects) counts[label] = (counts[label] || 0) + 1;
  const words = Object.entries(counts).map(([label, count]) => `${count} × ${label}`).join(", ");
  const shown = data.objects.slice(0, 12);
  return [
    make("p", { class: "answer" }, words || "no object"),
    bars(shown.map(({ label, score }) => ({ name: label, share: score })), { colours }),
    ...(data.objects.length > shown.length ? [make("p", { class: "quiet" }, `and ${data.objects.length - shown.length} more`)] : []),
  ];
}

// Source: pycocotools, rleFrString: 5 bits a character, differences from the run before the last.
function runsOf(text) {
  const runs = [];
  for (let place = 0; place < text.length;) {
    let value = 0;
    let shift = 0;
    let more = true;
    while (more) {
      const code = text.charCodeAt(place++) - 48;
      value |= (code & 31) << shift;
      more = (code & 32) !== 0;
      shift += 5;
      if (!more && (code & 16)) value |= -1 << shift;
    }
    runs.push(runs.length > 2 ? value + runs[runs.length - 2] : value);
  }
  return runs;
}

function shares(data) {
  const colours = palette();
  const canvas = $("#over");
  const pen = canvas.getContext("2d");
  canvas.width = data.width;
  canvas.height = data.height;
  const pixels = pen.createImageData(data.width, data.height);
  for (const { label, size: [height, width], counts } of data.mask || []) {
    if (!colours[label]) continue; // the background
    const rgb = [1, 3, 5].map((at) => parseInt(colours[label].slice(at, at + 2), 16));
    let place = 0;
    runsOf(counts).forEach((run, number) => {
      // Runs go down the columns; every second one is of the class.
      for (const end = place + run; place < end; place++) {
        if (number % 2 === 0) continue;
        const at = 4 * ((place % height) * width + Math.floor(place / height));
        pixels.data.set([...rgb, 150], at);
      }
    });
  }
  pen.putImageData(pixels, 0, 0);
  const rows = Object.entries(data.shares).sort((a, b) => b[1] - a[1]);
  return [make("p", { class: "answer" }, rows.length ? `mostly ${rows[0][0]}` : "nothing"), bars(rows.map(([name, share]) => ({ name, share })), { colours })];
}

function embedding(data) {
  const length = (values) => Math.hypot(...values);
  const parts = [make("p", { class: "answer" }, `${data.embedding.length} numbers`)];
  if (last && last.embedding && last.embedding.length === data.embedding.length) {
    const dot = data.embedding.reduce((sum, value, place) => sum + value * last.embedding[place], 0);
    const cosine = dot / (length(data.embedding) * length(last.embedding) || 1);
    parts.push(make("p", {}, "Similarity to the image before: ", make("strong", {}, cosine.toFixed(3)), " (cosine, 1 is the same)"));
  } else parts.push(make("p", { class: "quiet" }, "Try a second image: it is compared with this one."));
  return parts;
}

// ---- heat maps -----------------------------------------------------------------------------------------------------

let heat = null;

function heats(given) {
  heat = given;
  const choice = $("#heatof");
  choice.replaceChildren(...given.maps.map(({ output, of, value }, place) => make("option", { value: place }, `${output && output !== of ? `${output}: ` : ""}${of} (${value})`)));
  drawHeat();
}

function drawHeat() {
  const canvas = $("#heat");
  const image = $("#image");
  const on = $("#heaton").checked && heat && !stream;
  $("#heatof").hidden = !on || heat.maps.length < 2;
  canvas.hidden = !on;
  image.classList.toggle("grey", Boolean(on));
  if (!on || !image.naturalWidth) return;
  const { map } = heat.maps[Number($("#heatof").value) || 0];
  const small = make("canvas", { width: map[0].length, height: map.length });
  const dots = small.getContext("2d");
  const pixels = dots.createImageData(small.width, small.height);
  // Vermillion speaks for the answer, blue against it: as in `effnet explain`.
  map.flat().forEach((value, place) => pixels.data.set([...(value > 0 ? [213, 94, 0] : [0, 114, 178]), Math.round(184 * Math.abs(value))], 4 * place));
  dots.putImageData(pixels, 0, 0);
  const scale = Math.min(1, 900 / Math.max(image.naturalWidth, image.naturalHeight)) * (image.naturalWidth < 200 ? 4 : 1);
  const [width, height] = [image.naturalWidth, image.naturalHeight];
  canvas.width = Math.round(width * scale);
  canvas.height = Math.round(height * scale);
  const { mode, share } = heat.view;
  const shorter = share * Math.min(width, height);
  const [across, down] = mode === "squash" ? [share * width, share * height] : mode === "pad" ? [Math.max(width, height), Math.max(width, height)] : [shorter, shorter];
  const pen = canvas.getContext("2d");
  pen.imageSmoothingQuality = "high";
  const view = [((width - across) / 2) * scale, ((height - down) / 2) * scale, across * scale, down * scale];
  pen.drawImage(small, ...view);
  // What is outside, the network does not see.
  pen.setLineDash([6, 5]);
  pen.strokeStyle = "rgb(255 255 255 / .8)";
  pen.lineWidth = 1.5;
  pen.strokeRect(...view);
}

// ---- the camera ----------------------------------------------------------------------------------------------------

const FRAMES_A_SECOND = 5;

async function camera() {
  if (!navigator.mediaDevices) { refuse(new Error("A browser gives the camera only to https and to localhost; this address is neither.")); return; }
  try {
    stream = await navigator.mediaDevices.getUserMedia({ video: { facingMode: "environment", width: { ideal: 1280 } } });
  } catch (error) {
    refuse(new Error(error.name === "NotAllowedError" ? "The browser may not use the camera: allow it beside the address." : "There is no camera that can be used."));
    return;
  }
  const video = $("#video");
  clear();
  video.srcObject = stream;
  await video.play();
  video.hidden = false;
  $("#image").hidden = true;
  $("#drop").hidden = true;
  $("#shown").hidden = false;
  $("#camera").setAttribute("aria-pressed", "true");
  $("#camera").textContent = "Stop";
  const mine = ++turn;
  const canvas = make("canvas");
  while (stream && mine === turn) {
    const begun = performance.now();
    if (!document.hidden) await frame(video, canvas, mine);
    await new Promise((resolve) => setTimeout(resolve, Math.max(0, 1000 / FRAMES_A_SECOND - (performance.now() - begun))));
  }
}

async function frame(video, canvas, mine) {
  const scale = Math.min(1, 640 / video.videoWidth);
  canvas.width = Math.round(video.videoWidth * scale);
  canvas.height = Math.round(video.videoHeight * scale);
  canvas.getContext("2d").drawImage(video, 0, 0, canvas.width, canvas.height);
  const blob = await new Promise((resolve) => canvas.toBlob(resolve, "image/jpeg", 0.85));
  if (!blob) return;
  try {
    await answer(blob, mine);
  } catch (error) {
    // A busy server refuses a frame; the next may be answered.
    if (mine === turn && !(error.response && error.response.status === 503)) refuse(error);
  }
}

function stop() {
  turn++;
  if (!stream) return;
  for (const track of stream.getTracks()) track.stop();
  stream = null;
  const button = $("#camera");
  if (!button) return;
  $("#video").srcObject = null;
  $("#video").hidden = true;
  clear();
  button.setAttribute("aria-pressed", "false");
  button.textContent = "Webcam";
  if (!$("#image").src || $("#image").hidden) { $("#shown").hidden = true; $("#drop").hidden = false; }
}

// ---- review --------------------------------------------------------------------------------------------------------

let deciding = false;

async function decide(data, words) {
  if (deciding) return;
  deciding = true;
  try {
    const response = await ask("/review/decide", { method: "POST", body: JSON.stringify(data), headers: { "content-type": "application/json" } });
    const { image } = await response.json();
    const order = encodeURIComponent(main().dataset.order);
    const back = data.undo && image !== null ? `&image=${image}` : "";
    await swap(`/review?order=${order}${back}`, "main");
    say(data.undo ? (image === null ? "Nothing to undo." : "Taken back.") : words);
  } catch (error) { say(error.message); } finally { deciding = false; }
}

const chosen = (element) => {
  const number = element.dataset.class;
  decide({ image: Number(element.dataset.image), class: number === "" ? null : Number(number) }, number === "" ? "Left out." : "Saved.");
};

// ---- everything ----------------------------------------------------------------------------------------------------

document.addEventListener("click", async (event) => {
  const link = event.target.closest("a[data-swap]");
  if (link && !event.ctrlKey && !event.metaKey && !event.shiftKey) {
    event.preventDefault();
    const href = link.getAttribute("href"); // of an SVG link, href is no text
    for (const other of all(".open")) other.classList.remove("open");
    (link.closest("td") || link).classList.add("open");
    await swap(href, link.dataset.swap).catch((error) => say(error.message));
    return;
  }
  const button = event.target.closest("button[data-image]");
  if (button) chosen(button);
  if (event.target.closest("[data-undo]")) decide({ undo: true });
});

document.addEventListener("change", (event) => {
  if (event.target.id !== "pick") return;
  const option = all("#classes option").find((each) => each.value === event.target.value);
  if (!option) { say("No class has this name."); return; }
  decide({ image: Number(event.target.dataset.image), class: Number(option.dataset.class) }, "Saved.");
});

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.repeat) return;
  const typing = event.target.matches("input, select, textarea");
  if (typing) { if (event.key === "Escape") event.target.blur(); return; }
  if (event.key.startsWith("Arrow") && event.target.closest("#map")) { move(event); return; }
  const focus = all("[data-focus]").find((each) => each.dataset.focus === event.key);
  if (focus) { event.preventDefault(); focus.focus(); return; }
  const target = all("[data-key]").find((each) => each.dataset.key === event.key);
  if (!target || (event.key === " " && event.target.matches("button, a, summary"))) return;
  event.preventDefault();
  target.click();
});

// From a point, an arrow key goes to the nearest one in its direction.
function move(event) {
  event.preventDefault();
  const from = event.target.closest("a");
  const at = (link) => ["cx", "cy"].map((name) => Number($("circle", link).getAttribute(name)));
  const [x, y] = at(from);
  const [right, down] = { ArrowRight: [1, 0], ArrowLeft: [-1, 0], ArrowDown: [0, 1], ArrowUp: [0, -1] }[event.key];
  let best = null;
  let least = Infinity;
  for (const link of all("#map a")) {
    const [dx, dy] = at(link).map((value, axis) => value - [x, y][axis]);
    const ahead = dx * right + dy * down;
    const aside = Math.abs(dx * down) + Math.abs(dy * right);
    if (link !== from && ahead > 0 && ahead + 2 * aside < least) { least = ahead + 2 * aside; best = link; }
  }
  if (!best) return;
  from.setAttribute("tabindex", "-1");
  best.setAttribute("tabindex", "0");
  best.focus();
}

const dropped = (event) => [...(event.dataTransfer || event.clipboardData).files].find((file) => file.type.startsWith("image/"));
for (const name of ["dragover", "drop"]) {
  document.addEventListener(name, (event) => {
    if (main().dataset.view !== "try") return;
    event.preventDefault();
    $("#stage").classList.toggle("over", name === "dragover");
    if (name !== "drop") return;
    const file = dropped(event);
    if (file) send(file); else refuse(new Error("An image is needed: drop a file of one."));
  });
}
document.addEventListener("dragleave", () => $("#stage") && $("#stage").classList.remove("over"));
document.addEventListener("paste", (event) => {
  const file = main().dataset.view === "try" && dropped(event);
  if (file) send(file);
});
window.addEventListener("pagehide", stop);

function begin() {
  const view = main().dataset.view;
  if (view === "key") keyView();
  if (view === "try") tryView();
  images(main());
  poll();
  document.documentElement.dataset.ready = view || "yes";
}

begin();
