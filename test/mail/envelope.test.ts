/** The envelope is what the spool stores as JSON: it must survive that as it is. */
import * as fc from "fast-check";
import { expect, test } from "vitest";
import { parseForwardPath, parseReversePath } from "../../src/mail/address.ts";
import type { Envelope, Recipient } from "../../src/mail/envelope.ts";

function forwardPath(text: string): Recipient["path"] {
  const parsed = parseForwardPath(text, true);
  if (parsed.kind === "fault") throw new Error(parsed.fault);
  return parsed.value;
}

function reversePath(text: string): Envelope["reversePath"] {
  const parsed = parseReversePath(text, true);
  if (parsed.kind === "fault") throw new Error(parsed.fault);
  return parsed.value;
}

const occasions = fc.uniqueArray(fc.constantFrom("success" as const, "failure" as const, "delay" as const));
const recipients = fc.record<Recipient, "path">(
  {
    path: fc
      .constantFrom("postmaster", "orders@corp.example", '"a b"@corp.example', "ü@bücher.example")
      .map(forwardPath),
    notify: fc.oneof(fc.constant("never" as const), occasions),
    originalRecipient: fc.constantFrom("rfc822;Orders+40corp.example", "utf-8;\\x{FC}@bücher.example"),
  },
  { requiredKeys: ["path"] },
);
const envelopes = fc.record<Envelope, "reversePath" | "recipients" | "body" | "smtpUtf8">(
  {
    reversePath: fc.constantFrom("", "bob@acme.example", "bób@acme.example").map(reversePath),
    recipients: fc.array(recipients, { minLength: 1, maxLength: 5 }),
    body: fc.constantFrom("7bit", "8bitmime"),
    smtpUtf8: fc.boolean(),
    returnContent: fc.constantFrom("full", "headers"),
    envelopeId: fc.constantFrom("QQ314159", "a+2Bb"),
  },
  { requiredKeys: ["reversePath", "recipients", "body", "smtpUtf8"] },
);

test("an envelope is the same after JSON", () => {
  fc.assert(
    fc.property(envelopes, (envelope) => {
      expect(JSON.parse(JSON.stringify(envelope))).toEqual({ ...envelope });
    }),
  );
});

test("the null reverse-path is not lost in JSON", () => {
  const envelope = { reversePath: reversePath(""), recipients: [], body: "7bit", smtpUtf8: false } satisfies Envelope;
  expect(JSON.parse(JSON.stringify(envelope))).toHaveProperty("reversePath", { kind: "null" });
});
