// Builds elements. Text is always text: nothing here, and nothing on this page, interprets HTML.

// What to render anew for a node; as long as the node lives, and no longer.
const renders = new WeakMap();

/**
 * An element with attributes, listeners (`onclick`) and children: nodes, strings, or nothing (null, false).
 * A function in place of an attribute or a string is called now and whenever the language changes.
 */
export function el(tag, attributes = {}, ...children) {
  return fill(document.createElement(tag), attributes, children);
}

/** The same for SVG. */
export function svg(tag, attributes = {}, ...children) {
  return fill(document.createElementNS("http://www.w3.org/2000/svg", tag), attributes, children);
}

function fill(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (typeof value === "function") bind(node, () => setAttribute(node, name, value()));
    else setAttribute(node, name, value);
  }
  append(node, ...children);
  return node;
}

/** Children as `el` takes them, after those that are there. */
export function append(node, ...children) {
  node.append(...nodesOf(children));
}

/** Children as `el` takes them, instead of those that are there. */
export function replaceChildren(node, ...children) {
  node.replaceChildren(...nodesOf(children));
}

function nodesOf(children) {
  return children.flat().filter((child) => child != null && child !== false).map(asNode);
}

function asNode(child) {
  if (typeof child !== "function") return child;
  const text = document.createTextNode("");
  bind(text, () => {
    text.data = child();
  });
  return text;
}

function setAttribute(node, name, value) {
  if (value == null || value === false) node.removeAttribute(name);
  else node.setAttribute(name, value === true ? "" : value);
}

/** Calls `render` now, and on each `refresh` of a tree that the node is in. */
export function bind(node, render) {
  render();
  renders.set(node, [...(renders.get(node) ?? []), render]);
}

/** Renders what is bound to the tree's nodes. */
export function refresh(root = document.body) {
  const walker = document.createTreeWalker(root, NodeFilter.SHOW_ELEMENT | NodeFilter.SHOW_TEXT);
  for (let node = walker.currentNode; node; node = walker.nextNode()) {
    for (const render of renders.get(node) ?? []) render();
  }
}

const ICONS = {
  menu: ["M4 7h16", "M4 12h16", "M4 17h10"],
  plus: ["M12 5v14", "M5 12h14"],
  send: ["M12 19V5", "M5.5 11.5 12 5l6.5 6.5"],
  stop: ["M8 8h8v8H8z"],
  trash: ["M5 7h14", "M10 7V5h4v2", "M7 7l1 12h8l1-12", "M10.5 11v4.5", "M13.5 11v4.5"],
  download: ["M12 4v11", "M7.5 11 12 15.5 16.5 11", "M5 19.5h14"],
  sun: ["M12 8.5a3.5 3.5 0 1 0 0 7 3.5 3.5 0 0 0 0-7z", "M12 3v2M12 19v2M3 12h2M19 12h2M5.6 5.6 7 7M17 17l1.4 1.4M18.4 5.6 17 7M7 17l-1.4 1.4"],
  moon: ["M19 14.5A7.5 7.5 0 0 1 9.5 5a7.5 7.5 0 1 0 9.5 9.5z"],
  retry: ["M18.5 8.5A7.5 7.5 0 1 0 19.5 13", "M19.5 4.5v4.5H15"],
  copy: ["M9 9h10v10H9z", "M15 9V5H5v10h4"],
  check: ["M5 12.5 10 17.5 19 7"],
  close: ["M6.5 6.5l11 11", "M17.5 6.5l-11 11"],
  key: ["M8.5 11.5a4 4 0 1 0 0 8 4 4 0 0 0 0-8z", "M11.5 12.5 19 5", "M15.5 8.5 18 11"],
  chevron: ["M9 6l6 6-6 6"],
  alert: ["M12 6.5v7", "M12 17.2v.1"],
  auto: ["M12 4l1.8 5.2L19 11l-5.2 1.8L12 18l-1.8-5.2L5 11l5.2-1.8z", "M18.5 16.5v4M16.5 18.5h4"],
};

/** A small line drawing; decoration, so that whatever holds it must have a name of its own. */
export function icon(name) {
  const lines = ICONS[name].map((d) => svg("path", { d }));
  return svg("svg", { class: "icon", viewBox: "0 0 24 24", "aria-hidden": "true", focusable: "false" }, lines);
}

/** A button with an icon alone; `label` is a function giving its name. */
export function iconButton(name, label, onclick, attributes = {}) {
  const usual = { type: "button", class: "icon-button", "aria-label": label, title: label, onclick };
  return el("button", { ...usual, ...attributes }, icon(name));
}
