// What all pictures stand on: arrays as they travel, colours as the style sheet has them, canvases as sharp as the screen.

export const bytes = (text) => Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
export const floats = (text) => new Float32Array(bytes(text).buffer);

export const byId = (id) => document.getElementById(id);

// Make an element: make("label", {class: "inline"}, "text", child)
export function make(kind, attributes = {}, ...children) {
  const element = document.createElement(kind);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children);
  return element;
}

let colours = {};

// Read the colours anew, after the page has turned dark or light.
export function readColours() {
  const style = getComputedStyle(document.documentElement);
  const hex = (name) => style.getPropertyValue(`--${name}`).trim();
  const names = ["panel", "text", "faint", "edge", "zero", "negative", "positive", "class-0", "class-1", "class-2", "class-3"];
  colours = Object.fromEntries(names.map((name) => [name, hex(name)]));
  const [low, middle, high] = ["negative", "zero", "positive"].map((name) => rgb(colours[name]));
  colours.shades = Array.from({ length: 256 }, (_, shade) => {
    const share = (shade - 128) / 127;
    return mix(middle, share < 0 ? low : high, Math.min(Math.abs(share), 1));
  });
}

export const colour = (name) => colours[name];
export const rgb = (hex) => [1, 3, 5].map((at) => parseInt(hex.slice(at, at + 2), 16));
export const mix = (from, to, share) => from.map((part, k) => Math.round(part + (to[k] - part) * share));

// Put a square of bytes, 128 for zero, on a canvas of as many pixels.
export function paintShades(canvas, shades) {
  const side = Math.sqrt(shades.length);
  paint(canvas, side, (place) => colours.shades[shades[place]]);
}

export function paint(canvas, side, colourAt) {
  if (canvas.width !== side || canvas.height !== side) canvas.width = canvas.height = side;
  const context = canvas.getContext("2d");
  const image = context.createImageData(side, side);
  for (let place = 0; place < side * side; place++) {
    const [red, green, blue] = colourAt(place);
    image.data.set([red, green, blue, 255], 4 * place);
  }
  context.putImageData(image, 0, 0);
}

// Return a context whose unit is a CSS pixel, and the size of its canvas in those.
export function sharp(canvas, width = canvas.clientWidth, height = canvas.clientHeight) {
  const ratio = window.devicePixelRatio || 1;
  const [w, h] = [Math.round(width * ratio), Math.round(height * ratio)];
  if (canvas.width !== w || canvas.height !== h) [canvas.width, canvas.height] = [w, h];
  const context = canvas.getContext("2d");
  context.setTransform(ratio, 0, 0, ratio, 0, 0);
  context.clearRect(0, 0, width, height);
  return { context, width, height };
}

// A class has a form besides its colour.
export function marker(context, label, x, y, r) {
  context.beginPath();
  if (label === 0) context.arc(x, y, r, 0, 2 * Math.PI);
  else if (label === 1) context.rect(x - 0.85 * r, y - 0.85 * r, 1.7 * r, 1.7 * r);
  else if (label === 2) polygon(context, [[x, y - 1.2 * r], [x + 1.2 * r, y], [x, y + 1.2 * r], [x - 1.2 * r, y]]);
  else polygon(context, [[x, y - 1.15 * r], [x + 1.1 * r, y + 0.85 * r], [x - 1.1 * r, y + 0.85 * r]]);
  context.closePath();
}

function polygon(context, corners) {
  context.moveTo(...corners[0]);
  for (const corner of corners.slice(1)) context.lineTo(...corner);
}

export function markerForm(label, x = 8, y = 8, r = 6) {
  const at = (...pairs) => `M${pairs.map(([u, v]) => `${x + u * r} ${y + v * r}`).join("L")}Z`;
  const forms = [
    ["circle", { cx: x, cy: y, r }],
    ["rect", { x: x - 0.85 * r, y: y - 0.85 * r, width: 1.7 * r, height: 1.7 * r }],
    ["path", { d: at([0, -1.2], [1.2, 0], [0, 1.2], [-1.2, 0]) }],
    ["path", { d: at([0, -1.15], [1.1, 0.85], [-1.1, 0.85]) }],
  ];
  const [kind, attributes] = forms[label];
  return [kind, { ...attributes, class: `c${label}` }];
}

// Make a drawing of forms, each a kind and its attributes.
export function svg(side, forms) {
  const space = "http://www.w3.org/2000/svg";
  const element = (kind, attributes) => {
    const made = document.createElementNS(space, kind);
    for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
    return made;
  };
  const drawing = element("svg", { viewBox: `0 0 ${side} ${side}`, "aria-hidden": "true" });
  drawing.append(...forms.map(([kind, attributes]) => element(kind, attributes)));
  return drawing;
}

export const percent = (share) => (share == null ? "–" : `${(100 * share).toFixed(1)} %`);
export const short = (value) => (value == null ? "–" : String(Number(Number(value).toPrecision(3))));
