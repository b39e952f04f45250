// The playground's page: orders go to the server as they are given, pictures come as they are ready.

import { Choices } from "./choices.js";
import { Curve } from "./curves.js";
import { Digits } from "./digits.js";
import { byId, percent, readColours, short } from "./draw.js";
import { Network } from "./network.js";
import { Plane } from "./plane.js";

const SPEAK = 4000; // milliseconds between two spoken reports while it learns

const curves = {
  loss: new Curve(byId("loss-curve"), { name: "Loss", format: short }),
  accuracy: new Curve(byId("accuracy-curve"), { name: "Accuracy", top: 1, format: (share) => `${100 * share} %` }),
};
const plane = new Plane(byId("plane"), byId("brushes"), later(() => choices.update(choices.settings)));
const digits = new Digits(byId("digits"));
const network = new Network(byId("network"), byId("lines"), byId("columns"), byId("unit"), (unit) => {
  chosen = unit;
  outcome();
});
let choices, socket, made, frame, waiting, chosen = null, running = false, spoken = 0, drawn = 0;

function connect() {
  const address = new URL("live", location.href);
  address.protocol = "ws:";
  socket = new WebSocket(address);
  socket.addEventListener("message", (event) => receive(JSON.parse(event.data)));
  socket.addEventListener("close", (event) => {
    complain(event.reason || "The playground has ended: start xpnet play again.");
    for (const control of document.querySelectorAll("button, select, input")) control.disabled = true;
  });
}

function send(order) {
  if (socket.readyState === WebSocket.OPEN) socket.send(JSON.stringify(order));
}

function receive(message) {
  const kinds = { welcome, data, frame: keep, error, backends };
  kinds[message.kind]?.(message);
}

function welcome(message) {
  choices = new Choices(byId("choices"), message, plane, send);
}

// Take new data, and settings as they were when these were made: what is chosen here by now may be something else.

function data(message) {
  const { settings } = message;
  const images = settings.data === "mnist";
  made = settings;
  waiting = null;
  const outputs = images ? 10 : settings.data === "xor" ? 2 : settings.classes;
  network.build(settings, outputs, images ? message.digits[0] : null);
  network.hint = images
    ? "Each square is what one unit looks for in an image: its weights, multiplied through the layers before it. Point at one to see them; choose it to see it large."
    : "Each square is what one unit gives at every place of the plane. Point at one to see its weights; choose it to see it large.";
  network.tell();
  byId("digits").hidden = !images;
  if (images) digits.setData(message);
  plane.setData(message, settings, choices.extent, choices.limits.points);
}

// Take a picture; it is drawn when the screen is, and of several the last.
function keep(message) {
  if (!waiting) requestAnimationFrame(() => waiting && show(waiting));
  waiting = message;
}

function show(message) {
  waiting = null;
  const last = frame?.epoch ?? 0;
  frame = message;
  if (frame.epoch < last || frame.epoch === 0) Object.values(curves).forEach((curve) => curve.clear());
  for (const name of ["loss", "accuracy"]) {
    curves[name].add(frame.epoch, frame[name]);
    curves[name].draw();
  }
  network.draw(frame);
  figures();
  outcome();
  const code = byId("code");
  if (code.textContent !== frame.code) code.textContent = frame.code;
  if (frame.running) complain("");
  document.documentElement.dataset.frames = ++drawn;
  report();
}

function figures() {
  running = frame.running;
  byId("epoch").textContent = frame.epoch;
  byId("loss").textContent = short(frame.loss.train);
  byId("accuracy-train").textContent = percent(frame.accuracy.train);
  byId("accuracy-test").textContent = percent(frame.accuracy.test);
  byId("rate").textContent = frame.rate ? Number(frame.rate.toPrecision(2)) : "–";
  byId("run").textContent = running ? "Pause" : "Run";
  byId("run").setAttribute("aria-pressed", String(running));
}

// Draw what the whole network sees, or, large, what one unit does.
function outcome() {
  if (!frame) return;
  const shades = chosen && network.picture(chosen);
  const images = frame.taken !== undefined;
  byId("plane").hidden = images && !shades;
  if (!images || shades) plane.see(frame.regions, shades);
  const own = "Draw points with the mouse, or choose the plane and use the arrow keys, Space, Delete and 1, 2, …";
  let seen = made.data === "own" ? own : "The stronger the colour, the surer the network.";
  if (images) seen = `${digits.see(frame.taken)} of these ${frame.taken.length} test images are taken wrong.`;
  const unit = shades ? `Large: ${chosen.name}; choose it again to go back. ` : "";
  byId("outcome-note").textContent = unit && !images ? unit : unit + seen;
}

// Say how it stands, to those who listen instead of looking: now and then while it learns, at once when it pauses.
function report() {
  if (running && Date.now() - spoken < SPEAK) return;
  spoken = Date.now();
  const set = frame.accuracy.test == null ? "train" : "test";
  const words = `${set === "test" ? "test" : "training"} accuracy ${percent(frame.accuracy[set])}`;
  byId("status").textContent = `${running ? "Learning" : "Paused"}, epoch ${frame.epoch}, ${words}.`;
  if (!byId("plane").hidden) {
    const large = chosen ? `what ${chosen.name} gives` : `the classes the network sees; ${words}`;
    byId("plane").setAttribute("aria-label", `The plane: ${large}`);
  }
  Object.values(curves).forEach((curve) => curve.describe());
}

function error({ text, settings }) {
  complain(text);
  running = false;
  byId("run").textContent = "Run";
  byId("run").setAttribute("aria-pressed", "false");
  if (settings) choices.show(settings);
}

function complain(text) {
  const place = byId("message");
  if (place.textContent !== text) place.textContent = text;
  place.hidden = !text;
}

function backends({ backends: found }) {
  choices.backends = found;
  choices.show(choices.settings);
  const look = byId("look");
  look.textContent = found.length > 1 ? `${found.length} found` : "No others found";
  look.disabled = true;
}

// Call a function soon, and at most ten times a second.
function later(what) {
  let timer = null;
  return () => {
    timer ??= setTimeout(() => { timer = null; what(); }, 100);
  };
}

function dress(dark) {
  document.documentElement.dataset.theme = dark ? "dark" : "light";
  readColours();
  if (!frame) return;
  network.drawInputs();
  show(frame);
}

const night = matchMedia("(prefers-color-scheme: dark)");
night.addEventListener("change", () => dress(night.matches));
byId("theme").addEventListener("click", () => dress(document.documentElement.dataset.theme !== "dark"));
byId("run").addEventListener("click", () => send({ do: running ? "pause" : "run" }));
byId("step").addEventListener("click", () => send({ do: "step" }));
byId("restart").addEventListener("click", () => send({ do: "restart" }));
byId("look").addEventListener("click", (event) => {
  event.target.textContent = "Looking…";
  send({ do: "look" });
});
byId("clear").addEventListener("click", () => plane.clear());
byId("show-test").addEventListener("change", (event) => {
  plane.showTest = event.target.checked;
  plane.draw();
});
for (const radio of document.querySelectorAll('[name="lines"]')) {
  radio.addEventListener("change", () => {
    network.lines = radio.value;
    network.drawLines();
    network.tell();
  });
}
byId("copy").addEventListener("click", async () => {
  await navigator.clipboard.writeText(byId("code").textContent);
  byId("copy").textContent = "Copied";
  setTimeout(() => (byId("copy").textContent = "Copy"), 1500);
});
for (const curve of Object.values(curves)) new ResizeObserver(() => curve.draw()).observe(curve.canvas);

dress(night.matches);
connect();
