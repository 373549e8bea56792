import { describe, expect, it, vi } from "vitest";
import { ApiError, onRefusal, take } from "./client";

const answer = (status: number, error?: unknown, headers?: HeadersInit) =>
  Promise.resolve({ error, response: new Response(null, { status, headers }) });

describe("take", () => {
  it("says what a problem document says, as a sentence", async () => {
    const heard = vi.fn();
    const stop = onRefusal(heard);
    const failed = take(answer(422, { detail: "device id is empty", code: "invalid", request_id: "7Q4M" }));
    await expect(failed).rejects.toMatchObject({
      message: "Device id is empty.",
      code: "invalid",
      requestId: "7Q4M",
      status: 422,
    });
    expect(heard).toHaveBeenCalledOnce();
    stop();
  });
  it("says that nobody answers", async () => {
    await expect(take(Promise.reject(new TypeError("Failed to fetch")))).rejects.toBeInstanceOf(ApiError);
    await expect(take(Promise.reject(new TypeError("Failed to fetch")))).rejects.toMatchObject({ status: 0 });
  });
  it("keeps how long to wait", async () => {
    await expect(take(answer(429, undefined, { "Retry-After": "11" }))).rejects.toMatchObject({
      retryAfterSeconds: 11,
    });
  });
});
