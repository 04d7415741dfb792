/**
 * What the demo shows: one scenario a message or refusal, with the reply that the partner gets.
 */
import type { ClientCertificate, SmtpDialogue } from "../../test/tools/smtp-dialogue.ts";

export interface Place {
  readonly address: string;
  readonly port: number;
}

export interface Scenario {
  readonly title: string;
  /** The loopback address that stands for the client's host. */
  readonly from: string;
  readonly certificate?: "acme" | "globex" | "outsider";
  /** How the decisive reply begins. */
  readonly expected: string;
  readonly talk: (client: SmtpDialogue, certificate: ClientCertificate | undefined) => Promise<string>;
  readonly delivered?: { readonly to: string; readonly content: string };
}

const acmeHost = "127.0.0.11";
const globexHost = "127.0.0.12";

const order = `From: Wile E. <sales@acme.example>\r
To: orders@corp.example\r
Subject: Order 4711\r
Message-ID: <4711@acme.example>\r
Date: Tue, 24 Nov 2026 09:00:00 +0000\r
\r
12 anvils, please.\r
.hidden behind a dot\r
`;

const invoice = `From: billing@acme.example\r
To: invoices@corp.example\r
Subject: Invoice\r
MIME-Version: 1.0\r
Content-Type: multipart/mixed; boundary="b1"\r
\r
--b1\r
Content-Type: text/plain; charset=utf-8\r
Content-Transfer-Encoding: 8bit\r
\r
Gr\xc3\xbc\xc3\x9fe: 8-bit octets pass as they are.\r
--b1\r
Content-Type: application/octet-stream\r
Content-Disposition: attachment; filename="invoice.bin"\r
Content-Transfer-Encoding: base64\r
\r
AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8gISIjJCUmJygpKissLS4v\r
--b1--\r
`;

const contract = `From: legal@globex.example\r
To: contracts@corp.example\r
Subject: Contract\r
\r
Signed.\r
`;

/** A whole session up to the reply to the end of data. */
const send =
  (mail: string, to: readonly string[], content: string, parameters = "") =>
  async (client: SmtpDialogue, certificate: ClientCertificate | undefined): Promise<string> => {
    await client.begin(certificate);
    return client.send(content.replaceAll(/^\./gm, ".."), mail, to, parameters);
  };

/** As far as the first refusal. */
const ask =
  (mail: string, recipient?: string) =>
  async (client: SmtpDialogue, certificate: ClientCertificate | undefined): Promise<string> => {
    await client.begin(certificate);
    const reply = await client.say(`MAIL FROM:<${mail}>`);
    return recipient === undefined ? reply : client.say(`RCPT TO:<${recipient}>`);
  };

export const scenarios: readonly Scenario[] = [
  {
    title: "accepted: an order from acme",
    from: acmeHost,
    certificate: "acme",
    expected: "250 2.0.0 Queued",
    talk: send("sales@acme.example", ["orders@corp.example"], order),
    delivered: { to: "orders@corp.example", content: order },
  },
  {
    title: "accepted: an invoice with an attachment and 8-bit text",
    from: acmeHost,
    certificate: "acme",
    expected: "250 2.0.0 Queued",
    talk: send("billing@acme.example", ["invoices@corp.example"], invoice, " BODY=8BITMIME"),
    delivered: { to: "invoices@corp.example", content: invoice },
  },
  {
    title: "accepted: a contract from globex, who may write to the whole domain",
    from: globexHost,
    certificate: "globex",
    expected: "250 2.0.0 Queued",
    talk: send("legal@globex.example", ["contracts@corp.example"], contract),
    delivered: { to: "contracts@corp.example", content: contract },
  },
  {
    title: "refused: no TLS",
    from: acmeHost,
    expected: "530 5.7.0",
    talk: async (client) => {
      await client.reply();
      await client.say("EHLO mx.acme.example");
      return client.say("MAIL FROM:<sales@acme.example>");
    },
  },
  {
    title: "refused: no certificate",
    from: acmeHost,
    expected: "454 4.7.0",
    talk: ask("sales@acme.example"),
  },
  {
    title: "refused: a certificate that nobody has enrolled",
    from: acmeHost,
    certificate: "outsider",
    expected: "454 4.7.0",
    talk: ask("sales@acme.example"),
  },
  {
    title: "refused: someone else's certificate (globex's, from acme's host)",
    from: acmeHost,
    certificate: "globex",
    expected: "454 4.7.0",
    talk: ask("legal@globex.example"),
  },
  {
    title: "refused: a recipient that acme may not write to",
    from: acmeHost,
    certificate: "acme",
    expected: "550 5.7.1",
    talk: ask("sales@acme.example", "ceo@corp.example"),
  },
  {
    title: "refused: a sender that is not acme's",
    from: acmeHost,
    certificate: "acme",
    expected: "550 5.7.1",
    talk: ask("ceo@corp.example"),
  },
  {
    title: "refused: relaying to a domain that is not ours",
    from: acmeHost,
    certificate: "acme",
    expected: "550 5.7.1 Relaying denied",
    talk: ask("sales@acme.example", "someone@elsewhere.example"),
  },
  {
    title: "refused: a host of no partner",
    from: "127.0.0.66",
    expected: "554 5.7.1",
    talk: (client) => client.reply(),
  },
];
