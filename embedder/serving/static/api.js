// Calls of this server's own API. What goes wrong is an ApiError, worded for people.

const KEY_NAME = "millpond-key";
const KEY = /^[\x21-\x7e]+$/;

/** `status` is 0 where no answer came; `param` is the part of the request that is at fault. */
export class ApiError extends Error {
  constructor(message, status = 0, param = null, retrySeconds = null) {
    super(message);
    Object.assign(this, { status, param, retrySeconds });
  }
}

/** Keep a key for this tab, or refuse one that no server can have. */
export function setKey(key) {
  if (!KEY.test(key)) throw new ApiError("A key has no blanks and no characters beyond ASCII.", 401);
  sessionStorage.setItem(KEY_NAME, key);
}

export const listIndexes = async (signal) => (await call("v1/indexes", null, signal)).indexes;

/** The hits of a query in one index: {index, model, mode, hits}. Without a vector, by its words. */
export function search(index, { query, vector, mode, k, filter }, signal) {
  const body = { index, query, mode, k };
  if (vector) body.vector = Array.from(vector);
  if (filter) body.filter = filter;
  return call("v1/search", body, signal);
}

/** One Float32Array a text. `role` is query or document; over-long documents are cut. */
export async function embed(model, texts, role, signal) {
  const truncate = role === "document";
  const body = { model, input: texts, input_type: role, truncate, encoding_format: "base64" };
  const answer = await call("v1/embeddings", body, signal);
  return answer.data.map((item) => readVector(item.embedding));
}

async function call(path, body, signal) {
  const headers = {};
  const key = sessionStorage.getItem(KEY_NAME);
  if (key) headers.Authorization = `Bearer ${key}`;
  if (body) headers["Content-Type"] = "application/json";
  const request = { method: body ? "POST" : "GET", headers, signal, cache: "no-store" };
  if (body) request.body = JSON.stringify(body);
  try {
    const answer = await fetch(path, request);
    if (answer.ok) return await answer.json();
    throw readError(answer, await answer.text());
  } catch (error) {
    if (error instanceof ApiError || error.name === "AbortError") throw error;
    throw new ApiError("The server does not answer. Look whether it still runs.");
  }
}

function readError(answer, text) {
  let error = {};
  try {
    error = JSON.parse(text).error ?? {};
  } catch {
    // A proxy in front of the server may answer with a page of its own.
  }
  const seconds = Number(answer.headers.get("Retry-After"));
  return new ApiError(
    error.message ?? `The server answers ${answer.status} ${answer.statusText}`.trim() + ".",
    answer.status,
    error.param ?? null,
    answer.status === 429 ? Math.max(1, seconds || 1) : null,
  );
}

/** Base64 of little-endian float32. */
function readVector(text) {
  const bytes = Uint8Array.from(atob(text), (character) => character.charCodeAt(0));
  return new Float32Array(bytes.buffer);
}
