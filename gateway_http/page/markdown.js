// The little Markdown that models write, as DOM nodes: paragraphs, headings, lists, quotes, tables, code, emphasis.
// Whatever is none of these is shown as it was written; HTML is text like any other.

import { el } from "./dom.js";
import { t } from "./i18n.js";

const FENCE = /^ {0,3}(`{3,}|~{3,})\s*([\w+#.-]*)/;
const HEADING = /^(#{1,6})\s+(.+?)\s*#*$/;
const ITEM = /^(\s*)([-*+]|\d{1,9}[.)])\s+(.*)$/;
const QUOTE = /^>\s?(.*)$/;
const RULE = /^ {0,3}([-*_])(\s*\1){2,}\s*$/;
const DIVIDER = /^\s*\|?\s*:?-+:?\s*(\|\s*:?-+:?\s*)*\|?\s*$/;
const CODE = /(?<!`)(`{1,2})(?!`)([^`]+)\1(?!`)/;
const BOLD = /\*\*(?=\S)([^*]+?(?:\*[^*]+\*[^*]*?)?)\*\*|__(?=\S)([^_]+?)__(?!\w)/;
const ITALIC = /\*(?=[^\s*])([^*]+?)\*|\b_(?=[^\s_])([^_]+?)_\b/;
const SPAN = new RegExp([CODE, BOLD, ITALIC].map((kind) => kind.source).join("|"), "g");

/** Shows the text in the node. Blocks that are as before stay the same nodes, so that a selection outlives new text. */
export function renderMarkdown(node, text) {
  const blocks = blocksOf(text.split("\n"));
  blocks.forEach((block, index) => {
    const shown = node.children[index];
    if (shown?.source === block.source) return;
    const made = block.make();
    made.source = block.source;
    if (shown) shown.replaceWith(made);
    else node.append(made);
  });
  while (node.children.length > blocks.length) node.lastElementChild.remove();
}

function blocksOf(lines) {
  const blocks = [];
  for (let at = 0; at < lines.length; ) {
    if (!lines[at].trim()) {
      at += 1;
      continue;
    }
    const { end, make } = blockAt(lines, at);
    blocks.push({ source: lines.slice(at, end).join("\n"), make });
    at = end;
  }
  return blocks;
}

function blockAt(lines, at) {
  const line = lines[at];
  if (FENCE.test(line)) return code(lines, at);
  if (HEADING.test(line)) return { end: at + 1, make: () => heading(line) };
  if (RULE.test(line)) return { end: at + 1, make: () => el("hr") };
  if (QUOTE.test(line)) return quote(lines, at);
  if (ITEM.test(line)) return list(lines, at);
  if (startsTable(lines, at)) return table(lines, at);
  return paragraph(lines, at);
}

function endOf(lines, from, goesOn) {
  let end = from;
  while (end < lines.length && goesOn(lines[end], end)) end += 1;
  return end;
}

function code(lines, at) {
  const [, fence, language] = FENCE.exec(lines[at]);
  const closing = endOf(lines, at + 1, (line) => !(line.trim().startsWith(fence) && !line.trim().replaceAll(fence[0], "")));
  const text = lines.slice(at + 1, closing).join("\n");
  // Focusable, since it may be wider than the page and must then be scrolled with the keyboard.
  const label = () => (language ? `${t().code}: ${language}` : t().code);
  const make = () => el("pre", { tabindex: 0, role: "group", "aria-label": label, lang: "en" }, el("code", {}, text));
  return { end: Math.min(closing + 1, lines.length), make };
}

/** One level below those of the page. */
function heading(line) {
  const [, marks, text] = HEADING.exec(line);
  return el(`h${Math.min(6, marks.length + 2)}`, {}, spans(text));
}

function quote(lines, at) {
  const end = endOf(lines, at, (line) => QUOTE.test(line));
  const inner = lines.slice(at, end).map((line) => QUOTE.exec(line)[1]);
  return { end, make: () => el("blockquote", {}, el("p", {}, spans(inner.join("\n")))) };
}

function paragraph(lines, at) {
  const end = endOf(lines, at + 1, (line, index) => line.trim() && !startsBlock(lines, index));
  return { end, make: () => el("p", {}, spans(lines.slice(at, end).join("\n"))) };
}

function startsBlock(lines, at) {
  return [FENCE, HEADING, RULE, QUOTE, ITEM].some((kind) => kind.test(lines[at])) || startsTable(lines, at);
}

function list(lines, at) {
  // A line further in, or text right after an item, belongs to it; so does one empty line between items.
  const end = endOf(
    lines,
    at,
    (line, index) =>
      ITEM.test(line) ||
      (line.trim() ? !startsBlock(lines, index) && lines[index - 1]?.trim() : ITEM.test(lines[index + 1] ?? "")),
  );
  const items = itemsOf(lines.slice(at, end));
  return { end, make: () => nested(items) };
}

function itemsOf(lines) {
  const items = [];
  for (const line of lines) {
    const found = ITEM.exec(line);
    if (found) items.push({ depth: found[1].length, marker: found[2], text: found[3] });
    else if (line.trim()) items.at(-1).text += `\n${line.trim()}`;
  }
  return items;
}

/** Items that are further in than the first are lists within the item before them. */
function nested(items) {
  const ordered = /\d/.test(items[0].marker);
  const first = parseInt(items[0].marker, 10);
  const node = el(ordered ? "ol" : "ul", { start: ordered && first !== 1 && first });
  for (let at = 0; at < items.length; ) {
    const end = endOf(items, at + 1, (item) => item.depth > items[0].depth + 1);
    const item = el("li", {}, spans(items[at].text));
    if (end > at + 1) item.append(nested(items.slice(at + 1, end)));
    node.append(item);
    at = end;
  }
  return node;
}

function startsTable(lines, at) {
  return lines[at].includes("|") && (lines[at + 1] ?? "").includes("|") && DIVIDER.test(lines[at + 1]);
}

function table(lines, at) {
  const end = endOf(lines, at + 2, (line) => line.includes("|"));
  const rows = lines.slice(at + 2, end).map(cellsOf);
  const row = (cells, tag, attributes = {}) => el("tr", {}, cells.map((cell) => el(tag, attributes, spans(cell))));
  const make = () =>
    el("div", { class: "table", tabindex: 0, role: "group", "aria-label": () => t().table },
      el("table", {},
        el("thead", {}, row(cellsOf(lines[at]), "th", { scope: "col" })),
        el("tbody", {}, rows.map((cells) => row(cells, "td")))));
  return { end, make };
}

function cellsOf(line) {
  return line.trim().replace(/^\|/, "").replace(/\|$/, "").split("|").map((cell) => cell.trim());
}

/** Text with code, bold and italic in it. */
function spans(text) {
  const nodes = [];
  let from = 0;
  for (const found of text.matchAll(SPAN)) {
    if (found.index > from) nodes.push(text.slice(from, found.index));
    nodes.push(span(found));
    from = found.index + found[0].length;
  }
  nodes.push(text.slice(from));
  return nodes;
}

function span([, ticks, codeText, bold, underlined, italic, slanted]) {
  if (ticks) return el("code", {}, codeText);
  const strong = bold ?? underlined;
  return strong === undefined ? el("em", {}, italic ?? slanted) : el("strong", {}, spans(strong));
}
