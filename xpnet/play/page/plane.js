// The plane: what class the network sees at every place, the points, and drawing points of one's own.

import { bytes, colour, floats, make, marker, markerForm, mix, paint, paintShades, rgb, sharp, svg } from "./draw.js";

const STEP = 0.05; // how far an arrow key moves the cross, and how close the eraser must come
const ERASER = -1;

export class Plane {
  constructor(canvas, brushes, changed) {
    Object.assign(this, { canvas, brushes, changed, brush: 0, points: [], sets: {}, unit: null, showTest: false });
    this.raster = make("canvas");
    this.cross = null;
    this.drawing = false;
    canvas.addEventListener("pointerdown", (event) => this.press(event));
    canvas.addEventListener("pointermove", (event) => this.pressed && this.touch(event));
    for (const end of ["pointerup", "pointercancel"]) canvas.addEventListener(end, () => (this.pressed = false));
    canvas.addEventListener("keydown", (event) => this.key(event));
    canvas.addEventListener("blur", () => { this.cross = null; this.draw(); });
    new ResizeObserver(() => this.draw()).observe(canvas);
  }

  // Take the data as they are trained on.
  setData(message, settings, extent, most) {
    Object.assign(this, { extent, most });
    this.drawing = settings.data === "own";
    const read = ({ x, labels }) => labels.map((label, k) => [x[2 * k], x[2 * k + 1], label]);
    const sets = ["train", "test"].filter((set) => message[set]);
    this.sets = Object.fromEntries(
      sets.map((set) => [set, read({ x: floats(message[set].x), labels: message[set].labels })]),
    );
    if (this.drawing) this.sets = { train: this.points };
    this.canvas.classList.toggle("drawn", this.drawing);
    this.canvas.setAttribute("role", this.drawing ? "application" : "img");
    this.drawing ? (this.canvas.tabIndex = 0) : this.canvas.removeAttribute("tabindex");
    this.offer(settings.classes);
  }

  // Return the points that were drawn, without those of a class that there is no longer.
  pointsOf(classes) {
    if (this.points.some((point) => point[2] >= classes)) this.points = this.points.filter((point) => point[2] < classes);
    return this.points;
  }

  // Offer a brush for each class, and an eraser.
  offer(classes) {
    if (this.brushes.childElementCount === classes + 1) return;
    const labels = [...Array(classes).keys(), ERASER];
    this.brush = 0;
    this.brushes.replaceChildren(...labels.map((label) => {
      const radio = make("input", { type: "radio", name: "brush", value: label });
      radio.checked = label === 0;
      radio.addEventListener("change", () => (this.brush = label));
      const form = label === ERASER ? [] : [svg(16, [markerForm(label)])];
      return make("label", { class: "inline" }, radio, ...form, label === ERASER ? "eraser" : `${label + 1}`);
    }));
  }

  press(event) {
    if (!this.drawing || event.button !== 0) return;
    this.pressed = true;
    this.canvas.setPointerCapture(event.pointerId);
    this.touch(event);
  }

  touch(event) {
    const box = this.canvas.getBoundingClientRect();
    const across = (event.clientX - box.left) / box.width;
    const down = (event.clientY - box.top) / box.height;
    this.put((2 * across - 1) * this.extent, (1 - 2 * down) * this.extent);
  }

  // Put a point, or rub out those that are near; a stroke leaves points at some distance.
  put(x, y, distance = STEP) {
    const near = ([u, v]) => Math.hypot(u - x, v - y) < distance;
    if (Math.abs(x) > this.extent || Math.abs(y) > this.extent) return;
    const before = this.points.length;
    if (this.brush === ERASER) this.points = this.points.filter((point) => !near(point));
    else if (before < this.most && !this.points.some(near)) this.points.push([round(x), round(y), this.brush]);
    if (this.points.length === before) return;
    this.sets = { train: this.points };
    this.draw();
    this.changed();
  }

  clear() {
    this.points = [];
    this.changed();
  }

  // Arrows move a cross, Space and Enter put a point there, Delete rubs out, digits choose the class.
  key(event) {
    if (!this.drawing || event.ctrlKey || event.metaKey || event.altKey) return;
    const moves = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] };
    this.cross ??= [0, 0];
    const radios = this.brushes.querySelectorAll("input");
    if (event.key in moves) {
      const clip = (value) => Math.max(-this.extent, Math.min(this.extent, value));
      this.cross = this.cross.map((value, axis) => clip(value + STEP * (event.shiftKey ? 4 : 1) * moves[event.key][axis]));
    } else if (event.key === " " || event.key === "Enter") this.put(...this.cross, STEP / 2);
    else if (event.key === "Delete" || event.key === "Backspace") this.rub();
    else if (Number(event.key) >= 1 && Number(event.key) < radios.length) radios[Number(event.key) - 1].click();
    else return;
    event.preventDefault();
    this.draw();
  }

  rub() {
    const brush = this.brush;
    this.brush = ERASER;
    this.put(...this.cross);
    this.brush = brush;
  }

  // Take what the network sees, or what one unit gives.
  see(regions, shades) {
    if (shades) {
      paintShades(this.raster, shades);
    } else {
      const [seen, sure] = [bytes(regions.seen), bytes(regions.sure)];
      const ground = rgb(colour("panel"));
      const tints = [0, 1, 2, 3].map((label) => rgb(colour(`class-${label}`)));
      paint(this.raster, Math.sqrt(seen.length), (place) => mix(ground, tints[seen[place]], 0.12 + (0.4 * sure[place]) / 255));
    }
    this.draw();
  }

  draw() {
    if (!this.extent || !this.canvas.clientWidth) return;
    const { context, width, height } = sharp(this.canvas);
    context.imageSmoothingEnabled = true;
    context.imageSmoothingQuality = "high";
    context.drawImage(this.raster, 0, 0, width, height);
    const place = ([x, y]) => [(width * (x / this.extent + 1)) / 2, (height * (1 - y / this.extent)) / 2];
    if (this.showTest) this.dots(context, this.sets.test ?? [], place, false);
    this.dots(context, this.sets.train ?? [], place, true);
    if (this.cross) {
      const [x, y] = place(this.cross);
      Object.assign(context, { strokeStyle: colour("text"), lineWidth: 1.5 });
      context.strokeRect(x - 6, y - 6, 12, 12);
      context.strokeRect(x - 0.5, y - 0.5, 1, 1);
    }
  }

  // Points of training are filled, those of the test set outlines.
  dots(context, points, place, filled) {
    const r = points.length > 400 ? 2.6 : 3.4;
    for (const [x, y, label] of points) {
      marker(context, label, ...place([x, y]), r);
      context.lineWidth = filled ? 1 : 1.4;
      context.strokeStyle = filled ? colour("panel") : colour(`class-${label}`);
      context.fillStyle = filled ? colour(`class-${label}`) : colour("panel");
      context.fill();
      context.stroke();
    }
  }
}

const round = (value) => Math.round(1000 * value) / 1000;
