/**
 * The contract of the spool, the operator's part: what may be asked for a message in any state, and when it is done.
 */
import { describe, expect, it } from "vitest";
import { type QueueSelection } from "../../src/spool/spool.ts";
import { openSides, type Opened, type SpoolUnderTest } from "./contract-support.ts";
import { claimDue, claimNew, collect, defer, deliver, idsOf, large, only, receive, small } from "./tools.ts";

/** The operator's side, beside a deliverer. */
export function describeOperator(driver: string, makeSpool: () => Promise<SpoolUnderTest>): void {
  const opened = () => openSides(makeSpool);

  describe(`${driver}: the operator`, () => {
    type Action = "hold" | "release" | "retry" | "remove" | "bounce";
    type State = "incoming" | "active" | "deferred" | "held";

    /** Puts one message into a state; gives how to go on with it. */
    async function inState(state: State, { dropBox, spool, admin }: Opened, content = small()) {
      const { id } = await receive(dropBox, { to: ["a@corp.example", "b@corp.example"], content });
      if (state === "incoming") return { id, claimed: undefined };
      const claimed = only(await claimNew(spool));
      if (state === "active") return { id, claimed };
      await defer(spool, claimed, 20_000);
      if (state === "held") await admin.hold({ ids: [id] });
      return { id, claimed: undefined };
    }

    it.each<[Action, State, "done" | "requested" | "unchanged"]>([
      ["hold", "incoming", "requested"],
      ["hold", "active", "requested"],
      ["hold", "deferred", "done"],
      ["hold", "held", "unchanged"],
      ["release", "incoming", "unchanged"],
      ["release", "active", "unchanged"],
      ["release", "deferred", "unchanged"],
      ["release", "held", "done"],
      ["retry", "incoming", "unchanged"],
      ["retry", "active", "unchanged"],
      ["retry", "deferred", "done"],
      ["retry", "held", "unchanged"],
      ["remove", "incoming", "requested"],
      ["remove", "active", "requested"],
      ["remove", "deferred", "requested"],
      ["remove", "held", "requested"],
      ["bounce", "incoming", "requested"],
      ["bounce", "active", "requested"],
      ["bounce", "deferred", "requested"],
      ["bounce", "held", "requested"],
    ])("can %s a message that is %s, and is told that it is %s", async (action, state, outcome) => {
      const all = await opened();
      const { spool, admin, reopen } = all;
      const { id, claimed } = await inState(state, all, large());
      expect(await admin[action]({ ids: [id] })).toEqual([{ id, outcome }]);
      if (claimed !== undefined) await defer(spool, claimed, 20_000);
      // Now, and once more if the deliverer dies before it has done anything about it.
      for (const turn of [1, 2]) {
        const deliverer = turn === 1 ? spool : await reopen();
        const found = [...(await claimDue(deliverer, 11_000)), ...(await claimNew(deliverer, 11_000))];
        const entry = await admin.show(id);
        const isHeld = action === "hold" || (state === "held" && (action === "retry" || action === "bounce"));
        switch (action) {
          case "hold":
            expect(found).toEqual([]);
            expect(entry).toMatchObject({ state: "held", request: null });
            break;
          case "retry":
          case "release":
            // It waits until 20 s unless it was made due.
            expect(found).toHaveLength(outcome === "done" || state === "incoming" ? 1 : 0);
            if (isHeld) expect(entry?.state).toBe("held");
            break;
          case "remove":
            // Removed at one of the two claims.
            expect(found).toEqual([]);
            await claimDue(deliverer, 11_000);
            expect(await admin.show(id)).toBeUndefined();
            break;
          case "bounce":
            expect(only(found)).toMatchObject({ request: "bounce", meta: { id } });
            break;
        }
      }
    });

    it("can take a request back before it is honoured", async () => {
      const all = await opened();
      const { spool, admin } = all;
      const { id } = await inState("incoming", all);
      for (const action of ["hold", "remove", "bounce"] as const) {
        await admin[action]({ ids: [id] });
        expect(await admin.show(id)).toMatchObject({ request: action });
      }
      expect(await admin.release({ ids: [id] })).toEqual([{ id, outcome: "done" }]);
      const message = only(await claimNew(spool));
      expect(message.request).toBeUndefined();
      await deliver(spool, message);
    });

    it("bounces: gives the message out with the request, once, also a held one, until it is settled", async () => {
      const all = await opened();
      const { spool, admin } = all;
      const { id } = await inState("held", all);
      await admin.bounce({ ids: [id] });
      const message = only(await claimDue(spool));
      expect(message.request).toBe("bounce");
      expect(await claimDue(spool)).toEqual([]);
      spool.settle(message, [0, 1], "failed");
      await spool.putBack(message, { deferred: [], attempts: [], delayReported: false });
      expect(await admin.show(id)).toBeUndefined();
      expect(await claimDue(spool)).toEqual([]);
    });

    it("removes nothing of a message that is delivered before the request is honoured, nor of any later one", async () => {
      const all = await opened();
      const { dropBox, spool, admin } = all;
      const { id, claimed } = await inState("active", all);
      await admin.remove({ ids: [id] });
      if (claimed !== undefined) await deliver(spool, claimed);
      for (let n = 0; n < 4; n += 1) expect(await claimNew(spool)).toEqual([]);
      const later = await receive(dropBox);
      expect(idsOf(await claimNew(spool))).toEqual([later.id]);
    });

    it("removes thousands in little time, and leaves the rest", async () => {
      const { dropBox, spool, admin } = await opened();
      await Promise.all(Array.from({ length: 1_000 }, () => receive(dropBox)));
      const { id } = await receive(dropBox, { partner: "globex" });
      const claimed = [...(await claimNew(spool)), ...(await claimNew(spool))];
      await Promise.all(claimed.map((message) => defer(spool, message, 20_000)));
      expect(await admin.remove({ partner: "acme" })).toHaveLength(1_000);
      for (let n = 0; n < 10; n += 1) await claimDue(spool);
      expect(idsOf(await collect(admin.list()))).toEqual([id]);
      expect([...spool.usage().partnerBytes.keys()]).toEqual(["globex"]);
    });

    it("lists all messages once, in order, with their states", async () => {
      const { dropBox, spool, admin, reopen } = await opened();
      const deferred = await receive(dropBox, { to: ["a@corp.example", "b@corp.example"], content: large() });
      const message = only(await claimNew(spool));
      spool.settle(message, [0], "delivered");
      const attempts = [{ atMs: 7_000, recipients: [0, 1], server: null, text: "451 no" }];
      const waits = { index: 1, route: "internal", attempts: 1, nextAttemptAtMs: 20_000 };
      await spool.putBack(message, { deferred: [waits], attempts, delayReported: false });
      const active = await receive(dropBox);
      await claimNew(spool);
      const incoming = await receive(dropBox, { partner: null });
      const entries = await collect(admin.list());
      expect(entries.map(({ meta, state }) => [meta.id, state])).toEqual([
        [active.id, "active"],
        [incoming.id, "incoming"],
        [deferred.id, "deferred"],
      ]);
      expect(entries.at(-1)?.meta).toEqual(deferred);
      expect(await admin.show(deferred.id)).toMatchObject({
        state: "deferred",
        request: null,
        recipients: [
          { index: 0, state: "delivered" },
          { index: 1, state: "pending", attempts: 1, nextAttemptAtMs: 20_000, route: "internal", lastText: "451 no" },
        ],
        attempts,
      });
      expect(await admin.show("0".repeat(18))).toBeUndefined();
      await reopen();
      expect(idsOf(await collect(admin.list()))).toEqual([active.id, incoming.id, deferred.id]);
    });

    it("selects by id, partner, route, age, recipient and state, and by all that is given", async () => {
      const { dropBox, spool, admin } = await opened();
      const ids: Record<string, string> = {};
      const make = async (name: string, partner: string | null, to: string, atMs: number, route?: string) => {
        ids[name] = (await receive(dropBox, { partner, to: [to, "done@corp.example"], receivedAtMs: atMs })).id;
        if (route === undefined) return;
        const message = only(await claimNew(spool));
        spool.settle(message, [1], "delivered");
        const waits = { index: 0, route, attempts: 1, nextAttemptAtMs: 20_000 };
        await spool.putBack(message, { deferred: [waits], attempts: [], delayReported: false });
      };
      await make("old", "acme", "Orders@corp.example", 1_000, "internal");
      await make("held", "acme", "postmaster", 2_000, "internal");
      await make("report", null, "x@acme.example", 3_000, "partner acme");
      await make("new", "globex", "orders@CORP.example", 4_000);
      await admin.hold({ ids: [ids["held"] ?? ""] });
      const table: Array<[QueueSelection, string[]]> = [
        [{}, ["new", "old", "held", "report"]],
        [{ ids: [ids["held"] ?? "", ids["new"] ?? "", "0".repeat(18)] }, ["new", "held"]],
        [{ partner: "acme" }, ["old", "held"]],
        [{ partner: null }, ["report"]],
        [{ partner: "nobody" }, []],
        [{ route: "internal" }, ["old", "held"]],
        [{ receivedBeforeMs: 3_000 }, ["old", "held"]],
        [{ recipient: "ORDERS@corp.example" }, ["new", "old"]],
        [{ recipient: "@corp.example" }, ["new", "old"]],
        [{ recipient: "postmaster" }, ["held"]],
        [{ recipient: "done@corp.example", state: "deferred" }, []],
        [{ state: "held" }, ["held"]],
        [{ state: "deferred" }, ["old", "report"]],
        [{ state: "incoming" }, ["new"]],
        [{ state: "active" }, []],
        [{ partner: "acme", state: "deferred", recipient: "@corp.example" }, ["old"]],
      ];
      for (const [selection, expected] of table) {
        const found = idsOf(await collect(admin.list(selection)));
        expect([selection, found]).toEqual([selection, expected.map((name) => ids[name])]);
      }
    });

    it("counts what each partner has in the queue", async () => {
      const { dropBox, spool, reopen } = await opened();
      const bytes = (map: ReadonlyMap<string, number>) => Object.fromEntries(map);
      const one = await receive(dropBox, { partner: "acme" });
      const two = await receive(dropBox, { partner: "globex", content: large() });
      const three = await receive(spool.dropBox, { partner: null });
      const messages = await claimNew(spool);
      const all = { acme: one.wireBytes, globex: two.wireBytes, "": three.wireBytes };
      expect(bytes(spool.usage().partnerBytes)).toEqual(all);
      for (const message of messages) await defer(spool, message, 20_000);
      expect(bytes(spool.usage().partnerBytes)).toEqual(all);
      expect(spool.usage().totalBytes).toBeGreaterThan(one.wireBytes + two.wireBytes + three.wireBytes);
      const next = await reopen();
      expect(bytes(next.usage().partnerBytes)).toEqual(all);
      for (const message of await claimDue(next, 20_000)) await deliver(next, message);
      expect(bytes(next.usage().partnerBytes)).toEqual({});
      expect(next.usage().totalBytes).toBe(0);
    });
  });
}
