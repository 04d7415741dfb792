/** A dead server is probed, not hammered. */
import { describe, expect, test } from "vitest";
import { Breaker } from "../../src/deliverer/breaker.ts";

const secondMs = 1_000;
const minuteMs = 60 * secondMs;

/** Fails as often, each time as soon as it may be tried; gives the pauses. */
function pausesOf(breaker: Breaker, failures: number, fromMs: number): number[] {
  const pauses: number[] = [];
  let now = fromMs;
  for (let count = 0; count < failures; count += 1) {
    breaker.failed(now, breaker.tried());
    const until = breaker.retryAtMs(now) ?? now;
    pauses.push(until - now);
    now = until;
  }
  return pauses;
}

describe("a server that fails", () => {
  test("is left alone for a time that doubles, up to five minutes", () => {
    expect(pausesOf(new Breaker(), 9, 0).map((pauseMs) => pauseMs / secondMs)).toEqual([
      5, 10, 20, 40, 80, 160, 300, 300, 300,
    ]);
  });

  test("is not tried within the pause, and is after it", () => {
    const breaker = new Breaker();
    breaker.failed(0, breaker.tried());
    expect(breaker.mayTry(4_999)).toBe(false);
    expect(breaker.retryAtMs(4_999)).toBe(5_000);
    expect(breaker.mayTry(5_000)).toBe(true);
    expect(breaker.retryAtMs(5_000)).toBeUndefined();
  });

  test("is probed by one attempt at a time", () => {
    const breaker = new Breaker();
    breaker.failed(0, breaker.tried());
    const era = breaker.tried();
    expect(breaker.mayTry(minuteMs)).toBe(false);
    breaker.failed(minuteMs, era);
    expect(breaker.mayTry(minuteMs)).toBe(false);
    expect(breaker.mayTry(minuteMs + 10_000)).toBe(true);
  });

  test("is as good as new when it works", () => {
    const breaker = new Breaker();
    pausesOf(breaker, 5, 0);
    breaker.succeeded(breaker.tried());
    expect(breaker.mayTry(0)).toBe(true);
    expect(pausesOf(breaker, 1, 0)).toEqual([5_000]);
  });

  test("a probe that was given up can be made by another", () => {
    const breaker = new Breaker();
    breaker.failed(0, breaker.tried());
    const era = breaker.tried();
    breaker.released(era);
    expect(breaker.mayTry(minuteMs)).toBe(true);
  });
});

test("attempts that were under way together count as one failure", () => {
  const breaker = new Breaker();
  const eras = [breaker.tried(), breaker.tried(), breaker.tried(), breaker.tried(), breaker.tried()];
  for (const [at, era] of eras.entries()) breaker.failed(at, era);
  expect(breaker.retryAtMs(10)).toBe(5_000);
});

test("a late failure from before does not end a probe", () => {
  const breaker = new Breaker();
  const [early, late] = [breaker.tried(), breaker.tried()];
  breaker.failed(0, early);
  breaker.tried(); // the probe
  breaker.failed(minuteMs, late);
  breaker.released(late);
  expect(breaker.mayTry(2 * minuteMs)).toBe(false);
});

test("a success from before a failure does not undo it", () => {
  const breaker = new Breaker();
  const [early, late] = [breaker.tried(), breaker.tried()];
  breaker.failed(0, late);
  breaker.succeeded(early);
  expect(breaker.mayTry(4_999)).toBe(false);
});

test("a clock that is set back lengthens no pause", () => {
  const breaker = new Breaker();
  breaker.failed(1_790_000_000_000, breaker.tried());
  expect(breaker.mayTry(1_000_000_000_000)).toBe(true);
});
