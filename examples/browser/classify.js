// A bundle's model.onnx in a web page. Serve a folder that holds this page and model.onnx:
//   cp examples/browser/* effnet-photos/ && python -m http.server -d effnet-photos
// To work offline, put onnxruntime-web's dist folder beside it, as ort/, and open index.html?ort=ort/
// With ?image=FILE the page classifies that file at once.
const words = new URLSearchParams(location.search);
const home = new URL(words.get("ort") ?? "https://cdn.jsdelivr.net/npm/onnxruntime-web@1.30.0/dist/", location.href);
const find = (id) => document.getElementById(id);

function tell(text, bad = false) {
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

// Resizes and crops according to `preprocess` and returns bytes [side, side, channels]; a browser's resampling is not
// Pillow's, so probabilities differ slightly if an image must be resized.
function prepare(image, preprocess, canvas) {
  const { resolution: side, crop, mode, mean } = preprocess;
  const shorter = Math.floor(side / crop), least = Math.min(image.width, image.height);
  const ways = {
    center: (length) => Math.max(shorter, Math.floor((shorter * length) / least)),
    squash: () => shorter,
    pad: (length) => Math.max(1, Math.floor((side * length) / Math.max(image.width, image.height))),
  };
  const sized = ways[mode];
  if (!sized) throw new Error(`its images are resized as "${mode}", which this page does not support`);
  const width = sized(image.width), height = sized(image.height);
  canvas.width = canvas.height = side;
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.imageSmoothingEnabled = preprocess.interpolation !== "nearest";
  context.imageSmoothingQuality = "high";
  const levels = [0, 1, 2].map((i) => Math.floor(255 * mean[i % mean.length] + 0.5));
  const place = [-Math.round((width - side) / 2), -Math.round((height - side) / 2), width, height];
  context.fillStyle = `rgb(${levels})`; // around a padded image
  context.fillRect(0, 0, side, side);
  context.fillStyle = "#000"; // what shows through an image with holes
  context.fillRect(...place);
  context.drawImage(image, ...place);
  const pixels = context.getImageData(0, 0, side, side).data, channels = mean.length;
  const found = new Uint8Array(side * side * channels);
  for (let i = 0; i < side * side; i++) {
    const [red, green, blue] = pixels.subarray(4 * i, 4 * i + 3);
    if (channels === 1) found[i] = (red * 19595 + green * 38470 + blue * 7471 + 0x8000) >> 16; // as Pillow's "L"
    else found.set([red, green, blue], 3 * i);
  }
  return found;
}

function show(names, probabilities, threshold) {
  const order = [...probabilities.keys()].sort((a, b) => probabilities[b] - probabilities[a]).slice(0, 5);
  find("classes").replaceChildren(
    ...order.map((index) => {
      const row = document.createElement("li"), share = `${(100 * probabilities[index]).toFixed(1)} %`;
      for (const [name, text] of [["name", names[index]], ["share", share], ["track", ""]]) {
        row.append(Object.assign(document.createElement("span"), { className: name, textContent: text }));
      }
      const fill = Object.assign(document.createElement("div"), { className: "fill" });
      fill.style.width = share.replace(" ", "");
      row.lastChild.append(fill);
      return row;
    }),
  );
  const best = probabilities[order[0]];
  tell(best < threshold ? "Unknown: no class is likely enough." : "The likeliest classes:");
}

async function main() {
  const file = words.get("model") ?? "model.onnx", response = await fetch(file);
  if (!response.ok) throw new Error(`there is no ${file} beside this page (${response.status})`);
  const bytes = new Uint8Array(await response.arrayBuffer()), texts = readTexts(bytes);
  const names = JSON.parse(texts.class_names), preprocess = JSON.parse(texts.preprocess);
  const { resolution: side, mean } = preprocess;
  if (![1, 3].includes(mean.length)) throw new Error(`a browser's images have 1 or 3 channels, not ${mean.length}`);

  const ort = await import(new URL("ort.wasm.min.mjs", home));
  ort.env.wasm.wasmPaths = home.href;
  ort.env.wasm.numThreads = self.crossOriginIsolated ? 0 : 1; // pages without isolation have one thread
  const session = await ort.InferenceSession.create(bytes, { executionProviders: ["wasm"] });

  async function classify(blob) {
    const image = await createImageBitmap(blob); // upright, as the camera's mark says
    const pixels = prepare(image, preprocess, document.querySelector("canvas"));
    find("drop").classList.add("full");
    const began = performance.now();
    const feeds = { image: new ort.Tensor("uint8", pixels, [1, side, side, mean.length]) };
    const { probabilities } = await session.run(feeds);
    find("seen").textContent = `${side} × ${side} pixels as the model sees them, ${Math.round(performance.now() - began)} ms`;
    show(names, probabilities.data, Number(texts.threshold ?? 0));
    document.body.dataset.probabilities = JSON.stringify([...probabilities.data]);
  }
  const attempt = (blob) => blob && classify(blob).catch((error) => tell(`This cannot be classified: ${error.message}`, true));

  find("title").textContent = `Which of ${names.length} classes is it?`;
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

main()
  .catch((error) => tell(`The model cannot be used: ${error.message}`, true))
  .finally(() => (document.body.dataset.done = "yes"));
