/** The kit as a text for the partner's postmaster. Pure. Promises: nothing in it can steer a terminal; no secret of ours. */
import type { Endpoint, KitFacts } from "./facts.ts";
import type { ServerKit, Snippet } from "./snippet.ts";
import { printable } from "../output.ts";

/** All of it, with the snippets, or with their names where they are files of their own. */
export function kitText(facts: KitFacts, server: ServerKit, snippets: "inline" | "files"): string {
  const sections: Array<[title: string, lines: readonly string[]]> = [
    [`How to send mail to ${facts.hostname}`, introduction(facts, server)],
    ["Where", whereLines(facts)],
    ["Our certificate", certificateLines(facts)],
    ["What you may send", ruleLines(facts)],
    ["Your certificate and key", keyLines(facts)],
    [
      `Configuration for ${server.title}`,
      [
        ...server.snippets.flatMap((snippet) => snippetLines(snippet, snippets)),
        ...server.steps.map((step, index) => `${index + 1}. ${step}`),
        ...server.notes.flatMap((note) => ["", `Note: ${note}`]),
      ],
    ],
    ["Test", testLines(facts)],
  ];
  const text = sections
    .map(([title, lines]) => `${title}\n${"=".repeat(title.length)}\n${lines.map((line) => `${line}\n`).join("")}`)
    .join("\n");
  return text
    .split("\n")
    .map((line) => line.split("\t").map(printable).join("\t")) // the rules of sendmail need their tabs
    .join("\n");
}

function introduction({ partner, notes }: KitFacts, server: ServerKit): string[] {
  return [
    `For the postmaster of ${partner}. This kit has no secrets in it, but send it over a channel where nobody can change it:`,
    "it says which certificate of ours to trust.",
    ...(server.proven ? [] : ["The configuration below has not been run against the real server by us."]),
    ...notes.map((note) => `NOTE: ${note}`),
  ];
}

function whereLines({ hostname, endpoints, minimumVersion, domains }: KitFacts): string[] {
  return [
    `host name     ${hostname}`,
    ...endpoints.map((endpoint) => `address       ${endpointText(endpoint)}`),
    `TLS           mandatory, ${minimumVersion} or later, with your client certificate`,
    `domains       ${domains.join(", ")}`,
  ];
}

function endpointText({ address, port, implicitTls }: Endpoint): string {
  return `${address} port ${port}, ${implicitTls ? "TLS from the first byte" : "STARTTLS"}`;
}

function certificateLines({ certificate, anchor }: KitFacts): string[] {
  const issuer =
    anchor === undefined
      ? "issued by a CA that your system should know; verify it by fingerprint where your server can"
      : anchor.kind === "itself"
        ? "signs itself: verify it by fingerprint"
        : `issued by our CA (${anchor.subject}): verify it by fingerprint where your server can, else by this CA and the name`;
  return [
    `subject       ${certificate.subject}`,
    `valid until   ${certificate.validTo.toISOString()}`,
    `key           ${certificate.spki}`,
    `              ${certificate.keyFingerprint}`,
    `certificate   ${certificate.digest}`,
    `              ${certificate.fingerprint}`,
    `trust         ${issuer}`,
    "",
    ...pemLines(certificate.pem),
    ...(anchor?.kind === "ca" ? ["", "Our CA:", "", ...pemLines(anchor.pem)] : []),
  ];
}

function pemLines(pem: string): string[] {
  return pem.trimEnd().split("\n");
}

function ruleLines({ senders, recipients, limits, probe, postmaster }: KitFacts): string[] {
  return [
    ...(senders.length === 0 ? ["from          <> only"] : senders.map((sender) => `from          ${sender}`)),
    ...recipients.map((recipient) => `to            ${recipient}`),
    `to            ${probe}, always: it answers by mail with what we saw`,
    `limits        ${limits.messageBytesMax} bytes a message, ${limits.recipientsMax} recipients a message,`,
    `              ${limits.messagesPerMinute} messages a minute, ${limits.connectionsMax} connections at a time`,
    `questions     ${postmaster}`,
  ];
}

function keyLines({ certificateFile, keyFile }: KitFacts): string[] {
  return [
    `certificate   ${certificateFile}: the one that we know you by (yours, or the one that we signed and sent you), with the certificates of its issuers behind it`,
    `key           ${keyFile}: readable by root and the mail server alone (chown root, chmod 600)`,
    "Tell us before you change the key: mail that comes with another one waits at your server until we have confirmed it.",
  ];
}

function snippetLines({ name, where, text }: Snippet, snippets: "inline" | "files"): string[] {
  if (snippets === "files") return [`File ${name}: ${where}.`, ""];
  return [`--- ${name}: ${where} ---`, ...text.trimEnd().split("\n"), "---", ""];
}

function testLines(facts: KitFacts): string[] {
  const { endpoint, hostname, certificateFile, keyFile, probe, exampleSender } = facts;
  const address = endpoint.address.includes(":") ? `[${endpoint.address}]` : endpoint.address;
  return [
    "The connection and TLS. openssl does not know who issued our certificate, and ends with a verify return code of 18 to 21:",
    "compare the fingerprint instead. At its end type EHLO and QUIT:",
    `openssl s_client -starttls smtp -connect ${address}:${endpoint.port} -servername ${hostname} -cert ${certificateFile} -key ${keyFile} -crlf`,
    "",
    "A message to the probe, past your mail server, from the host that is to send:",
    `swaks --server ${endpoint.address} --port ${endpoint.port} --tls --tls-cert ${certificateFile} --tls-key ${keyFile} --from ${exampleSender} --to ${probe}`,
    "",
    `And through your mail server: write to ${probe}. The answer tells what we saw.`,
  ];
}
