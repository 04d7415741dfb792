import { describe, expect, it } from "vitest";
import { composeNotice, type NoticeRequest } from "../../src/mail/notice.ts";
import { mailbox } from "../partner/partners.ts";

const request: NoticeRequest = {
  id: "0mwu5e33nsyq4dtcqr",
  hostname: "mx.corp.example",
  now: new Date("2026-11-24T03:00:00Z"),
  postmaster: mailbox("postmaster@corp.example"),
  to: mailbox("mail-ops@acme.example"),
  subject: "Something ends",
  text: ["Once upon a time.", ["one", "two"]],
};

function compose(different: Partial<NoticeRequest> = {}): { header: string[]; body: string; text: string } {
  const text = composeNotice({ ...request, ...different }).content.toString();
  const end = text.indexOf("\r\n\r\n");
  return { header: text.slice(0, end).split("\r\n"), body: text.slice(end + 4), text };
}

describe("a notice", () => {
  it("is plain text that says a program wrote it", () => {
    expect(compose().text).toBe(
      [
        "From: pinrelay <postmaster@corp.example>",
        "To: <mail-ops@acme.example>",
        "Subject: Something ends",
        "Date: Tue, 24 Nov 2026 03:00:00 +0000",
        "Message-ID: <0mwu5e33nsyq4dtcqr@mx.corp.example>",
        "Auto-Submitted: auto-generated",
        "MIME-Version: 1.0",
        "Content-Type: text/plain; charset=us-ascii",
        "Content-Transfer-Encoding: 7bit",
        "",
        "Once upon a time.",
        "",
        " - one",
        " - two",
        "",
      ].join("\r\n"),
    );
  });

  it("comes from nowhere, and asks for no report, so that none comes back", () => {
    expect(composeNotice(request).envelope).toEqual({
      reversePath: { kind: "null" },
      recipients: [{ path: { kind: "mailbox", mailbox: request.to }, notify: "never" }],
      body: "7bit",
      smtpUtf8: false,
    });
  });

  it.each([
    ["a field", "x\r\nBcc: eve@evil.example"],
    ["the end of the header", "x\r\n\r\nBcc: eve@evil.example"],
    ["a bare line feed", "x\nBcc: eve@evil.example"],
    ["a line separator", "x\u2028Bcc: eve@evil.example"],
  ])("cannot be made to carry %s", (_, foreign) => {
    const { header, text } = compose({ subject: foreign, text: [foreign, [foreign]] });
    expect(header).toHaveLength(9);
    expect(text).not.toMatch(/^Bcc:/m);
    expect(header[2]).toMatch(/^Subject: x [ ?]*Bcc: eve@evil\.example$/);
  });

  it("has no line of more than 78 columns, whatever is in it", () => {
    const long = "sha256/".padEnd(300, "A");
    const to = mailbox(`${"a".repeat(60)}@${"b".repeat(50)}.example`);
    const { text } = compose({ to, subject: "word ".repeat(50), text: [`${long} ${"word ".repeat(50)}`, [long]] });
    const lines = text.split("\r\n");
    expect(lines.filter((line) => line.length > 78)).toEqual([` <${to.address}>`]); // an address cannot be folded
    expect(lines.find((line) => line.startsWith("Subject:"))).toMatch(/\.\.\.$/);
  });

  it("is 7bit in another script too", () => {
    const { header, body } = compose({ subject: "Größe", text: ["Größe 大きさ"] });
    expect(header).toContain("Subject: Gr??e");
    expect(header.slice(-2)).toEqual(["Content-Type: text/plain; charset=utf-8", "Content-Transfer-Encoding: base64"]);
    expect(body).toMatch(/^[A-Za-z0-9+/=\r\n]+$/);
    expect(Buffer.from(body, "base64").toString()).toBe("Größe 大きさ\r\n");
  });

  it("asks for SMTPUTF8 where an address needs it", () => {
    const { envelope } = composeNotice({ ...request, to: mailbox("jörg@acme.example") });
    expect(envelope.smtpUtf8).toBe(true);
  });

  it("has no control characters and nothing that turns the direction of writing", () => {
    const { text } = compose({ text: ["a\u001b[31mb\u202ec"] });
    expect(text).toContain("a [31mb c");
  });

  it("is not made for a date that is none", () => {
    expect(() => compose({ now: new Date(Number.NaN) })).toThrow(RangeError);
  });
});
