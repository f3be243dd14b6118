// From a detector's raw outputs to its objects, as effnet computes them; it needs no browser, so that `node` runs it too.

// How an image of these sides lies in the input: resized in proportion, at the top left.
export function letterbox(width, height, input) {
  const byHeight = input.height * width <= input.width * height;
  return {
    width: byHeight ? Math.max(1, Math.floor((input.height * width) / height)) : input.width,
    height: byHeight ? input.height : Math.max(1, Math.floor((input.width * height) / width)),
  };
}

// The cells of the levels, whose strides are about 8, 16, 32 and 64 pixels, row by row: centre and sides of each.
export function cells(input) {
  const found = [];
  for (let level = 3; level <= 6; level++) {
    const columns = Math.ceil(input.width / 2 ** level), rows = Math.ceil(input.height / 2 ** level);
    const width = input.width / columns, height = input.height / rows;
    for (let y = 0; y < rows; y++) {
      for (let x = 0; x < columns; x++) found.push({ x: (x + 0.5) * width, y: (y + 0.5) * height, width, height });
    }
  }
  return found;
}

function overlap([left, top, right, bottom], [l, t, r, b]) {
  const shared = Math.max(0, Math.min(right, r) - Math.max(left, l)) * Math.max(0, Math.min(bottom, b) - Math.max(top, t));
  return shared / ((right - left) * (bottom - top) + (r - l) * (b - t) - shared);
}

// Returns the objects, best first: { box: [left, top, right, bottom] in pixels of the input, score, kind }.
// `raw` are 4 numbers of each place: the logarithms of the distances to the sides, in cells; `logits` one of each class.
export function detect(raw, logits, input, { threshold, iou = 0.6, most = 1000 }) {
  const places = cells(input), classes = logits.length / places.length;
  if (raw.length !== 4 * places.length) throw new Error("its boxes are not around points, which this page needs");
  const least = Math.log(threshold / (1 - threshold)), found = [];
  for (let i = 0; i < logits.length; i++) {
    if (logits[i] >= least) found.push({ place: Math.floor(i / classes), kind: i % classes, score: 1 / (1 + Math.exp(-logits[i])) });
  }
  found.sort((a, b) => b.score - a.score);
  const kept = [];
  for (const { place, kind, score } of found.slice(0, most)) {
    const { x, y, width, height } = places[place];
    const [left, top, right, bottom] = [0, 1, 2, 3].map((side) => Math.exp(Math.min(raw[4 * place + side], 6)));
    const box = [x - left * width, y - top * height, x + right * width, y + bottom * height];
    if (!kept.some((other) => other.kind === kind && overlap(other.box, box) > iou)) {
      kept.push({ box, score, kind });
    }
  }
  return kept;
}
