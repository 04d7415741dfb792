/**
 * The contract of the spool, the part that is about messages: receiving, claiming, settling, deferring, damage.
 */
import { describe, expect, it, onTestFinished } from "vitest";
import { SpoolFault } from "../../src/spool/spool.ts";
import { facts, openSides, type SpoolUnderTest } from "./contract-support.ts";
import {
  claimDue,
  claimNew,
  collect,
  contentOf,
  defer,
  deliver,
  envelope,
  idsOf,
  large,
  only,
  receive,
  small,
} from "./tools.ts";

/** Receiver's and deliverer's side. */
export function describeMessages(driver: string, makeSpool: () => Promise<SpoolUnderTest>): void {
  const opened = () => openSides(makeSpool);

  describe(`${driver}: receiving`, () => {
    it.each([
      ["small", small("one")],
      ["empty", Buffer.alloc(0)],
      ["of every octet", Buffer.from(Array.from({ length: 1024 }, (_, octet) => octet % 256))],
      ["large", large("two")],
    ])("gives out a %s message as it came in", async (_, content) => {
      const { dropBox, spool } = await opened();
      const to = ["orders@corp.example", "postmaster", "x@edi.corp.example"];
      const draft = dropBox.receive();
      const known = {
        receivedAtMs: 1_234,
        partner: "acme",
        toPartner: null,
        envelope: { ...envelope(to), envelopeId: "QQ314159", returnContent: "headers" as const },
        session: { id: "s", address: "192.0.2.1", helo: "mx" },
        sizeBytes: content.length + 9,
        headerBytes: 0,
        eightBit: true,
      };
      await draft.write(Buffer.from(content));
      const meta = await draft.commit(known);
      const message = only(await claimNew(spool));
      expect(message.meta).toEqual(meta);
      expect(message.meta).toEqual({ ...known, id: draft.id, wireBytes: content.length, sha256: meta.sha256 });
      expect(await contentOf(message)).toEqual(content);
      expect(message.pending).toEqual([0, 1, 2].map((index) => ({ index, attempts: 0, nextAttemptAtMs: 0 })));
      expect(message.delayReported).toBe(false);
      expect(message.request).toBeUndefined();
    });

    it("gives out each of many messages that are committed at once, and each once", async () => {
      const { dropBox, spool } = await opened();
      const contents = Array.from({ length: 50 }, (_, n) => (n % 10 === 0 ? large(`m${n}`) : small(`m${n}`)));
      const metas = await Promise.all(contents.map((content) => receive(dropBox, { content })));
      const messages = await claimNew(spool);
      expect(idsOf(messages).toSorted()).toEqual(metas.map(({ id }) => id).toSorted());
      for (const message of messages) {
        const position = metas.findIndex(({ id }) => id === message.meta.id);
        expect(await contentOf(message)).toEqual(contents[position]);
      }
      expect(await claimNew(spool)).toEqual([]);
    });

    it.each([
      ["small", small()],
      ["large", large()],
    ])("shows nothing of a %s draft that is given up", async (_, content) => {
      const { dropBox, spool, admin } = await opened();
      const draft = dropBox.receive();
      await draft.write(content);
      await draft.discard();
      await draft.discard();
      expect(await claimNew(spool)).toEqual([]);
      expect(await collect(admin.list())).toEqual([]);
    });

    it("takes no octet and no commit after a draft has ended", async () => {
      const { dropBox, spool } = await opened();
      for (const end of ["commit", "discard"]) {
        const draft = dropBox.receive();
        await draft.write(small());
        if (end === "commit") await draft.commit(facts);
        else await draft.discard();
        await expect(draft.write(small())).rejects.toThrow(SpoolFault);
        await expect(draft.commit(facts)).rejects.toMatchObject({ kind: "closed" });
      }
      expect(await claimNew(spool)).toHaveLength(1);
    });

    it.each([
      ["small", small()],
      ["large", large()],
    ])("waits at its close for the commit of a %s message, and gives up whatever else there is", async (_, content) => {
      const { dropBox, spool } = await opened();
      const [open, one, two] = [dropBox.receive(), dropBox.receive(), dropBox.receive()];
      for (const draft of [open, one, two]) await draft.write(Buffer.from(content));
      const commits = [one.commit(facts)];
      await new Promise((resolve) => setImmediate(resolve));
      commits.push(two.commit(facts));
      await dropBox.close();
      expect(() => dropBox.receive()).toThrow(SpoolFault);
      await expect(open.write(small())).rejects.toMatchObject({ kind: "closed" });
      await expect(open.commit(facts)).rejects.toMatchObject({ kind: "closed" });
      const messages = await claimNew(spool);
      expect(idsOf(messages).toSorted()).toEqual((await Promise.all(commits)).map(({ id }) => id).toSorted());
      for (const message of messages) expect(await contentOf(message)).toEqual(content);
    });

    it("refuses a message whose envelope could not be read again, and goes on", async () => {
      const { dropBox, spool } = await opened();
      const good = await receive(dropBox);
      const draft = dropBox.receive();
      await draft.write(small());
      await expect(draft.commit({ ...good, receivedAtMs: Number.NaN })).rejects.toThrow(SpoolFault);
      expect(idsOf(await claimNew(spool))).toEqual([good.id]);
    });

    it("gives out reports of our own, and only those may name a partner to go to", async () => {
      const { dropBox, spool, reopen } = await opened();
      const report = await receive(spool.dropBox, { partner: null, toPartner: "acme" });
      const again = await receive(spool.dropBox, { partner: null, toPartner: "acme", content: large() });
      const forged = await receive(dropBox, { toPartner: "acme" });
      expect(idsOf(await claimNew(spool))).toEqual([report.id, again.id]);
      const next = await reopen();
      const messages = await claimNew(next);
      expect(idsOf(messages)).toEqual([report.id, again.id]);
      expect(idsOf(messages)).not.toContain(forged.id);
      expect(await contentOf(only(messages.slice(1)))).toEqual(large());
    });
  });

  describe(`${driver}: claiming and settling`, () => {
    it("gives out the oldest first, no more than asked for, and none twice", async () => {
      const { dropBox, spool } = await opened();
      const ids: string[] = [];
      for (let n = 0; n < 5; n += 1) {
        ids.push((await receive(dropBox)).id);
        await new Promise((resolve) => setTimeout(resolve, 2)); // ids sort by milliseconds
      }
      expect(idsOf(await spool.claimNew({ nowMs: 1, countMax: 2 }))).toEqual(ids.slice(0, 2));
      expect(idsOf(await spool.claimNew({ nowMs: 1, countMax: 0 }))).toEqual([]);
      expect(idsOf(await spool.claimNew({ nowMs: 1, countMax: 9 }))).toEqual(ids.slice(2));
      expect(await claimNew(spool)).toEqual([]);
    });

    it("gives none twice to two who claim at the same time", async () => {
      const { dropBox, spool } = await opened();
      await Promise.all(Array.from({ length: 20 }, () => receive(dropBox)));
      const claims = await Promise.all([1, 2, 3].map(() => spool.claimNew({ nowMs: 1, countMax: 10 })));
      const ids = claims.flatMap(idsOf);
      expect(ids).toHaveLength(20);
      expect(new Set(ids).size).toBe(20);
    });

    it.each([
      ["small", small()],
      ["large", large()],
    ])("forgets a %s message when its last recipient is settled", async (_, content) => {
      const { dropBox, spool, admin, reopen } = await opened();
      await receive(dropBox, { content, to: ["a@corp.example", "b@corp.example"] });
      const message = only(await claimNew(spool));
      spool.settle(message, [0], "delivered");
      spool.settle(message, [1], "failed");
      await spool.putBack(message, { deferred: [], attempts: [], delayReported: false });
      expect(await collect(admin.list())).toEqual([]);
      const next = await reopen();
      expect(await claimNew(next)).toEqual([]);
      expect(await claimDue(next, Number.MAX_SAFE_INTEGER)).toEqual([]);
      expect(next.usage().partnerBytes.size).toBe(0);
    });

    it("finds again what was claimed and not put back, without the recipients that were settled", async () => {
      const { dropBox, spool, reopen } = await opened();
      await receive(dropBox, { to: ["a@corp.example", "b@corp.example", "c@corp.example"], content: large() });
      await receive(dropBox);
      spool.settle(only((await claimNew(spool)).slice(0, 1)), [1], "delivered");
      const [first, second, ...others] = await claimNew(await reopen());
      expect(others).toEqual([]);
      expect(first?.pending.map(({ index }) => index)).toEqual([0, 2]);
      expect(second?.pending.map(({ index }) => index)).toEqual([0]);
    });

    it("refuses to put back a message with a recipient that is neither settled nor deferred; it stays claimed", async () => {
      const { dropBox, spool } = await opened();
      await receive(dropBox, { to: ["a@corp.example", "b@corp.example"] });
      const message = only(await claimNew(spool));
      spool.settle(message, [0], "delivered");
      const nothing = { deferred: [], attempts: [], delayReported: false };
      await expect(spool.putBack(message, nothing)).rejects.toThrow(/not settled/);
      const deferred = [{ index: 1, route: null, attempts: 1, nextAttemptAtMs: Number.NaN }];
      await expect(spool.putBack(message, { ...nothing, deferred })).rejects.toThrow(TypeError);
      await deliver(spool, message);
    });

    it("takes a message back once, and only from whom it gave it to", async () => {
      const { dropBox, spool } = await opened();
      await receive(dropBox);
      await receive(dropBox);
      const [message, other] = await claimNew(spool);
      if (message === undefined || other === undefined) throw new Error("two were committed");
      await deliver(spool, message);
      await expect(deliver(spool, message)).rejects.toThrow(/already/);
      await expect(deliver(spool, { ...other })).rejects.toThrow(TypeError);
      await deliver(spool, other);
    });

    it("lets one deliverer open it at a time", async () => {
      const { under, reopen } = await opened();
      await expect(under.openSpool()).rejects.toMatchObject({ name: "SpoolFault", kind: "locked" });
      await reopen();
    });

    it("lets one receiver open it at a time", async () => {
      const { under, dropBox } = await opened();
      await expect(under.openDropBox()).rejects.toMatchObject({ name: "SpoolFault", kind: "locked" });
      await dropBox.close();
      await (await under.openDropBox()).close();
    });

    it("tells when something arrives", async () => {
      const { dropBox, spool } = await opened();
      const hint = new Promise<void>((resolve) => {
        const watcher = spool.watch(resolve);
        onTestFinished(() => watcher.close());
      });
      await receive(dropBox);
      await hint;
    });

    it("claims nothing once it is closed", async () => {
      const { dropBox, spool } = await opened();
      await receive(dropBox);
      await spool.close();
      await spool.close();
      await expect(claimNew(spool)).rejects.toMatchObject({ kind: "closed" });
    });
  });

  describe(`${driver}: deferring`, () => {
    it("gives a deferred message out when it is due, with what is known of its attempts", async () => {
      const { dropBox, spool, reopen } = await opened();
      const content = large();
      const { id } = await receive(dropBox, { to: ["a@corp.example", "b@corp.example"], content });
      await defer(spool, only(await claimNew(spool)), 20_000);
      expect(await claimDue(spool, 19_999)).toEqual([]);
      expect(spool.nextDueAtMs()).toBe(20_000);
      const again = only(await claimDue(spool, 20_000));
      expect(again.meta.id).toBe(id);
      expect(again.pending).toEqual([0, 1].map((index) => ({ index, attempts: 1, nextAttemptAtMs: 20_000 })));
      expect(await contentOf(again)).toEqual(content);
      expect(await claimDue(spool, 90_000)).toEqual([]);
      await defer(spool, again, 30_000);
      const next = await reopen();
      expect(await claimNew(next)).toEqual([]);
      expect(only(await claimDue(next, 30_000)).pending[0]?.attempts).toBe(2);
    });

    it("keeps apart who is settled, who is due, and who is not due yet", async () => {
      const { dropBox, spool, reopen } = await opened();
      await receive(dropBox, { to: ["a@corp.example", "b@corp.example", "c@corp.example"] });
      const message = only(await claimNew(spool));
      spool.settle(message, [1], "delivered");
      const deferred = [
        { index: 0, route: "r", attempts: 3, nextAttemptAtMs: 20_000 },
        { index: 2, route: "s", attempts: 1, nextAttemptAtMs: 50_000 },
      ];
      await spool.putBack(message, { deferred, attempts: [], delayReported: true });
      const next = await reopen();
      const again = only(await claimDue(next, 20_000));
      expect(again.pending).toEqual(
        deferred.map(({ index, attempts, nextAttemptAtMs }) => ({ index, attempts, nextAttemptAtMs })),
      );
      expect(again.delayReported).toBe(true);
      await deliver(next, again);
      expect(await claimDue(next, 90_000)).toEqual([]);
    });

    it("shares turns among partners and routes, and leaves busy routes alone", async () => {
      const { dropBox, spool } = await opened();
      for (const partner of [...Array<string>(20).fill("acme"), "globex"]) await receive(dropBox, { partner });
      for (const message of await claimNew(spool)) await defer(spool, message, 20_000, "internal");
      const other = await receive(dropBox, { partner: "acme" });
      await defer(spool, only(await claimNew(spool)), 20_000, "other");
      const partnersOf = (messages: Awaited<ReturnType<typeof claimNew>>) => messages.map(({ meta }) => meta.partner);
      const request = { nowMs: 30_000, countMax: 2 };
      expect(idsOf(await spool.claimDue({ ...request, busyRoutes: ["internal"] }))).toEqual([other.id]);
      const turns = [
        await spool.claimDue({ ...request, busyRoutes: [] }),
        await spool.claimDue({ ...request, busyRoutes: [] }),
      ].flat();
      expect(partnersOf(turns)).toContain("globex");
      expect(await spool.claimDue({ ...request, busyRoutes: ["internal", "other"] })).toEqual([]);
    });

    it("finds what is due behind messages with many recipients that are claimed", async () => {
      const { dropBox, spool } = await opened();
      const to = Array.from({ length: 50 }, (_, n) => `r${n}@corp.example`);
      for (let n = 0; n < 3; n += 1) await receive(dropBox, { to });
      for (const message of await claimNew(spool)) await defer(spool, message, 20_000);
      const { id } = await receive(dropBox);
      await defer(spool, only(await claimNew(spool)), 21_000);
      const request = { nowMs: 30_000, countMax: 3, busyRoutes: [] };
      expect(await spool.claimDue(request)).toHaveLength(3);
      expect(idsOf(await spool.claimDue(request))).toEqual([id]);
    });

    it("keeps a wait at its length when the clock is set back", async () => {
      const { dropBox, spool, reopen } = await opened();
      await receive(dropBox);
      const yearMs = 365 * 86_400_000;
      await defer(spool, only(await claimNew(spool, yearMs)), yearMs + 5_000);
      expect(await claimDue(spool, 10_000)).toEqual([]);
      const again = only(await claimDue(spool, 15_000));
      await defer(spool, again, 17_000);
      const next = await reopen();
      expect(await claimDue(next, 8_000)).toEqual([]);
      expect(await claimDue(next, 10_001)).toHaveLength(1);
    });

    it("gives what is overdue when the clock is set forward", async () => {
      const { dropBox, spool } = await opened();
      await receive(dropBox);
      await defer(spool, only(await claimNew(spool)), 20_000);
      expect(await claimDue(spool, Date.parse("2036-01-01"))).toHaveLength(1);
    });
  });

  describe(`${driver}: damage`, () => {
    it.each([
      ["small", small("damaged")],
      ["large", large("damaged")],
    ])("keeps a %s message that is damaged for a person, and gives out the others", async (_, content) => {
      const { under, dropBox, spool, admin, reopen } = await opened();
      const [sound, bad, fine] = await Promise.all([
        receive(dropBox),
        receive(dropBox, { content }),
        receive(dropBox, { content: large("fine") }),
      ]);
      await under.damage(bad.id);
      const seen: string[] = [];
      for (const message of await claimNew(spool)) {
        try {
          await contentOf(message);
          seen.push(message.meta.id);
          await defer(spool, message, 20_000);
        } catch (error) {
          expect(error).toMatchObject({ name: "SpoolFault", kind: "damaged" });
          await spool.setAside(message, "it is damaged");
        }
      }
      expect(seen.toSorted()).toEqual([sound.id, fine.id].toSorted());
      expect(await under.isKept(content.subarray(0, 16))).toBe(true);
      expect(idsOf(await collect(admin.list())).toSorted()).toEqual(seen.toSorted());
      const next = await reopen();
      expect(await claimNew(next)).toEqual([]);
      expect(await claimDue(next, 20_000)).toHaveLength(2);
    });
  });
}
