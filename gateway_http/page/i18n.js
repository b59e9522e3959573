// The language of the page: Korean or English, each a table of texts. The language of replies is the message's own.

import { refresh } from "./dom.js";
import { settings } from "./store.js";
import english from "./english.js";
import korean from "./korean.js";

const TABLES = { en: english, ko: korean };

export const language = () => (document.documentElement.lang === "ko" ? "ko" : "en");

/** The texts, as functions where they have parts. */
export const t = () => TABLES[language()];

export function setLanguage(name) {
  document.documentElement.lang = name;
  settings.set("language", name);
  translatePage();
  refresh();
}

/** The page's word for a word of the API ("frustrated", "RATE_LIMITED"); null where it has none. */
export function word(table, name) {
  return Object.hasOwn(t()[table], name) ? t()[table][name] : null;
}

/** What to say of a failure: in the page's words, or else the server's. */
export const sentenceOf = ({ reason, message }) => word("errors", reason) ?? message;

/** A tone, pace or intent. */
export const label = (name) => word("labels", name) ?? name.replaceAll("_", " ");

/** Fills what index.html leaves to be filled: data-text, data-label (and title), data-placeholder name a text. */
export function translatePage() {
  document.title = t().title;
  for (const node of document.querySelectorAll("[data-text]")) node.textContent = t()[node.dataset.text];
  for (const node of document.querySelectorAll("[data-placeholder]")) node.placeholder = t()[node.dataset.placeholder];
  for (const node of document.querySelectorAll("[data-label]")) {
    node.setAttribute("aria-label", t()[node.dataset.label]);
    if (node.localName === "button") node.title = t()[node.dataset.label];
  }
}

export function number(value, options = {}) {
  return new Intl.NumberFormat(language(), options).format(value);
}

export function percent(share) {
  return number(share, { style: "percent", maximumFractionDigits: 0 });
}

/** Two digits that matter: 0.083 ms, 12 ms, 1.4 s. */
export function duration(milliseconds) {
  const [value, unit] = milliseconds < 1000 ? [milliseconds, "ms"] : [milliseconds / 1000, "s"];
  return `${number(value, { maximumSignificantDigits: value < 100 ? 2 : 3 })} ${unit}`;
}

export function dollars(amount) {
  return number(amount, { style: "currency", currency: "USD", maximumSignificantDigits: 2 });
}

const UNITS = [
  ["day", 86_400],
  ["hour", 3_600],
  ["minute", 60],
  ["second", Infinity], // "now"
];

/** "5 minutes ago", or the day where it was over a week ago. */
export function ago(time) {
  const seconds = Math.max(0, (Date.now() - new Date(time).getTime()) / 1000);
  if (seconds > 7 * 86_400) return new Intl.DateTimeFormat(language(), { dateStyle: "medium" }).format(new Date(time));
  const [unit, length] = UNITS.find(([unit, length]) => seconds >= length || unit === "second");
  return new Intl.RelativeTimeFormat(language(), { numeric: "auto" }).format(-Math.floor(seconds / length), unit);
}

/** The language of a text for whoever reads it aloud: Korean where it has any Hangul. */
export const languageOf = (text) => (/[\u3131-\u318e\uac00-\ud7a3]/.test(text) ? "ko" : "en");
