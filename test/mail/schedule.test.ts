/** The retry schedule: delays grow, are jittered, and no jump of the clock strands a message. */
import * as fc from "fast-check";
import { describe, expect, test } from "vitest";
import { isDue, isExpired, nextAttemptAt, warnDue } from "../../src/mail/schedule.ts";

const minuteMs = 60_000;
const hourMs = 60 * minuteMs;
const dayMs = 24 * hourMs;
const scheduleMs = [minuteMs, 5 * minuteMs, 15 * minuteMs, hourMs, 4 * hourMs];
const arrivedAt = new Date("2026-11-24T03:00:00Z");
const now = new Date("2026-11-24T04:00:00Z");

function waitMs(attempts: number, random: number, expireMs?: number): number {
  return (
    nextAttemptAt({ attempts, arrivedAt, now, scheduleMs, expireMs, random: () => random }).getTime() - now.getTime()
  );
}

describe("waits longer after every attempt", () => {
  test.each([
    [0, 0],
    [1, minuteMs],
    [2, 5 * minuteMs],
    [3, 15 * minuteMs],
    [4, hourMs],
  ])("after %i attempts", (attempts, expectedMs) => {
    expect(waitMs(attempts, 0.5)).toBe(expectedMs);
  });

  test("the last delay repeats", () => {
    expect(waitMs(5, 1)).toBe(4 * hourMs);
    expect(waitMs(6, 1)).toBe(4 * hourMs);
    expect(waitMs(1_000_000, 1)).toBe(4 * hourMs);
  });

  test("a tenth shorter or longer, by chance", () => {
    expect(waitMs(2, 0)).toBe(4.5 * minuteMs);
    expect(waitMs(2, 1)).toBe(5.5 * minuteMs);
  });

  test("but never longer than the longest delay", () => {
    expect(waitMs(5, 0)).toBe(3.6 * hourMs);
    expect(waitMs(5, 0.999_999)).toBeLessThanOrEqual(4 * hourMs);
  });

  test("the attempt behind the expiry is made at the expiry", () => {
    expect(waitMs(5, 0.5, 2 * hourMs)).toBe(hourMs); // an hour old, one hour left
    expect(waitMs(5, 0, hourMs)).toBe(3.6 * hourMs); // already past: no hurry is left
  });
});

test("is never a date that is none, never past, never further away than the longest delay", () => {
  const instant = fc.date({ min: new Date(0), max: new Date("2200-01-01"), noInvalidDate: true });
  const anyInstant = fc.oneof(instant, fc.constant(new Date(Number.NaN)));
  const delays = fc.array(fc.integer({ min: 1, max: 5 * dayMs }), { minLength: 1, maxLength: 8 });
  const attempts = fc.oneof(fc.nat(50), fc.constantFrom(-1, 0.5, Number.NaN, Number.POSITIVE_INFINITY));
  const expire = fc.option(fc.integer({ min: 0, max: 10 * dayMs }), { nil: undefined });
  const random = fc.double({ min: 0, max: 1, maxExcluded: true, noNaN: true });
  fc.assert(
    fc.property(
      anyInstant,
      instant,
      delays,
      attempts,
      expire,
      random,
      (arrived, at, schedule, made, expireMs, chance) => {
        const next = nextAttemptAt({
          attempts: made,
          arrivedAt: arrived,
          now: at,
          scheduleMs: schedule,
          expireMs,
          random: () => chance,
        });
        const wait = next.getTime() - at.getTime();
        expect(wait).toBeGreaterThanOrEqual(0);
        expect(wait).toBeLessThanOrEqual(Math.max(...schedule));
      },
    ),
  );
});

describe("an attempt is due", () => {
  test.each([
    ["when its time has come", 0, true],
    ["when its time is past", -dayMs, true],
    ["not before", 1, false],
    ["not within the longest delay", 4 * hourMs, false],
    ["when it is so far away that the clock was set back", 4 * hourMs + 1, true],
    ["when it is years away", 3650 * dayMs, true],
    ["when its time is none", Number.NaN, true],
  ])("%s", (_, awayMs, isIt) => {
    expect(isDue(new Date(now.getTime() + awayMs), now, scheduleMs)).toBe(isIt);
  });
});

describe("a message expires", () => {
  test.each([
    ["when it is old enough", { attempts: 9, ageMs: 5 * dayMs }, true],
    ["not before", { attempts: 9, ageMs: 5 * dayMs - 1 }, false],
    ["not before it was tried: the relay may have been down for days", { attempts: 0, ageMs: 9 * dayMs }, false],
    ["not when it comes from the future: the clock was set back", { attempts: 9, ageMs: -dayMs }, false],
    ["not when its date is none", { attempts: 9, ageMs: Number.NaN }, false],
  ])("%s", (_, { attempts, ageMs }, isIt) => {
    const at = new Date(now.getTime() - ageMs);
    expect(isExpired({ attempts, arrivedAt: at, now, expireMs: 5 * dayMs })).toBe(isIt);
  });
});

describe("a warning is due", () => {
  test.each([
    ["when the message is late", { attempts: 3, ageMs: 4 * hourMs }, true],
    ["not before", { attempts: 3, ageMs: 4 * hourMs - 1 }, false],
    ["not before an attempt", { attempts: 0, ageMs: dayMs }, false],
    ["not twice", { attempts: 3, ageMs: dayMs, warnedAt: arrivedAt }, false],
  ])("%s", (_, { ageMs, ...history }, isIt) => {
    const at = new Date(now.getTime() - ageMs);
    expect(warnDue({ ...history, arrivedAt: at, now, warnAfterMs: 4 * hourMs })).toBe(isIt);
  });
});
