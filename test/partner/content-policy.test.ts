import { describe, expect, it } from "vitest";
import { judgeHeader, type ContentRules } from "../../src/partner/content-policy.ts";
import { partner as partnerNamed } from "./partners.ts";

const enforced: ContentRules = { headerSyntax: "enforce", singleFrom: "enforce", fromAlignment: "enforce" };

function judge(
  header: string,
  rules: Partial<ContentRules> = {},
  smtpUtf8 = false,
  mode: "enforce" | "observe" = "enforce",
) {
  const partner = partnerNamed("acme", { mode, content: { ...enforced, ...rules } });
  return judgeHeader(partner, Buffer.from(header, "utf8"), smtpUtf8);
}

const from = "From: Anna <a@acme.example>\r\n";

describe("the header of a message", () => {
  it.each([
    ["an ordinary one", `${from}Subject: x\r\n`, undefined],
    ["a folded one", `From: Anna\r\n <a@acme.example>\r\n`, undefined],
    ["a line that is no field", `${from}this is no field\r\n`, "headerMalformed"],
    ["a field name with a space in it", `${from}Sub ject: x\r\n`, "headerMalformed"],
    ["a line of 998 octets", `${from}S: ${"x".repeat(995)}\r\n`, undefined],
    ["a line of 999 octets", `${from}S: ${"x".repeat(996)}\r\n`, "headerMalformed"],
    ["octets above 127", `${from}Subject: ü\r\n`, "headerMalformed"],
    ["none", "", "fromFieldCount"],
    ["no From", "Subject: x\r\n", "fromFieldCount"],
    ["two Froms", `${from}${from}`, "fromFieldCount"],
    ["a From of ours", "From: <ceo@corp.example>\r\n", "fromFieldNotAllowed"],
    ["a From of somebody", "From: <a@elsewhere.example>\r\n", "fromFieldNotAllowed"],
    [
      "two authors, one of them not the partner's",
      "From: <a@acme.example>, <b@corp.example>\r\n",
      "fromFieldNotAllowed",
    ],
    ["a From that cannot be told", "From: ceo@corp.example <a@acme.example>\r\n", "fromFieldNotAllowed"],
    ["a From in other letters", "fRoM: <a@ACME.example.>\r\n", undefined],
    [
      "a From behind a dot that the wire has doubled",
      "..From: <ceo@corp.example>\r\nFrom: <a@acme.example>\r\n",
      undefined,
    ],
    ["a From behind a stuffed dot", ".From: <ceo@corp.example>\r\n", "fromFieldNotAllowed"],
  ])("is judged: %s", (_what, header, refusal) => {
    expect(judge(header)).toEqual({ refusal, observed: [] });
  });

  it("may hold octets above 127 where SMTPUTF8 was asked for", () => {
    expect(judge(`${from}Subject: ü\r\n`, {}, true).refusal).toBeUndefined();
  });

  it("that breaks a rule which is observed passes, and is reported", () => {
    expect(
      judge("From: <a@elsewhere.example>\r\nFrom: x\r\nx\r\n", {
        headerSyntax: "observe",
        singleFrom: "observe",
        fromAlignment: "observe",
      }),
    ).toEqual({
      refusal: undefined,
      observed: ["headerMalformed", "fromFieldCount", "fromFieldNotAllowed"],
    });
  });

  it("that breaks a rule which is off passes without a word", () => {
    expect(judge("x\r\n", { headerSyntax: "off", singleFrom: "off", fromAlignment: "off" })).toEqual({
      refusal: undefined,
      observed: [],
    });
  });

  it("of a partner in mode observe is refused by nothing", () => {
    expect(judge("From: <a@elsewhere.example>\r\n", {}, false, "observe")).toEqual({
      refusal: undefined,
      observed: ["fromFieldNotAllowed"],
    });
  });
});
