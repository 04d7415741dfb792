import { describe, expect, it } from "vitest";
import { ConnectionCensus, type Admission } from "../../src/receiver/census.ts";

const limits = { connectionsMax: 3, connectionsPerAddressMax: 2, turnedAwayMax: 100 };

function seatOf(admission: Admission) {
  if (admission.kind === "dropped") throw new Error("it has no seat");
  return admission.seat;
}

describe("the census", () => {
  it("admits up to the limit of an address and of all, and again when one has left", () => {
    const census = new ConnectionCensus();
    const first = census.enter("a", true, limits);
    expect([first, census.enter("a", true, limits)].map(({ kind }) => kind)).toEqual(["admitted", "admitted"]);
    expect(census.enter("a", true, limits)).toMatchObject({ kind: "turnedAway", reply: "tooManyConnectionsOfAddress" });
    expect(census.enter("b", true, limits).kind).toBe("admitted");
    expect(census.enter("b", true, limits)).toMatchObject({ kind: "turnedAway", reply: "tooManyConnections" });
    seatOf(first).leave();
    expect(census.enter("b", true, limits).kind).toBe("admitted");
  });

  it("counts down once, however often a seat is left", () => {
    const census = new ConnectionCensus();
    const seat = seatOf(census.enter("a", true, limits));
    census.enter("a", true, limits);
    for (let time = 0; time < 3; time += 1) seat.leave();
    expect(census.connections).toBe(1);
    expect(census.enter("a", true, limits).kind).toBe("admitted");
    expect(census.enter("a", true, limits).kind).toBe("turnedAway");
  });

  it("turns a hundred strangers away at a time, drops the others, and admits partners meanwhile", () => {
    const census = new ConnectionCensus();
    const strangers = Array.from({ length: 100 }, (_, index) => census.enter(`s${index}`, false, limits));
    expect(new Set(strangers.map(({ kind }) => kind))).toEqual(new Set(["turnedAway"]));
    expect(census.enter("s", false, limits)).toEqual({ kind: "dropped", reply: "addressUnknown" });
    expect(census.enter("a", true, limits).kind).toBe("admitted");
    for (const stranger of strangers) seatOf(stranger).leave();
    expect(census.connections).toBe(1);
    expect(census.enter("s", false, limits).kind).toBe("turnedAway");
  });

  it("gives a partner as many places as it has, wherever its connections come from", () => {
    const census = new ConnectionCensus();
    const seat = census.enterAs("acme", 1);
    expect(seat?.key).toBe("acme");
    expect(census.enterAs("acme", 1)).toBeUndefined();
    expect(census.enterAs("globex", 1)).toBeDefined();
    seat?.leave();
    expect(census.enterAs("acme", 1)).toBeDefined();
  });
});
