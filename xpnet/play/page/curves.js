// Curves of a figure by epoch: training as a line, test dashed.

import { colour, sharp, short } from "./draw.js";

const MOST = 600;

export class Curve {
  constructor(canvas, { top = null, name, format }) {
    Object.assign(this, { canvas, top, name, format, points: [] });
  }

  clear() {
    this.points = [];
  }

  // Take what an epoch gave; of very many every other one is let go.
  add(epoch, { train = null, test = null }) {
    const last = this.points.at(-1);
    if (last?.epoch === epoch) this.points.pop();
    this.points.push({ epoch, train, test });
    if (this.points.length > MOST) this.points = this.points.filter((_, k) => k % 2 === 0 || k === MOST);
  }

  draw() {
    const { context, width, height } = sharp(this.canvas);
    const [left, right, top, bottom] = [38, width - 6, 8, height - 18];
    const values = this.points.flatMap((point) => [point.train, point.test]).filter((value) => value != null);
    const highest = this.top ?? (Math.max(...values, 0) || 1);
    const last = Math.max(this.points.at(-1)?.epoch ?? 0, 1);
    const x = (epoch) => left + ((right - left) * epoch) / last;
    const y = (value) => bottom - ((bottom - top) * value) / highest;
    Object.assign(context, { font: "11px system-ui, sans-serif", lineWidth: 1, fillStyle: colour("faint") });
    context.strokeStyle = colour("edge");
    for (const share of [0, 0.5, 1]) {
      const level = y(share * highest);
      context.beginPath();
      context.moveTo(left, level);
      context.lineTo(right, level);
      context.stroke();
      context.textAlign = "right";
      context.fillText(this.format(share * highest), left - 5, level + 4);
    }
    context.fillText(`${last}`, right, height - 4);
    context.textAlign = "left";
    context.fillText("0", left, height - 4);
    this.line(context, "test", colour("class-1"), [5, 4], x, y);
    this.line(context, "train", colour("class-0"), [], x, y);
  }

  line(context, set, shade, dashes, x, y) {
    const points = this.points.filter((point) => point[set] != null);
    if (!points.length) return;
    context.beginPath();
    points.forEach((point, k) => context[k ? "lineTo" : "moveTo"](x(point.epoch), y(point[set])));
    context.setLineDash(dashes);
    Object.assign(context, { strokeStyle: shade, lineWidth: 1.8, lineJoin: "round" });
    context.stroke();
    context.setLineDash([]);
  }

  // Say in words what is drawn.
  describe() {
    const last = this.points.at(-1);
    if (!last) return;
    const sets = ["train", "test"].filter((set) => last[set] != null);
    const words = sets.map((set) => `${set === "train" ? "training" : "test"} ${short(last[set])}`);
    this.canvas.setAttribute("aria-label", `${this.name} by epoch; at epoch ${last.epoch}: ${words.join(", ")}`);
  }
}
