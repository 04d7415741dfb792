import { describe, expect, it } from "vitest";
import { HandshakeRates } from "../../src/receiver/handshake-rates.ts";
import { TokenBucket } from "../../src/receiver/token-bucket.ts";

const minute = (amount: number) => ({ amount, periodMs: 60_000 });

function takeOne(bucket: TokenBucket, nowMs: number): boolean {
  if (!bucket.holds(1, nowMs)) return false;
  bucket.take(1, nowMs);
  return true;
}

const take = (bucket: TokenBucket, nowMs: number, times: number) =>
  Array.from({ length: times }, () => takeOne(bucket, nowMs)).filter(Boolean).length;

describe("a rate", () => {
  it("lets a minute's worth pass at once, and then what refills", () => {
    const bucket = new TokenBucket(minute(60), 0);
    expect(take(bucket, 0, 100)).toBe(60);
    expect(take(bucket, 999, 1)).toBe(0);
    expect(take(bucket, 2000, 10)).toBe(2);
    expect(take(bucket, 3_600_000, 100)).toBe(60);
  });

  it("gains nothing when the clock is set back, and refills from then on", () => {
    const bucket = new TokenBucket(minute(60), 3_600_000);
    expect(take(bucket, 3_600_000, 60)).toBe(60);
    expect(take(bucket, 0, 1)).toBe(0);
    expect(take(bucket, 3000, 10)).toBe(3);
  });

  it("of a day refills over the day", () => {
    const bucket = new TokenBucket({ amount: 24, periodMs: 86_400_000 }, 0);
    expect(take(bucket, 0, 100)).toBe(24);
    expect(take(bucket, 3_599_000, 1)).toBe(0);
    expect(take(bucket, 5 * 3_600_000, 100)).toBe(5);
  });

  it("lets what is larger than the bucket pass when it is full, and then nothing until the debt is paid", () => {
    const bucket = new TokenBucket(minute(60), 0);
    expect(bucket.holds(150, 0)).toBe(true);
    bucket.take(150, 0);
    expect(bucket.holds(1, 89_000)).toBe(false);
    expect(bucket.holds(1, 91_000)).toBe(true);
    expect(bucket.holds(150, 149_000)).toBe(false);
    expect(bucket.holds(150, 150_000)).toBe(true);
  });

  it("takes back what was not used, and no more than it can hold", () => {
    const bucket = new TokenBucket(minute(60), 0);
    bucket.take(60, 0);
    bucket.take(-20, 0);
    expect(take(bucket, 0, 100)).toBe(20);
    bucket.take(-1000, 0);
    expect(take(bucket, 0, 100)).toBe(60);
  });

  it("that is changed is no new minute", () => {
    const bucket = new TokenBucket(minute(60), 0);
    expect(take(bucket, 0, 55)).toBe(55);
    bucket.setRate(minute(1000));
    expect(take(bucket, 0, 100)).toBe(5);
    bucket.setRate(minute(3));
    expect(take(bucket, 3_600_000, 100)).toBe(3);
  });

  it("that was never used up has no level to remember, another has the one that it goes on from", () => {
    const bucket = new TokenBucket(minute(60), 0);
    expect(bucket.level(0)).toBeUndefined();
    bucket.take(80, 0);
    expect(bucket.level(0)).toEqual({ tokens: -20, atMs: 0 });
    const next = new TokenBucket(minute(60), 30_000, { tokens: -20, atMs: 0 });
    expect(next.level(30_000)).toEqual({ tokens: 10, atMs: 30_000 });
    expect(bucket.level(80_000)).toBeUndefined();
  });
});

describe("the handshakes of addresses", () => {
  it("are counted each for itself", () => {
    const rates = new HandshakeRates();
    expect([1, 2, 3].map(() => rates.take("a", 2, 0))).toEqual([true, true, false]);
    expect(rates.take("b", 2, 0)).toBe(true);
    expect(rates.take("a", 2, 30_000)).toBe(true);
    expect(rates.take("a", 2, 30_000)).toBe(false);
  });

  it("are remembered of 10,000 addresses, and those go first that were not seen for longest", () => {
    const rates = new HandshakeRates();
    rates.take("early", 1, 0);
    rates.take("steady", 1, 0);
    for (let index = 0; index < 20_000; index += 1) {
      rates.take(`a${index}`, 1, 0);
      if (index % 1000 === 0) expect(rates.take("steady", 1, 0)).toBe(false);
    }
    expect(rates.addresses).toBe(10_000);
    expect(rates.take("early", 1, 0)).toBe(true);
    expect(rates.take("a19999", 1, 0)).toBe(false);
  });
});
