// The form of all that can be chosen; what there is to choose from comes from the server.

import { byId, make, markerForm, svg } from "./draw.js";

const NAMES = { gaussians: "Gaussians", circles: "Circles", xor: "XOR", spirals: "Spirals", own: "Own", mnist: "MNIST" };
const NONE = { dropout: "none", decay: "none", noise: "none" };
const SPEEDS = { 1: "1 epoch/s", 5: "5 epochs/s", 20: "20 epochs/s", 100: "100 epochs/s", 0: "fastest" };

export class Choices {
  constructor(form, welcome, plane, send) {
    Object.assign(this, { form, plane, send, ...welcome });
    this.backends = [this.defaults.spirals.backend];
    this.settings = this.defaults.spirals;
    this.selects = [...form.querySelectorAll("select"), byId("speed")];
    this.selects.forEach((select) => select.addEventListener("change", () => this.change(select.name, select.value)));
    form.seed.max = this.limits.seed;
    form.seed.addEventListener("change", () => form.seed.reportValidity() && this.change("seed", form.seed.value));
    form.addEventListener("submit", (event) => event.preventDefault());
    byId("data").replaceChildren(...this.choices.data.map((data) => this.tile(data)));
    this.show(this.settings);
  }

  tile(data) {
    const radio = make("input", { type: "radio", name: "data", value: data });
    radio.addEventListener("change", () => this.chooseData(data));
    return make("label", { class: "tile" }, radio, thumbnail(data), NAMES[data] ?? data);
  }

  // Other data begin with settings that learn them; the backend is kept.
  chooseData(data) {
    this.update({ ...this.defaults[data], backend: this.settings.backend });
  }

  change(name, value) {
    const numeric = typeof this.settings[name] === "number";
    this.update({ ...this.settings, [name]: numeric ? Number(value) : value });
  }

  // Send settings, with the points that were drawn.
  update(settings) {
    const points = this.plane.pointsOf(settings.classes);
    this.show({ ...settings, points });
    this.send({ do: "set", settings: this.settings });
  }

  // Show settings as they are, whoever has chosen them.
  show(settings) {
    this.settings = settings;
    const images = settings.data === "mnist";
    const [fewest, most, batch] = this.limits[images ? "mnist" : "plane"];
    const allowed = {
      ...this.choices,
      backend: this.backends,
      samples: this.choices.samples.filter((n) => n >= fewest && n <= most),
      batch: this.choices.batch.filter((n) => n >= batch),
    };
    for (const select of this.selects) {
      fill(select, allowed[select.name]);
      select.value = settings[select.name];
    }
    this.form.seed.value = settings.seed;
    for (const radio of this.form.querySelectorAll('[name="data"]')) radio.checked = radio.value === settings.data;
    const hide = (selector, hidden) => document.querySelectorAll(selector).forEach((one) => (one.hidden = hidden));
    hide(".plane-only", images || settings.data === "xor");
    hide("#brush", settings.data !== "own");
    hide("#test-points", images || settings.data === "own");
    hide(".made-only", images || settings.data === "own");
    hide(".samples", settings.data === "own");
    this.showLayers(settings);
  }

  showLayers({ hidden }) {
    const root = byId("layers");
    if (root.childElementCount - 1 !== hidden.length) {
      const layers = hidden.map((_, k) => this.layer(k));
      const add = make("button", { type: "button", id: "add-layer" }, "Add a layer");
      add.addEventListener("click", () => this.resize(this.settings.hidden.length, this.settings.hidden.at(-1) ?? 4));
      root.replaceChildren(...layers, add);
    }
    hidden.forEach((units, k) => (root.children[k].querySelector("input").value = units));
    byId("add-layer").disabled = hidden.length >= this.limits.layers;
  }

  layer(k) {
    const input = make("input", { type: "number", min: 1, max: this.limits.units, step: 1 });
    input.addEventListener("change", () => input.reportValidity() && this.resize(k, Number(input.value)));
    const remove = make("button", { type: "button", "aria-label": `Remove hidden layer ${k + 1}`, title: "Remove" }, "✕");
    remove.addEventListener("click", () => {
      this.update({ ...this.settings, hidden: this.settings.hidden.filter((_, other) => other !== k) });
      byId("add-layer").focus();
    });
    return make("div", { class: "layer" }, make("label", {}, `Layer ${k + 1}`, input), remove);
  }

  resize(k, units) {
    const hidden = [...this.settings.hidden];
    hidden[k] = units;
    this.update({ ...this.settings, hidden });
  }
}

function fill(select, values) {
  if (select.dataset.values === String(values)) return;
  select.dataset.values = values;
  const text = (value) => (select.name === "speed" ? SPEEDS[value] : (value === 0 && NONE[select.name]) || `${value}`);
  select.replaceChildren(...values.map((value) => make("option", { value }, text(value))));
}

// A small drawing of each kind of data.
function thumbnail(data) {
  const dot = (label, x, y) => markerForm(label, x, y, 1.9);
  const ring = (label, r, n) => Array.from({ length: n }, (_, k) => dot(label, 18 + r * Math.cos((2 * Math.PI * k) / n), 18 + r * Math.sin((2 * Math.PI * k) / n)));
  const arm = (turn) => (_, k) => [18 + (3 + 1.7 * k) * Math.cos(0.62 * k + turn), 18 + (3 + 1.7 * k) * Math.sin(0.62 * k + turn)];
  const cloud = [[-4, -1], [0, 3], [4, 0], [-1, -5], [2, -3], [-3, 4]];
  const around = (label, x, y) => cloud.map(([u, v]) => dot(label, x + u, y + v));
  const forms = {
    gaussians: () => [...around(0, 11, 11), ...around(1, 25, 25)],
    circles: () => [...ring(0, 5, 7), ...ring(1, 14, 14)],
    xor: () => [...around(0, 9, 9), ...around(0, 27, 27), ...around(1, 27, 9), ...around(1, 9, 27)],
    spirals: () => [0, Math.PI].flatMap((turn, label) => Array.from({ length: 8 }, arm(turn)).map(([x, y]) => dot(label, x, y))),
    own: () => [["path", { d: "M8 29l2-7L24 8l5 5L15 27Z M21 11l5 5", fill: "none", stroke: "currentColor", "stroke-width": 2 }]],
    mnist: () => [["path", { d: "M11 9h14L15 29", fill: "none", stroke: "currentColor", "stroke-width": 3.4, "stroke-linecap": "round", "stroke-linejoin": "round" }]],
  };
  return svg(36, forms[data]?.() ?? []);
}
