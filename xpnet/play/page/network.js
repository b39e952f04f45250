// The network: a square for every unit with its own picture, and a line for every weight.

import { bytes, colour, floats, make, paint, paintShades, sharp, short } from "./draw.js";

const ROWS = 8;
const THIN = 0.03; // lines below this part of the widest are not drawn

export class Network {
  constructor(root, canvas, columns, note, choose) {
    Object.assign(this, { root, canvas, columns, note, choose, lines: "weights", frame: null, chosen: null });
    this.hint = note.textContent;
    new ResizeObserver(() => this.resize()).observe(root);
  }

  // Lay out squares for these settings.
  build(settings, outputs, digit) {
    this.images = settings.data === "mnist";
    this.digit = digit;
    const widths = [this.images ? 1 : 2, ...settings.hidden, outputs];
    const key = JSON.stringify([widths, settings.data, settings.activation]);
    if (key === this.key) return;
    Object.assign(this, { key, matrices: null });
    this.select(null);
    this.layers = widths.map((units, layer) => Array.from({ length: units }, (_, unit) => this.square(layer, unit, widths)));
    const titles = [this.images ? "28 × 28" : "input", ...settings.hidden.map((units) => `${units} × ${settings.activation}`)];
    this.columns.replaceChildren(
      ...[...titles, this.images ? "digits" : "classes"].map((title, layer) => this.column(title, layer, widths)),
    );
    this.resize();
    this.drawInputs();
  }

  // Make the squares as large as there is room, and draw the lines between them.
  resize() {
    if (!this.layers) return;
    const columns = this.layers.reduce((sum, units) => sum + Math.ceil(units.length / ROWS), 0);
    const gaps = 26 * (this.layers.length - 1) + 30;
    const across = (0.75 * (this.root.clientWidth - gaps)) / columns - 7;
    const down = this.root.clientWidth < 500 ? 38 : 46;
    const tile = Math.floor(Math.max(24, Math.min(across, down)));
    this.columns.style.setProperty("--tile", `${tile}px`);
    this.drawLines();
  }

  column(title, layer, widths) {
    const rows = Math.min(widths[layer], layer === widths.length - 1 ? 10 : ROWS);
    const units = make("div", { class: "units" }, ...this.layers[layer]);
    units.style.gridTemplateRows = `repeat(${rows}, auto)`;
    const last = layer === widths.length - 1;
    return make("div", { class: last ? "column output" : "column" }, make("span", {}, title), units);
  }

  square(layer, unit, widths) {
    const last = layer === widths.length - 1;
    const input = this.images ? "the image" : `input x${unit + 1}`;
    const name = layer === 0 ? input : last ? `output ${this.className(unit)}` : `hidden layer ${layer}, unit ${unit + 1}`;
    const square = make("button", { type: "button", class: "unit", "aria-label": name, "aria-pressed": "false" });
    square.append(make("canvas", { width: 1, height: 1 }));
    if (last && !this.images) square.style.borderColor = `var(--class-${unit})`;
    square.addEventListener("pointerenter", () => this.tell(layer, unit, name));
    square.addEventListener("focus", () => this.tell(layer, unit, name));
    square.addEventListener("pointerleave", () => this.tell());
    square.addEventListener("blur", () => this.tell());
    square.addEventListener("click", () => this.select(this.chosen === square ? null : square, layer, unit, name));
    return square;
  }

  className(unit) {
    return this.images ? `digit ${unit}` : `class ${unit + 1}`;
  }

  // Choose a unit, to be shown large, or none.
  select(square, layer, unit, name) {
    this.chosen?.setAttribute("aria-pressed", "false");
    square?.setAttribute("aria-pressed", "true");
    this.chosen = square;
    this.choose(square && { layer, unit, name });
  }

  draw(frame) {
    this.frame = frame;
    this.matrices = { weights: frame.weights.map(floats), gradients: frame.gradients.map(floats) };
    this.biases = frame.biases.map(floats);
    frame.units.forEach((units, k) => {
      units.forEach((shades, unit) => paintShades(this.layers[k + 1][unit].firstChild, bytes(shades)));
    });
    this.drawLines();
    if (this.told) this.tell(...this.told);
  }

  // The picture of a unit, the larger one of an input too.
  picture({ layer, unit }) {
    return layer === 0 ? null : bytes(this.frame.units[layer - 1][unit]);
  }

  drawInputs() {
    if (this.images) {
      const shades = bytes(this.digit);
      paint(this.layers[0][0].firstChild, 28, (place) => Array(3).fill(255 - shades[place]));
      return;
    }
    const side = 32;
    const share = (k) => Math.round(1 + (254 * k) / (side - 1));
    const along = Uint8Array.from({ length: side * side }, (_, place) => share(place % side));
    const up = Uint8Array.from({ length: side * side }, (_, place) => share(side - 1 - Math.floor(place / side)));
    [along, up].forEach((shades, unit) => paintShades(this.layers[0][unit].firstChild, shades));
  }

  // Draw a line for each weight, as wide as it is large among all, in the colour of its sign.
  drawLines() {
    if (!this.matrices || !this.layers) return;
    const { context } = sharp(this.canvas, this.columns.scrollWidth, this.columns.offsetHeight);
    this.canvas.style.width = `${this.columns.scrollWidth}px`;
    this.canvas.style.height = `${this.columns.offsetHeight}px`;
    const matrices = this.matrices[this.lines];
    const largest = matrices.reduce((most, matrix) => matrix.reduce((m, w) => Math.max(m, Math.abs(w)), most), 0) || 1;
    const origin = this.columns.getBoundingClientRect();
    const places = this.layers.map((units) => units.map((unit) => unit.getBoundingClientRect()));
    for (const [k, matrix] of matrices.entries()) {
      const outs = places[k + 1];
      matrix.forEach((weight, place) => {
        const share = Math.abs(weight) / largest;
        const from = places[k][Math.floor(place / outs.length)];
        if (share < THIN || !from) return;
        this.line(context, origin, from, outs[place % outs.length], weight, share);
      });
    }
  }

  line(context, origin, from, to, weight, share) {
    const [x0, y0] = [from.right - origin.left, from.top + from.height / 2 - origin.top];
    const [x1, y1] = [to.left - origin.left, to.top + to.height / 2 - origin.top];
    const middle = (x0 + x1) / 2;
    context.beginPath();
    context.moveTo(x0, y0);
    context.bezierCurveTo(middle, y0, middle, y1, x1, y1);
    context.strokeStyle = colour(weight < 0 ? "negative" : "positive");
    context.globalAlpha = 0.25 + 0.65 * share;
    context.lineWidth = 0.6 + 5 * share;
    context.stroke();
    context.globalAlpha = 1;
  }

  // Say what leads to a unit, or, without one, what there is to see.
  tell(layer, unit, name) {
    this.told = name && [layer, unit, name];
    if (!name) {
      this.note.textContent = this.hint;
      return;
    }
    const from = layer > 0 && this.matrices ? this.matrices[this.lines][layer - 1] : [];
    const outs = this.layers[layer].length;
    const values = Array.from(from).filter((_, place) => place % outs === unit).map(short);
    const what = this.lines === "weights" ? "weights" : "gradients of its weights";
    const bias = layer > 0 && this.biases ? `; bias ${short(this.biases[layer - 1][unit])}` : "";
    this.note.textContent = `${name}${values.length ? `: ${what} ${values.join(", ")}` : ""}${bias}`;
  }
}
