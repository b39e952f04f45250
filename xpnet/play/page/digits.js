// Images of the test set, and what the network takes each for.

import { bytes, make, paint } from "./draw.js";

export class Digits {
  constructor(root) {
    Object.assign(this, { root, labels: [] });
  }

  setData({ digits, labels }) {
    this.labels = labels;
    this.root.replaceChildren(...digits.map((digit, k) => {
      const canvas = make("canvas");
      const shades = bytes(digit);
      paint(canvas, 28, (place) => Array(3).fill(255 - shades[place]));
      return make("div", { role: "img", "aria-label": `a ${labels[k]}` }, canvas, make("span", {}, "–"));
    }));
  }

  // Show what each is taken for; return how many are taken wrong.
  see(taken) {
    const wrong = taken.filter((digit, k) => digit !== this.labels[k]).length;
    taken.forEach((digit, k) => {
      const cell = this.root.children[k];
      const right = digit === this.labels[k];
      cell.classList.toggle("wrong", !right);
      cell.lastChild.textContent = right ? `${digit}` : `${digit} ✗`;
      cell.setAttribute("aria-label", `a ${this.labels[k]}, taken for a ${digit}`);
    });
    return wrong;
  }
}
