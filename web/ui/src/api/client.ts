import createClient from "openapi-fetch";
import type { components, paths } from "./schema";

export type Schemas = components["schemas"];

/** The API, typed by its own OpenAPI document. The session travels as a cookie. */
export const http = createClient<paths>({ baseUrl: "/api/v1", credentials: "same-origin" });

/** A refusal by the API, with what it says to a person. */
export class ApiError extends Error {
  readonly status: number;
  readonly code: string;
  readonly requestId: string;
  readonly fields: { location?: string; message?: string }[];
  readonly retryAfterSeconds: number;

  constructor(status: number, problem: Partial<Schemas["Problem"]> | undefined, response?: Response) {
    super(asSentence(problem?.detail || sentenceFor(status)));
    this.name = "ApiError";
    this.status = status;
    this.code = problem?.code ?? "";
    this.requestId = problem?.request_id ?? response?.headers.get("X-Request-Id") ?? "";
    this.fields = problem?.errors ?? [];
    this.retryAfterSeconds = Number(response?.headers.get("Retry-After") ?? 0);
  }
}

/** Go writes errors in small letters and without a stop. */
function asSentence(text: string): string {
  const first = text.charAt(0).toUpperCase() + text.slice(1);
  return /[.!?]$/.test(first) ? first : `${first}.`;
}

function sentenceFor(status: number): string {
  if (status === 0) return "Cordon does not answer. Check that it runs and that the network reaches it.";
  if (status >= 500) return `Cordon answered with status ${status}. Nothing was changed.`;
  return `Cordon refused this with status ${status}.`;
}

type Answer<T> = { data?: T; error?: unknown; response: Response };

/** Turns an answer into its data, or throws an ApiError. */
export async function take<T>(answer: Promise<Answer<T>>): Promise<T> {
  let got: Answer<T>;
  try {
    got = await answer;
  } catch (cause) {
    if (cause instanceof DOMException && cause.name === "AbortError") throw cause;
    throw new ApiError(0, undefined);
  }
  if (!got.response.ok) {
    const problem = typeof got.error === "object" && got.error ? (got.error as Partial<Schemas["Problem"]>) : undefined;
    const error = new ApiError(got.response.status, problem, got.response);
    for (const listener of refusals) listener(error);
    throw error;
  }
  return got.data as T;
}

const refusals = new Set<(error: ApiError) => void>();

/** Calls listener on every refusal: the shell sends people to sign in from here. */
export function onRefusal(listener: (error: ApiError) => void): () => void {
  refusals.add(listener);
  return () => refusals.delete(listener);
}
