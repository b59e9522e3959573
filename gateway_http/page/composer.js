// Where messages are written: the field, its counter, who is to answer, and the button that sends or stops.

import { announce } from "./announce.js";
import { bind, el, icon } from "./dom.js";
import { number, t } from "./i18n.js";
import { avatar, nameOf, names, roleOf, tint } from "./personas.js";

const MOST_CHARACTERS = 1000;
const COUNTED_FROM = 800;

export class Composer {
  #form;
  #field;
  #count = el("output", { class: "count", for: "message" });
  #button = el("button", { type: "submit", class: "send" });
  #personas = el("fieldset", { class: "personas" });
  #running = false;
  #loading = false;
  #on;

  /** `on.send(message, persona)` and `on.stop()` are called as the user wishes. */
  constructor(form, on) {
    this.#form = form;
    this.#on = on;
    this.#field = this.#makeField();
    form.append(
      el("label", { class: "unseen", for: "message" }, () => t().message),
      this.#field,
      el("p", { id: "hint", class: "unseen" }, () => t().hint),
      el("div", { class: "under" }, this.#personas, this.#count, this.#button));
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      if (this.#running) this.#on.stop();
      else this.#send();
    });
    this.showPersonas();
    bind(this.#button, () => this.#drawButton());
    this.#measure();
  }

  focus() {
    this.#field.focus();
  }

  /** While an answer is written the button stops it, and nothing is sent. */
  set running(running) {
    this.#running = running;
    this.#drawButton();
    this.#measure();
    if (!running && document.activeElement === this.#button) this.focus(); // the button may have gone to sleep
  }

  /** While the turns of a conversation are on their way one may write, but not send. */
  set loading(loading) {
    this.#loading = loading;
    this.#form.setAttribute("aria-busy", String(loading));
    this.#measure();
  }

  showPersonas() {
    const chosen = this.#persona();
    this.#personas.replaceChildren(
      el("legend", { class: "unseen" }, () => t().answerBy),
      this.#choice("", chosen === ""),
      ...names().map((persona) => this.#choice(persona, chosen === persona)));
    this.#personas.hidden = names().length === 0;
  }

  #makeField() {
    return el("textarea", {
      id: "message",
      rows: 1,
      placeholder: () => t().placeholder,
      "aria-describedby": "hint",
      autocomplete: "off",
      enterkeyhint: "send",
      oninput: () => this.#measure(),
      onkeydown: (event) => this.#onKey(event),
    });
  }

  /** Enter that ends the composition of a syllable (Korean, Japanese, ...) is no wish to send; 229 is Safari's sign. */
  #onKey(event) {
    if (event.key !== "Enter" || event.shiftKey || event.isComposing || event.keyCode === 229) return;
    event.preventDefault();
    if (!this.#running) this.#send();
  }

  #send() {
    const message = this.#field.value.trim();
    if (!message) return;
    if (this.#loading) return announce(t().loading);
    if (lengthOf(message) > MOST_CHARACTERS) {
      announce(t().tooLong(lengthOf(message) - MOST_CHARACTERS));
      return;
    }
    this.#field.value = "";
    this.#measure();
    this.#on.send(message, this.#persona() || null);
  }

  #measure() {
    const used = lengthOf(this.#field.value.trim());
    const over = used > MOST_CHARACTERS;
    this.#count.value = t().count(number(used), number(MOST_CHARACTERS));
    this.#count.setAttribute("aria-label", t().countLabel(used, MOST_CHARACTERS));
    this.#count.classList.toggle("near", used > COUNTED_FROM);
    this.#count.classList.toggle("over", over);
    this.#field.setAttribute("aria-invalid", String(over));
    this.#button.disabled = !this.#running && (this.#loading || used === 0 || over);
    this.#grow();
  }

  /** For browsers that cannot size a field by its content. */
  #grow() {
    if (CSS.supports("field-sizing", "content")) return;
    this.#field.style.height = "auto";
    this.#field.style.height = `${this.#field.scrollHeight}px`;
  }

  #drawButton() {
    const name = this.#running ? t().stop : t().send;
    this.#button.replaceChildren(icon(this.#running ? "stop" : "send"));
    this.#button.setAttribute("aria-label", name);
    this.#button.title = name;
    this.#button.classList.toggle("stopping", this.#running);
  }

  #choice(persona, checked) {
    const onchange = () => tint(this.#form, this.#persona());
    const input = el("input", { type: "radio", name: "persona", value: persona, class: "unseen", checked, onchange });
    const face = persona ? avatar(persona, "small") : icon("auto");
    const text = persona ? () => nameOf(persona) : () => t().automatic;
    const title = persona ? () => roleOf(persona) : () => t().automaticRole;
    return tint(el("label", { class: "choice", title }, input, face, el("span", {}, text)), persona);
  }

  #persona() {
    return this.#personas.querySelector("input:checked")?.value ?? "";
  }
}

/** In characters as the server counts them, not in UTF-16 units. */
function lengthOf(text) {
  return [...text].length;
}
