/** The library is subclassed at seams that it does not document: an upgrade that moves one fails here. */
import { describe, expect, test } from "vitest";
import { DataStream, NodemailerConnection, seamFields, seamMethods } from "../../src/deliverer/nodemailer-seams.ts";

const prototype: object = NodemailerConnection.prototype;

describe("the installed nodemailer", () => {
  test.each(seamMethods)("has the method %s", (name) => {
    expect(typeof Reflect.get(prototype, name)).toBe("function");
  });

  test.each(seamFields)("has the field %s", (name) => {
    expect(name in new NodemailerConnection({ host: "127.0.0.1" })).toBe(true);
  });

  // The number of parameters that we pass on is part of the seam.
  test.each([
    ["_onError", 4],
    ["_upgradeConnection", 1],
    ["_setEnvelope", 2],
    ["_sendRcpt", 2],
    ["_createSendStream", 1],
    ["_actionEHLO", 1],
    ["_actionMAIL", 2],
    ["_actionRCPT", 2],
    ["_actionDATA", 2],
    ["_actionSMTPStream", 2],
    ["_parseEhloExtensions", 1],
    ["_processResponse", 0],
    ["_onData", 1],
  ])("takes the parameters of %s", (name, count) => {
    expect((Reflect.get(prototype, name) as { length: number }).length).toBe(count);
  });

  test("its data stream counts what leaves, and can be subclassed", () => {
    expect(new DataStream().outByteCount).toBe(0);
  });
});
