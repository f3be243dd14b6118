// A classifier's model.onnx in a web page. Serve a folder that holds the files of this one and model.onnx:
//   cp examples/browser/* effnet-photos/ && python -m http.server -d effnet-photos
// To work offline, put onnxruntime-web's dist folder beside it, as ort/, and open index.html?ort=ort/
// With ?image=FILE the page classifies that file at once.
import { drawInput, list, run, tell } from "./model.js";

// Where the resized image lies in the input: left, top, width and height.
function placed(image, { resolution: side, crop, mode }) {
  const shorter = Math.floor(side / crop), least = Math.min(image.width, image.height);
  const ways = {
    center: (length) => Math.max(shorter, Math.floor((shorter * length) / least)),
    squash: () => shorter,
    pad: (length) => Math.max(1, Math.floor((side * length) / Math.max(image.width, image.height))),
  };
  const sized = ways[mode];
  if (!sized) throw new Error(`its images are resized as "${mode}", which this page does not support`);
  const width = sized(image.width), height = sized(image.height);
  return [-Math.round((width - side) / 2), -Math.round((height - side) / 2), width, height];
}

async function classify(image, model) {
  const pixels = drawInput(image, model, document.querySelector("canvas"), placed(image, model.preprocess));
  const { probabilities } = await model.run(pixels), found = probabilities.data;
  const order = [...found.keys()].sort((a, b) => found[b] - found[a]).slice(0, 5);
  list(order.map((index) => [model.names[index], found[index]]));
  tell(found[order[0]] < model.threshold ? "Unknown: no class is likely enough." : "The likeliest classes:");
  document.body.dataset.probabilities = JSON.stringify([...found]);
}

run((names) => `Which of ${names.length} classes is it?`, classify);
