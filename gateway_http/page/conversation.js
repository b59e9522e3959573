// One conversation: its turns on the page, and the answer that is being written.

import { ApiError, chat, listMessages } from "./api.js";
import { el } from "./dom.js";
import { languageOf, t } from "./i18n.js";
import { Reply } from "./reply.js";
import { randomId } from "./store.js";

export class Conversation {
  node = el("ol", { class: "turns" });
  id;
  title;
  #stopping = null;
  #changed;
  #earlier = null;

  /** `changed` is called when an answer begins and when it has ended. Without an id it is a new one. */
  constructor({ id = randomId(), title = "", changed }) {
    Object.assign(this, { id, title });
    this.#changed = changed;
  }

  get running() {
    return this.#stopping !== null;
  }

  get empty() {
    return this.node.childElementCount === 0;
  }

  /** The newest turns that the server keeps, with a way to those before them. Throws ApiError. */
  async load(cursor = "") {
    const { messages, next_cursor: next } = await listMessages(this.id, cursor);
    this.#earlier?.remove();
    const turns = messages.reverse().flatMap((turn) => [said(turn.message), Reply.stored(turn).node]);
    this.#earlier = next ? this.#earlierButton(next) : null;
    this.node.prepend(...[this.#earlier, ...turns].filter(Boolean));
    this.title ||= messages[0]?.message ?? "";
  }

  /** Sends a message and shows the answer as it comes; `persona` null lets ION choose. */
  async say(message, persona) {
    this.title ||= message;
    const reply = this.#replyTo(message, persona);
    this.node.append(said(message), reply.node);
    await this.#answer(reply, message, persona);
  }

  stop() {
    this.#stopping?.abort();
  }

  #replyTo(message, persona) {
    const reply = new Reply(() => {
      if (this.running) return;
      const again = this.#replyTo(message, persona);
      reply.node.replaceWith(again.node);
      this.#answer(again, message, persona);
    });
    return reply;
  }

  async #answer(reply, message, persona) {
    const stopping = new AbortController();
    this.#stopping = stopping;
    this.#changed(this);
    try {
      for await (const event of chat({ message, persona, sessionId: this.id, signal: stopping.signal })) show(reply, event);
    } catch (error) {
      if (stopping.signal.aborted) reply.stopped();
      else reply.fail(error);
      if (!stopping.signal.aborted && !(error instanceof ApiError)) throw error;
    } finally {
      this.#stopping = null;
      this.#changed(this);
    }
  }

  #earlierButton(cursor) {
    const load = () => this.load(cursor).catch(() => button.toggleAttribute("disabled", false));
    const button = el("button", { type: "button", class: "quiet", onclick: load }, () => t().earlier);
    return el("li", { class: "earlier" }, button);
  }
}

function show(reply, { kind, ...told }) {
  if (kind === "routing") reply.chosen(told);
  else if (kind === "delta") reply.add(told.text);
  else if (kind === "done") reply.done(told);
}

function said(message) {
  const by = el("h2", { class: "unseen" }, () => t().you);
  return el("li", { class: "said" }, by, el("p", { lang: languageOf(message) }, message));
}
