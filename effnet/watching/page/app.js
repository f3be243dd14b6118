// The view of `effnet watch`: server-sent events in, text nodes out; nothing from a label is ever read as HTML.
const MOST_EVENTS = 100;
const place = (id) => document.getElementById(id);
const cards = new Map();

function element(name, text = "", className = "") {
  const made = document.createElement(name);
  made.textContent = text;
  if (className) made.className = className;
  return made;
}

function card(source) {
  if (!cards.has(source)) {
    const whole = element("article");
    const made = { whole, frame: element("div", "", "frame"), image: element("img"), facts: element("dl"), rules: element("p", "", "rules"), loading: false };
    made.image.alt = `The newest answered frame of ${source}`;
    made.image.onload = made.image.onerror = () => { made.loading = false; };
    made.frame.append(made.image);
    whole.append(element("h2", source), made.frame, made.facts, made.rules);
    place("sources").append(whole);
    cards.set(source, made);
  }
  return cards.get(source);
}

function rows(answer) {
  const percent = (p) => `${(100 * p).toFixed(1)} %`;
  if (answer.predictions) return answer.predictions.slice(0, 3).map((each) => [each.label, percent(each.probability)]);
  if (answer.shares) return Object.entries(answer.shares).sort((a, b) => b[1] - a[1]).slice(0, 5).map(([label, p]) => [label, percent(p)]);
  if (answer.followed) {
    const counts = new Map();
    for (const each of answer.followed) counts.set(each.label, (counts.get(each.label) ?? 0) + 1);
    return [...counts].map(([label, count]) => [label, String(count)]);
  }
  const shown = (found) => typeof found === "number" ? String(found) : found.tags ? found.tags.join(", ") : found.predictions[0].label;
  return Object.entries(answer.outputs ?? {}).map(([name, found]) => [name, shown(found)]);
}

function drawBoxes(frame, followed) {
  frame.querySelectorAll(".box").forEach((old) => old.remove());
  for (const each of followed ?? []) {
    const [left, top, right, bottom] = each.box.map((side) => 100 * side);
    const box = element("div", "", "box");
    Object.assign(box.style, { left: `${left}%`, top: `${top}%`, width: `${right - left}%`, height: `${bottom - top}%` });
    box.append(element("span", `${each.label} ${each.object}`));
    frame.append(box);
  }
}

function show(source, answer) {
  const made = card(source);
  made.facts.replaceChildren(...[...rows(answer), ["age of the frame", `${Math.round(answer.age_ms)} ms`]]
    .flatMap(([name, value]) => [element("dt", name), element("dd", value)]));
  made.rules.textContent = answer.active.join("; ");
  made.whole.classList.toggle("active", answer.active.length > 0);
  drawBoxes(made.frame, answer.followed);
  if (!made.loading) {
    made.loading = true;
    made.image.src = `watch/image?${new URLSearchParams({ source, at: answer.at })}`;
  }
}

function note(event) {
  const { event: kind, time, source, rule, ...facts } = event;
  const words = ["value", "label", "was", "to", "reason", "seconds"].filter((name) => facts[name] != null).map((name) => `${name} ${facts[name]}`);
  if (facts.counts) words.push(Object.entries(facts.counts).map(([label, count]) => `${count} ${label}`).join(", ") || "nothing");
  const line = element("li");
  line.append(element("time", time.slice(11, 19)), [source, kind, rule, ...words].filter(Boolean).join(" · "));
  place("events").prepend(line);
  while (place("events").children.length > MOST_EVENTS) place("events").lastChild.remove();
}

const stream = new EventSource("watch/events");
stream.onopen = () => { place("state").textContent = "live"; };
stream.onerror = () => { place("state").textContent = "connection lost; trying again"; };
stream.addEventListener("note", (message) => note(JSON.parse(message.data)));
stream.addEventListener("answers", (message) => Object.entries(JSON.parse(message.data)).forEach(([source, answer]) => show(source, answer)));
