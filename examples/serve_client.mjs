// A client of `effnet serve` in JavaScript, for Node.js 18 or newer; fetch works the same in a browser. It tries again
// if the server is busy.
//
//   node examples/serve_client.mjs http://127.0.0.1:8000 cat.jpg dog.jpg
import { readFile } from "node:fs/promises";

const TRIES = 5;
const [server, ...paths] = process.argv.slice(2);

async function predict(data) {
  for (let left = TRIES; ; left--) {
    const response = await fetch(`${server}/predict?top=3`, { method: "POST", body: data });
    // 503: busy, loading or shutting down; the server says when to try again.
    if (response.status !== 503 || left === 1) return response.json();
    await new Promise((done) => setTimeout(done, 1000 * Number(response.headers.get("retry-after") ?? 1)));
  }
}

for (const path of paths) {
  const found = await predict(await readFile(path));
  const best = found.predictions?.[0];
  console.log(`${path}: ${best ? `${best.label} ${(100 * best.probability).toFixed(1)}%` : found.error}`);
}
