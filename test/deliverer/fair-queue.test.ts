/** Turns among partners. */
import * as fc from "fast-check";
import { expect, test } from "vitest";
import { FairQueue } from "../../src/deliverer/fair-queue.ts";

test("partners take turns, whatever each has waiting", () => {
  const queue = new FairQueue<string>();
  for (let count = 1; count <= 4; count += 1) queue.add("acme", `a${count}`);
  queue.add("globex", "g1");
  queue.add("initech", "i1");
  queue.add("globex", "g2");
  expect([queue.length, queue.partners, queue.lengthOf("acme"), queue.lengthOf("nobody")]).toEqual([7, 3, 4, 0]);
  const taken = Array.from({ length: 8 }, () => queue.take());
  expect(taken).toEqual(["a1", "g1", "i1", "a2", "g2", "a3", "a4", undefined]);
  expect([queue.length, queue.partners]).toEqual([0, 0]);
});

test("who comes late waits for one turn of each, not for all that is waiting", () => {
  const queue = new FairQueue<string>();
  for (let count = 0; count < 5_000; count += 1) queue.add("acme", "a");
  for (let count = 0; count < 100; count += 1) queue.take();
  queue.add("globex", "g");
  expect([queue.take(), queue.take()]).toContain("g");
});

test("a partner's own come out in order, nothing is lost and nothing comes twice", () => {
  const steps = fc.array(fc.oneof(fc.constantFrom("a", "b", "c", "d"), fc.constant(undefined)), { maxLength: 300 });
  fc.assert(
    fc.property(steps, (partners) => {
      const queue = new FairQueue<{ partner: string; serial: number }>();
      const taken: Array<{ partner: string; serial: number }> = [];
      let added = 0;
      for (const partner of partners) {
        if (partner === undefined) taken.push(...[queue.take()].filter((item) => item !== undefined));
        else queue.add(partner, { partner, serial: added++ });
        expect(queue.length).toBe(added - taken.length);
      }
      taken.push(...queue.takeAll());
      expect(queue.length).toBe(0);
      expect(taken.length).toBe(added);
      for (const name of ["a", "b", "c", "d"]) {
        const serials = taken.filter(({ partner }) => partner === name).map(({ serial }) => serial);
        expect(serials).toEqual(serials.toSorted((x, y) => x - y));
      }
    }),
  );
});

test("its calls cost the same with 200,000 waiting as with few", () => {
  const costNs = (length: number): bigint => {
    const queue = new FairQueue<number>();
    for (let item = 0; item < length; item += 1) queue.add("acme", item);
    const from = process.hrtime.bigint();
    for (let count = 0; count < length; count += 1) {
      queue.add("acme", count);
      queue.take();
    }
    return (process.hrtime.bigint() - from) / BigInt(length);
  };
  costNs(20_000); // warm
  // Linear calls would make it a hundred times as much; a garbage collection may come in between.
  expect(Number(costNs(200_000))).toBeLessThan(20 * Number(costNs(2_000)) + 2_000);
});
