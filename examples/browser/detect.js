// A detector's model.onnx in a web page. Serve a folder that holds the files of this one and model.onnx:
//   cp examples/browser/* detector/ && python -m http.server -d detector      (then open detect.html)
// To work offline, put onnxruntime-web's dist folder beside it, as ort/, and open detect.html?ort=ort/
// With ?image=FILE the page searches that file at once; ?threshold=0.5 is the least score of an object.
import { detect, letterbox } from "./boxes.js";
import { drawInput, list, run, tell } from "./model.js";

const least = new URLSearchParams(location.search).get("threshold");

async function search(image, model) {
  if (model.preprocess.mode !== "corner") throw new Error("the model is no detector: open index.html");
  const canvas = document.querySelector("canvas"), inner = letterbox(image.width, image.height, model);
  const pixels = drawInput(image, model, canvas, [0, 0, inner.width, inner.height]);
  const { boxes, scores } = await model.run(pixels);
  const threshold = Number(least ?? model.threshold);
  const across = image.width / inner.width, down = image.height / inner.height;
  const found = detect(boxes.data, scores.data, model, { threshold }).map(({ box, score, kind }) => ({
    name: model.names[kind],
    score,
    box: box.map((side, i) => (i % 2 ? Math.min(Math.max(side * down, 0), image.height) : Math.min(Math.max(side * across, 0), image.width))),
  })).filter(({ box: [left, top, right, bottom] }) => right > left && bottom > top); // the padding is nothing in the image
  draw(image, canvas, found);
  list(found.map(({ name, score }) => [name, score]));
  const counts = new Map();
  for (const { name } of found) counts.set(name, (counts.get(name) ?? 0) + 1);
  tell([...counts].map(([name, count]) => `${count} ${name}`).join(", ") || "No objects.");
  document.body.dataset.objects = JSON.stringify(found);
}

// Shows the image in its own size, and a frame around each object.
function draw(image, canvas, found) {
  Object.assign(canvas, { width: image.width, height: image.height });
  const context = canvas.getContext("2d");
  context.drawImage(image, 0, 0);
  context.lineWidth = Math.max(2, Math.round(Math.max(image.width, image.height) / 200));
  context.font = `${8 * context.lineWidth}px system-ui`;
  for (const { name, score, box: [left, top, right, bottom] } of found) {
    const text = `${name} ${(100 * score).toFixed(0)} %`, height = 9 * context.lineWidth, above = Math.max(top, height);
    context.strokeStyle = context.fillStyle = `hsl(${(137 * name.length + 40 * name.charCodeAt(0)) % 360} 90% 40%)`;
    context.strokeRect(left, top, right - left, bottom - top);
    context.fillRect(left, above - height, context.measureText(text).width + height / 2, height);
    context.fillStyle = "#fff";
    context.fillText(text, left + height / 4, above - height / 4);
  }
}

run((names) => `Where are ${names.slice(0, 3).join(", ")}${names.length > 3 ? ", …" : ""}?`, search);
