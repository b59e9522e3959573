// One answer, from "reading your message" to its end: text as it comes, who wrote it, why, and what went wrong.

import { announce } from "./announce.js";
import { ApiError } from "./api.js";
import { append, el, icon, iconButton, replaceChildren } from "./dom.js";
import { duration, languageOf, percent, sentenceOf, t, word } from "./i18n.js";
import { renderMarkdown } from "./markdown.js";
import { avatar, nameOf, roleOf, tint } from "./personas.js";
import { keyPart, modelPart, readingPart, scoresPart, spentPart, timesPart, unfolding } from "./why.js";

export class Reply {
  node = el("li", { class: "reply", "aria-busy": "true" });
  #head = el("header", { class: "head" });
  #reason = el("p", { class: "reason", hidden: true });
  #text = el("div", { class: "text" });
  #notices = el("div", { class: "notices" });
  #foot = el("footer", { class: "foot" });
  #panel = null;
  #face = el("span", { class: "avatar waiting" });
  #persona = null;
  #written = "";
  #drawing = 0;
  #began = performance.now();
  #firstMs = null;
  #retry;

  /** `retry` asks the same again, in this one's place. */
  constructor(retry) {
    this.#retry = retry;
    this.#head.append(el("p", { class: "waiting-text" }, () => t().reading));
    this.node.append(this.#face, el("article", {}, this.#head, this.#reason, this.#text, this.#notices, this.#foot));
  }

  /** A turn of long ago, as the server keeps it. */
  static stored({ reply, persona_used: persona, confidence, resonance_key: key, model }) {
    const made = new Reply(null);
    made.#name(persona, confidence);
    made.#write(reply);
    made.#unfold(persona, null, keyPart(key), model && modelPart(model));
    append(made.#foot, made.#copyButton());
    made.#end();
    return made;
  }

  /** Who answers and why: before any text. The gateway's own apology was not chosen, and has no why. */
  chosen({ persona_used: persona, confidence, metadata }) {
    const { routing } = metadata;
    this.#name(persona, confidence, routing?.pinned);
    if (!routing) return;
    this.#explain(routing.reasoning);
    this.#unfold(persona, routing.scores, scoresPart(routing, persona), metadata.tone && readingPart(metadata));
  }

  add(text) {
    this.#firstMs ??= performance.now() - this.#began;
    this.#written += text;
    this.#drawing ||= requestAnimationFrame(() => this.#draw());
  }

  /** `answer` may be an apology: then it is another persona's, and says so. */
  done({ persona_used: persona, confidence, metadata, timings, content }) {
    const measured = { firstMs: this.#firstMs, wholeMs: performance.now() - this.#began };
    if (!this.#written && content) this.#written = content;
    this.#draw();
    if (metadata.fallback) this.#apologise(persona, metadata.error);
    else if (persona !== this.#persona) this.#name(persona, confidence);
    if (metadata.llm) this.#tellHowItCame(metadata.llm, measured);
    this.#panel?.append(timesPart(timings ?? {}, measured));
    if (metadata.history === "unavailable") this.#notice("info", () => t().notRemembered);
    this.#end();
    announce(t().answered(nameOf(persona), this.#text.innerText), languageOf(this.#written));
  }

  stopped() {
    this.#draw();
    if (!this.#persona) this.#withoutPersona();
    this.#notice("info", () => t().stopped, this.#retryButton());
    this.#end();
    announce(t().stopped);
  }

  fail(error) {
    this.#draw();
    if (!this.#persona) this.#withoutPersona();
    const told = error instanceof ApiError ? error : new ApiError({ reason: "BROKEN_OFF" });
    const says = () => sentenceOf(told);
    const request = told.requestId && el("span", { class: "request" }, () => `${t().requestId} ${told.requestId}`);
    this.#notice("error", says, told.retryable && this.#retryButton(told.retryAfterSeconds), request);
    this.#end();
    announce(says());
  }

  #name(persona, confidence, pinned = false) {
    this.#persona = persona;
    tint(this.node, persona);
    const face = avatar(persona);
    this.#face.replaceWith(face);
    this.#face = face;
    const title = () => (pinned ? t().whyAsked : null);
    replaceChildren(
      this.#head,
      el("h2", {}, () => nameOf(persona)),
      el("span", { class: "role" }, () => roleOf(persona)),
      confidence > 0 && el("span", { class: "match", title }, () => t().match(percent(confidence))),
    );
  }

  #withoutPersona() {
    this.#head.replaceChildren();
    this.#face.classList.replace("waiting", "failed");
    this.#face.append(icon("alert"));
  }

  #explain(sentence) {
    this.#reason.hidden = !sentence;
    this.#reason.lang = languageOf(sentence);
    this.#reason.replaceChildren(sentence);
  }

  #unfold(persona, scores, ...parts) {
    const [button, panel] = unfolding(persona, scores, ...parts.filter(Boolean));
    this.#panel = panel;
    this.#foot.prepend(button);
    this.node.append(panel);
  }

  #apologise(persona, error) {
    this.#name(persona, 0);
    const says = () => [t().apology, word("errors", error?.reason)].filter(Boolean).join(" ");
    this.#notice("warning", says, error?.retryable !== false && this.#retryButton());
  }

  #tellHowItCame(llm, { firstMs, wholeMs }) {
    this.#panel?.append(spentPart(llm));
    const took = () => duration(firstMs ?? wholeMs);
    append(
      this.#foot,
      el("span", { class: `cache ${llm.cache}` }, () => word("cache", llm.cache) ?? llm.cache),
      el("span", { class: "took", title: () => t().firstToken }, took),
      this.#copyButton());
    if (llm.finish_reason === "max_tokens") this.#notice("info", () => t().cutOff);
  }

  #write(text) {
    this.#written = text;
    this.#draw();
  }

  #draw() {
    cancelAnimationFrame(this.#drawing);
    this.#drawing = 0;
    this.#text.lang = languageOf(this.#written);
    renderMarkdown(this.#text, this.#written);
    this.node.dispatchEvent(new Event("grow", { bubbles: true }));
  }

  #end() {
    this.node.removeAttribute("aria-busy");
    this.node.dispatchEvent(new Event("grow", { bubbles: true }));
  }

  #notice(kind, text, ...more) {
    this.#notices.append(el("div", { class: `notice ${kind}` }, el("p", {}, text), more.filter(Boolean)));
  }

  #copyButton() {
    if (!navigator.clipboard) return null; // only over HTTPS and on this machine
    const copy = async () => {
      await navigator.clipboard.writeText(this.#written);
      button.replaceChildren(icon("check"));
      announce(t().copied);
    };
    const button = iconButton("copy", () => t().copy, copy);
    return button;
  }

  /** Sleeps until the server wants to be asked again, and says how long that is. */
  #retryButton(seconds = 0) {
    const text = el("span", {}, () => t().retry);
    const button = el("button", { type: "button", class: "retry", onclick: () => this.#retry() }, icon("retry"), text);
    if (!seconds) return button;
    const wait = el("span", { class: "wait" });
    countDown(seconds, (left) => {
      button.disabled = left > 0;
      wait.textContent = left > 0 ? t().comeBack(timeLeft(left)) : "";
    });
    return el("span", { class: "waiting-retry" }, wait, button);
  }
}

function timeLeft(seconds) {
  return seconds < 90 ? t().seconds(seconds) : t().minutes(Math.ceil(seconds / 60));
}

function countDown(seconds, tell) {
  const end = Date.now() + seconds * 1000;
  const tick = () => {
    const left = Math.ceil((end - Date.now()) / 1000);
    tell(left);
    if (left <= 0) clearInterval(timer);
  };
  const timer = setInterval(tick, 1000);
  tick();
}
