import { describe, expect, it } from "vitest";
import { TokenBucket } from "../../src/receiver/token-bucket.ts";

const take = (bucket: TokenBucket, nowMs: number, times: number) =>
  Array.from({ length: times }, () => bucket.take(nowMs)).filter(Boolean).length;

describe("a rate", () => {
  it("lets a minute's worth pass at once, and then what refills", () => {
    const bucket = new TokenBucket(60, 0);
    expect(take(bucket, 0, 100)).toBe(60);
    expect(take(bucket, 999, 1)).toBe(0);
    expect(take(bucket, 2000, 10)).toBe(2);
    expect(take(bucket, 3_600_000, 100)).toBe(60);
  });

  it("gains nothing when the clock is set back, and refills from then on", () => {
    const bucket = new TokenBucket(60, 3_600_000);
    expect(take(bucket, 3_600_000, 60)).toBe(60);
    expect(take(bucket, 0, 1)).toBe(0);
    expect(take(bucket, 3000, 10)).toBe(3);
  });
});
