// Questions that must be answered first.

import { el } from "./dom.js";
import { t } from "./i18n.js";

/** Resolves to whether the user agreed. */
export function confirmed({ title, text, action }) {
  return ask((close) => [
    el("h2", { id: "question" }, title),
    el("p", {}, text),
    el("div", { class: "choices" },
      el("button", { type: "button", class: "plain", autofocus: true, onclick: () => close(false) }, () => t().cancel),
      el("button", { type: "button", class: "danger", onclick: () => close(true) }, action)),
  ]);
}

/** Says something that must not be missed. */
export function told(text) {
  return ask((close) => [
    el("h2", { id: "question" }, text),
    el("div", { class: "choices" },
      el("button", { type: "button", class: "primary", autofocus: true, onclick: () => close() }, () => t().close)),
  ]);
}

/** Resolves to the key, or false. */
export function askedForKey({ refused }) {
  return ask((close) => {
    const field = el("input", {
      type: "password",
      id: "key",
      autocomplete: "off",
      required: true,
      pattern: "\\s*[!-~]+\\s*", // what a header may hold
      autofocus: true,
      "aria-describedby": "key-text",
    });
    const use = (event) => {
      event.preventDefault();
      close(field.value.trim() || false);
    };
    return [
      el("form", { onsubmit: use },
        el("h2", { id: "question" }, () => t().keyTitle),
        el("p", { id: "key-text" },
          refused && el("strong", { class: "refused" }, () => t().keyRefused), " ",
          () => t().keyText),
        el("label", { for: "key" }, () => t().keyLabel),
        field,
        el("div", { class: "choices" },
          el("button", { type: "button", class: "plain", onclick: () => close(false) }, () => t().cancel),
          el("button", { type: "submit", class: "primary" }, () => t().keyUse))),
    ];
  });
}

function ask(contents) {
  return new Promise((resolve) => {
    let answer = false;
    const close = (value) => {
      answer = value;
      dialog.close();
    };
    const dialog = el("dialog", { "aria-labelledby": "question" });
    dialog.append(...contents(close));
    dialog.addEventListener("close", () => {
      dialog.remove();
      resolve(answer);
    });
    document.body.append(dialog);
    dialog.showModal();
  });
}
