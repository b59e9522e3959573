// Why a persona was chosen, and how its answer came: the part of a reply that unfolds.

import { el } from "./dom.js";
import { dollars, duration, label, number, percent, t, word } from "./i18n.js";
import { nameOf, tint } from "./personas.js";

// A second tone less likely than this is no information.
const WORTH_NAMING = 0.15;

/** A bar with a name before it and its share after it. */
function meter(name, share) {
  const bar = el("span", {
    class: "meter",
    role: "meter",
    "aria-label": name,
    "aria-valuemin": 0,
    "aria-valuemax": 1,
    "aria-valuenow": share.toFixed(3),
    "aria-valuetext": () => percent(share),
  });
  bar.style.setProperty("--share", share);
  return bar;
}

/** The scores of all personas, highest first. */
export function scoreBars(scores, chosen) {
  const rows = Object.entries(scores).sort(([, one], [, other]) => other - one);
  return el("ul", { class: "scores" }, rows.map(([persona, score]) =>
    tint(el("li", { class: persona === chosen ? "chosen" : "" },
      el("span", { class: "who" }, () => nameOf(persona)),
      meter(() => nameOf(persona), score),
      el("span", { class: "share", "aria-hidden": "true" }, () => percent(score))), persona)));
}

/** The same at a glance, in the persona's own order, as decoration. */
export function smallBars(scores) {
  const bars = Object.entries(scores).map(([persona, score]) => {
    const bar = tint(el("i"), persona);
    bar.style.setProperty("--share", score);
    return bar;
  });
  return el("span", { class: "small-bars", "aria-hidden": "true" }, bars);
}

function part(title, ...children) {
  return el("section", { class: "part" }, el("h3", {}, title), children);
}

export function scoresPart(routing, chosen) {
  return part(() => t().scores, scoreBars(routing.scores, chosen));
}

/** Tone, pace and intent, each with how certain it is. */
export function readingPart({ tone, rhythm, intent, read_by: readBy }) {
  const doubtful = tone.secondary && tone.secondary_confidence >= WORTH_NAMING;
  const other = tone.abstained ? () => t().unclear : doubtful && (() => t().orElse(label(tone.secondary)));
  return part(
    () => t().read,
    el("dl", { class: "reading" },
      reading(() => t().tone, tone.primary, tone.confidence, other),
      reading(() => t().pace, rhythm.pace, rhythm.confidence),
      intent && reading(() => t().intent, intent.primary, intent.confidence)),
    readBy === "model" && el("p", { class: "aside" }, () => t().readByModel));
}

function reading(title, value, confidence, note) {
  return el("div", {},
    el("dt", {}, title),
    el("dd", {}, el("b", {}, () => label(value)), note && el("span", { class: "note" }, note)),
    el("dd", { class: "sureness" },
      meter(title, confidence),
      el("span", { "aria-hidden": "true" }, () => t().certain(percent(confidence)))));
}

/** Where only the key is known: of a stored turn. */
export function keyPart(key) {
  const [tone, pace, intent] = key.split("-");
  const rows = [[() => t().tone, tone], [() => t().pace, pace], [() => t().intent, intent]];
  return part(() => t().read, facts(rows.filter(([, value]) => value).map(([title, value]) => [title, () => label(value)])));
}

/** What the answer took; what is not known is left out. */
export function spentPart({ usage, cache, model, location, offline, attempts, estimated_cost_usd: cost }) {
  const saved = cache === "hit" || cache === "coalesced";
  const rows = [
    [() => t().cacheTitle, () => word("cache", cache) ?? cache],
    [() => t().model, () => (offline ? t().offline : model)],
    !offline && location && [() => t().location, () => location],
    [() => t().tokens, () => t().tokensOf(number(usage.input_tokens), number(usage.output_tokens))],
    cost != null && [() => t().cost, () => (saved ? t().saved(dollars(cost)) : dollars(cost))],
    attempts > 1 && [() => t().attempts, () => number(attempts)],
  ];
  return part(() => t().spent, facts(rows.filter(Boolean)));
}

/** The server's times, and those that this page has measured. */
export function timesPart(timings, { firstMs, wholeMs }) {
  const rows = [
    [() => t().analysisTime, timings.analysis_ms],
    [() => t().routingTime, timings.routing_ms],
    [() => t().historyTime, timings.history_ms],
    [() => t().modelTime, timings.llm_ms],
    [() => t().firstToken, firstMs],
    [() => t().whole, wholeMs],
  ];
  const known = rows.filter(([, value]) => value != null);
  return part(() => t().times, facts(known.map(([title, value]) => [title, () => duration(value)]), "times"));
}

export function modelPart(model) {
  return part(() => t().spent, facts([[() => t().model, () => model]]));
}

function facts(rows, more = "") {
  const row = ([title, value]) => el("div", {}, el("dt", {}, title), el("dd", {}, value));
  return el("dl", { class: `facts ${more}` }, rows.map(row));
}

let numbers = 0;

/** The button that unfolds, and what it unfolds: [button, panel]. */
export function unfolding(persona, scores, ...parts) {
  const id = `why-${(numbers += 1)}`;
  const panel = el("div", { class: "why", id, hidden: true }, parts);
  const attributes = { type: "button", class: "why-button", "aria-expanded": "false", "aria-controls": id };
  const name = el("span", {}, () => t().why(nameOf(persona)));
  const button = el("button", { ...attributes, onclick: toggle }, scores && smallBars(scores), name);
  function toggle() {
    panel.hidden = !panel.hidden;
    button.setAttribute("aria-expanded", String(!panel.hidden));
    if (!panel.hidden) panel.scrollIntoView({ block: "nearest" });
  }
  return [button, panel];
}
