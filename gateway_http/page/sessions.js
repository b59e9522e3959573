// The list of conversations, newest first.

import { announce } from "./announce.js";
import { deleteSession, exportSession, listSessions } from "./api.js";
import { confirmed, told } from "./dialogs.js";
import { el, iconButton } from "./dom.js";
import { ago, sentenceOf, t } from "./i18n.js";
import { avatar } from "./personas.js";

export const addressOf = (id) => `#c=${encodeURIComponent(id)}`;

/** The id that an address of this page names, or null for a new conversation. */
export function idIn(hash) {
  return new URLSearchParams(hash.slice(1)).get("c");
}

export class Sessions {
  #list = el("ul");
  #note = el("p", { class: "note" });
  #more = el("div", { class: "more" });
  #open = null;
  #on;

  /** `on.deleting(id)` is called before a conversation goes, `on.deleted(id)` when it is gone. */
  constructor(node, on) {
    this.#on = on;
    node.append(el("h2", {}, () => t().conversations), this.#list, this.#more, this.#note);
  }

  /** Marks the conversation that is open. */
  set open(id) {
    this.#open = id;
    for (const link of this.#list.querySelectorAll("a")) mark(link, link.hash === addressOf(id));
  }

  /** Asks the server anew. Never throws: what fails is told in the list's place. */
  async refresh({ unprompted = true } = {}) {
    await this.#load("", (items) => this.#list.replaceChildren(...items), { unprompted });
  }

  async #load(cursor, place, options = {}) {
    try {
      const { sessions, next_cursor: next } = await listSessions(cursor, options);
      place(sessions.map((session) => this.#item(session)));
      this.#more.replaceChildren(...(next ? [this.#moreButton(next)] : []));
      this.#tell(this.#list.childElementCount ? null : () => t().noConversations);
    } catch {
      const again = () => this.refresh({ unprompted: false });
      const button = el("button", { type: "button", class: "quiet", onclick: again }, () => t().retry);
      this.#tell(() => t().conversationsAway, button);
    }
  }

  #tell(text, ...more) {
    this.#note.replaceChildren(...(text ? [el("span", {}, text), ...more] : []));
  }

  #moreButton(cursor) {
    const load = () => this.#load(cursor, (items) => this.#list.append(...items));
    return el("button", { type: "button", class: "quiet", onclick: load }, () => t().more);
  }

  #item(session) {
    const title = () => session.title || t().untitled;
    const link = el("a", { href: addressOf(session.session_id) },
      avatar(session.persona, "small"),
      el("span", { class: "session" },
        el("span", { class: "title" }, title),
        el("small", {}, () => `${ago(session.updated_at)} · ${t().turns(session.turns)}`)));
    mark(link, session.session_id === this.#open);
    return el("li", {}, link,
      iconButton("download", () => t().exportOf(title()), () => save(session.session_id)),
      iconButton("trash", () => t().deleteOf(title()), () => this.delete(session.session_id, title())));
  }

  /** After a confirmation. */
  async delete(id, title) {
    const action = () => t().delete;
    if (!(await confirmed({ title: () => t().deleteQuestion, text: () => t().deleteConsequence(title), action }))) return;
    this.#on.deleting(id);
    try {
      await deleteSession(id);
    } catch (error) {
      if (error.status !== 404) return told(sentenceOf(error)); // 404: gone already
    }
    announce(t().deleted);
    this.#on.deleted(id);
    await this.refresh();
  }
}

function mark(link, open) {
  if (open) link.setAttribute("aria-current", "page");
  else link.removeAttribute("aria-current");
}

/** Downloads the conversation, one turn a line; says so where that cannot be. */
export async function save(id) {
  let turns;
  try {
    turns = await exportSession(id);
  } catch (error) {
    return told(sentenceOf(error));
  }
  const address = URL.createObjectURL(turns);
  el("a", { href: address, download: `ion-${id}.jsonl` }).click();
  setTimeout(() => URL.revokeObjectURL(address), 10_000); // not before the browser has begun to read
}
