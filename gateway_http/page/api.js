// Speaks to ION: every request of the page is made here, relative to where the page is.

import { readEvents } from "./sse.js";
import { apiKey, userId } from "./store.js";

/** What the server, or the way to it, refused. `reason` is one of the API's, or UNREACHABLE or BROKEN_OFF. */
export class ApiError extends Error {
  constructor({ status = 0, reason, detail = "", retryAfterSeconds = null, requestId = null, retryable = true }) {
    super(detail);
    Object.assign(this, { status, reason, retryAfterSeconds, requestId, retryable });
  }
}

let askForKey = async () => false;

/**
 * `ask({ refused, unprompted })` is called on a 401; it resolves to whether a key was given that is worth another try.
 * Requests that the page makes by itself are `unprompted`.
 */
export function onUnauthenticated(ask) {
  askForKey = ask;
}

async function send(path, { method = "GET", body, accept = "application/json", signal, unprompted = false } = {}) {
  for (;;) {
    const key = apiKey.get();
    const response = await attempt(path, { method, body, signal, headers: headersOf(key, accept, body) });
    if (response.ok) return response;
    const error = await errorOf(response);
    if (response.status !== 401) throw error;
    // Meanwhile another request may have got a key: then it is worth a try without asking.
    const changed = apiKey.get() !== key;
    if (!changed && !(await askForKey({ refused: key !== null, unprompted }))) throw error;
  }
}

function headersOf(key, accept, body) {
  const headers = { Accept: accept, "X-User-Id": userId() };
  if (body !== undefined) headers["Content-Type"] = "application/json";
  if (key) headers.Authorization = `Bearer ${key}`;
  return headers;
}

async function attempt(path, options) {
  try {
    const body = options.body === undefined ? undefined : JSON.stringify(options.body);
    // Without `cache`: it would send a Cache-Control header, which here speaks to ION's own cache.
    return await fetch(path, { ...options, body, credentials: "same-origin" });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ApiError({ reason: "UNREACHABLE" });
  }
}

async function errorOf(response) {
  const told = await response.json().catch(() => ({}));
  const detail = Array.isArray(told.detail) ? told.detail.map((item) => item.msg).join("; ") : told.detail;
  const seconds = parseInt(response.headers.get("Retry-After"), 10);
  return new ApiError({
    status: response.status,
    reason: told.reason ?? (response.status === 422 ? "INVALID" : "UNKNOWN"),
    detail: detail ?? response.statusText,
    retryAfterSeconds: Number.isFinite(seconds) ? seconds : null,
    requestId: told.request_id ?? response.headers.get("X-Request-Id"),
    retryable: ![404, 413, 415, 422].includes(response.status),
  });
}

async function json(path, options) {
  return (await send(path, options)).json();
}

export const listPersonas = async () => (await json("personas", { unprompted: true })).personas;

/** Newest first: { sessions, next_cursor }. */
export const listSessions = (cursor, options) => json(`sessions?${query({ limit: 30, cursor })}`, options);

/** Newest first: { messages, next_cursor }. */
export const listMessages = (id, cursor = "") =>
  json(`sessions/${encodeURIComponent(id)}/messages?${query({ limit: 50, order: "desc", cursor })}`);

export const deleteSession = (id) => send(`sessions/${encodeURIComponent(id)}`, { method: "DELETE" });

export const exportSession = async (id) =>
  (await send(`sessions/${encodeURIComponent(id)}/export`, { accept: "application/x-ndjson" })).blob();

function query(members) {
  return new URLSearchParams(Object.entries(members).filter(([, value]) => value !== "" && value !== null));
}

/**
 * Sends a message and yields { kind, ...data } as the answer comes: "routing", "delta"s, then "done".
 * Throws ApiError, also after some text; aborting `signal` ends it with an AbortError, and the model call with it.
 */
export async function* chat({ message, sessionId, persona, signal }) {
  const body = { message, session_id: sessionId, user_id: userId(), ...(persona && { persona }) };
  const response = await send("chat", { method: "POST", body, accept: "text/event-stream", signal });
  const type = response.headers.get("Content-Type") ?? "";
  yield* type.startsWith("text/event-stream") ? streamed(response, signal) : whole(await response.json());
}

/** Reads on after the last event until the server has ended the answer, as it does at once: leaving is for stopping. */
async function* streamed(response, signal) {
  let failure = new ApiError({ reason: "BROKEN_OFF" });
  try {
    for await (const { event, data } of readEvents(response.body)) {
      const told = JSON.parse(data);
      if (event === "error") failure = errorIn(told);
      else yield { kind: event, ...told };
      if (event === "done") failure = null;
    }
  } catch (error) {
    if (failure && signal?.aborted) throw error;
  }
  if (failure) throw failure;
}

function errorIn(told) {
  return new ApiError({
    status: 200,
    reason: told.reason,
    detail: told.detail,
    retryAfterSeconds: told.retry_after_seconds ?? null,
    requestId: told.request_id,
    retryable: told.retryable,
  });
}

/** An answer that did not come as a stream: the gateway's own apology. */
function* whole(answer) {
  if (answer.metadata.routing) yield { kind: "routing", ...answer };
  yield { kind: "delta", text: answer.content };
  yield { kind: "done", ...answer };
}
