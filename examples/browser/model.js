// What the pages of this folder share: a model file, its metadata, and the image that a person chooses.
const words = new URLSearchParams(location.search);
const home = new URL(words.get("ort") ?? "https://cdn.jsdelivr.net/npm/onnxruntime-web@1.30.0/dist/", location.href);
export const find = (id) => document.getElementById(id);

export function tell(text, bad = false) {
  find("status").textContent = text;
  find("status").classList.toggle("bad", bad);
}

// The metadata of an ONNX file: onnxruntime-web does not expose them, so the protocol buffer is read here.
// A ModelProto's field 14 is a list of StringStringEntryProto: field 1 the key, field 2 the value.
function readTexts(bytes) {
  const decoder = new TextDecoder();
  function* fields(from, to) {
    let at = from;
    const number = () => {
      for (let value = 0, factor = 1; ; factor *= 128) {
        const byte = bytes[at++];
        value += (byte & 127) * factor;
        if (byte < 128) return value;
      }
    };
    while (at < to) {
      const tag = number(), kind = tag & 7;
      if (kind === 0) number();
      else if (kind === 2) {
        const size = number();
        yield [tag >>> 3, at, at + size];
        at += size;
      } else at += kind === 1 ? 8 : 4;
    }
  }
  const texts = {};
  for (const [field, from, to] of fields(0, bytes.length)) {
    if (field !== 14) continue;
    const pair = {};
    for (const [part, start, end] of fields(from, to)) pair[part] = decoder.decode(bytes.subarray(start, end));
    texts[pair[1]] = pair[2] ?? "";
  }
  return texts;
}

// Opens ?model=FILE, model.onnx by default; `run` maps the bytes of an input, [height, width, channels], to its outputs.
async function openModel() {
  const file = words.get("model") ?? "model.onnx", response = await fetch(file);
  if (!response.ok) throw new Error(`there is no ${file} beside this page (${response.status})`);
  const bytes = new Uint8Array(await response.arrayBuffer()), texts = readTexts(bytes);
  const names = JSON.parse(texts.class_names), preprocess = JSON.parse(texts.preprocess);
  const width = preprocess.resolution, height = preprocess.height ?? width, channels = preprocess.mean.length;
  if (![1, 3].includes(channels)) throw new Error(`a browser's images have 1 or 3 channels, not ${channels}`);
  const ort = await import(new URL("ort.wasm.min.mjs", home));
  ort.env.wasm.wasmPaths = home.href;
  ort.env.wasm.numThreads = self.crossOriginIsolated ? 0 : 1; // pages without isolation have one thread
  const session = await ort.InferenceSession.create(bytes, { executionProviders: ["wasm"] });
  const run = (pixels) => session.run({ image: new ort.Tensor("uint8", pixels, [1, height, width, channels]) });
  return { names, preprocess, width, height, run, threshold: Number(texts.threshold ?? 0) };
}

// Draws an image to `place` of the canvas, around it the mean colour, and returns bytes [height, width, channels].
// A browser's resampling is not Pillow's, so answers differ slightly if an image must be resized.
export function drawInput(image, model, canvas, place) {
  const { mean, interpolation } = model.preprocess;
  Object.assign(canvas, { width: model.width, height: model.height });
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.imageSmoothingEnabled = interpolation !== "nearest";
  context.imageSmoothingQuality = "high";
  const levels = [0, 1, 2].map((i) => Math.floor(255 * mean[i % mean.length] + 0.5));
  context.fillStyle = `rgb(${levels})`;
  context.fillRect(0, 0, canvas.width, canvas.height);
  context.fillStyle = "#000"; // what shows through an image with holes
  context.fillRect(...place);
  context.drawImage(image, ...place);
  const pixels = context.getImageData(0, 0, canvas.width, canvas.height).data, channels = mean.length;
  const found = new Uint8Array((pixels.length / 4) * channels);
  for (let i = 0; i < pixels.length / 4; i++) {
    const [red, green, blue] = pixels.subarray(4 * i, 4 * i + 3);
    if (channels === 1) found[i] = (red * 19595 + green * 38470 + blue * 7471 + 0x8000) >> 16; // as Pillow's "L"
    else found.set([red, green, blue], 3 * i);
  }
  return found;
}

// Opens the model and gives every image that is chosen, dropped or named by ?image=FILE to `answer(image, model)`.
// An ImageBitmap is upright, as the camera's mark says.
async function start(titled, answer) {
  const model = await openModel();
  const attempt = async (blob) => {
    if (!blob) return;
    try {
      const image = await createImageBitmap(blob), began = performance.now();
      await answer(image, model);
      find("drop").classList.add("full");
      const took = Math.round(performance.now() - began);
      find("seen").textContent = `${model.width} × ${model.height} pixels as the model sees them, ${took} ms`;
    } catch (error) {
      tell(`This image has no answer: ${error.message}`, true);
    }
  };
  find("title").textContent = titled(model.names);
  tell("Ready.");
  find("file").addEventListener("change", (event) => attempt(event.target.files[0]));
  addEventListener("dragover", (event) => (event.preventDefault(), find("drop").classList.add("over")));
  addEventListener("dragleave", () => find("drop").classList.remove("over"));
  addEventListener("drop", (event) => {
    event.preventDefault();
    find("drop").classList.remove("over");
    attempt(event.dataTransfer.files[0]);
  });
  if (words.has("image")) await attempt(await (await fetch(words.get("image"))).blob());
}

export function run(titled, answer) {
  start(titled, answer)
    .catch((error) => tell(`The model cannot be used: ${error.message}`, true))
    .finally(() => (document.body.dataset.done = "yes"));
}

// Shows rows of a name and a share from 0 to 1 as a list with bars.
export function list(rows) {
  find("classes").replaceChildren(
    ...rows.map(([name, share]) => {
      const row = document.createElement("li"), shown = `${(100 * share).toFixed(1)} %`;
      for (const [part, text] of [["name", name], ["share", shown], ["track", ""]]) {
        row.append(Object.assign(document.createElement("span"), { className: part, textContent: text }));
      }
      const fill = Object.assign(document.createElement("div"), { className: "fill" });
      fill.style.width = shown.replace(" ", "");
      row.lastChild.append(fill);
      return row;
    }),
  );
}
