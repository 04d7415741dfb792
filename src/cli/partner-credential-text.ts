/**
 * A new pin in words, for whoever has to compare it: the certificate, the fingerprint in every form in which it may come
 * back over another channel, and how that is done. Pure.
 */
import { fingerprintForms } from "../partner/fingerprint.ts";
import { spkiDigest, type Digest } from "../partner/pin.ts";
import { describeKey } from "../certs/key.ts";
import { describeCertificate, shown } from "./certificate-text.ts";
import type { Credential } from "./partner-credential.ts";
import { qrText } from "./qr.ts";

const wordsPerLine = 6;

const whose = { key: "key", certificate: "certificate", CA: "CA's certificate" } as const;

/**
 * @param withQr only where somebody sees it: it is a picture made of escape sequences.
 */
export function credentialText(credential: Credential, withQr: boolean): string {
  const { certificate, fingerprint, fingerprintOf } = credential;
  const lines = [
    ...(certificate === undefined
      ? [
          "  the certificate is not known, only the fingerprint of its key; if it is not issued for clients (clientAuth),",
          "  the partner's file must say extended-key-usage: any",
        ]
      : [describeCertificate(certificate).trimEnd(), `  key      ${describeKey(certificate.publicKey)}`]),
    ...fingerprintLines(`Fingerprint of the ${whose[fingerprintOf]}, SHA-256: to be compared`, fingerprint),
    ...(fingerprintOf === "certificate" && certificate !== undefined
      ? ["Fingerprint of its key, which is not what is pinned", `  base64   ${spkiDigest(certificate)}`]
      : []),
  ];
  return `${lines.join("\n")}\n${withQr ? qrText(fingerprint) : ""}`;
}

function fingerprintLines(title: string, digest: Digest): string[] {
  const { base64, hexGroups, ...forms } = fingerprintForms(digest);
  const words = forms.words.split(" ");
  const half = Math.ceil(hexGroups.length / 2);
  const rows = Array.from({ length: Math.ceil(words.length / wordsPerLine) }, (_, row) =>
    words.slice(row * wordsPerLine, (row + 1) * wordsPerLine).join(" "),
  );
  return [
    title,
    `  base64   ${base64}`,
    `  hex      ${hexGroups.slice(0, half).trim()}`,
    `           ${hexGroups.slice(half).trim()}`,
    ...rows.map((row, index) => `  ${(index === 0 ? "words" : "").padEnd(9)}${row}`),
  ];
}

/** How the partner finds the same fingerprint, and what is done with it. */
export function nextStepsText(name: string, credential: Credential, authorityFile: string): string {
  const { signedFile } = credential;
  return [
    "What to do next",
    "  Call the partner on a number that you know, not one out of a mail, and let them read their fingerprint to you.",
    "  It is printed by",
    ...printedBy(credential).map((line) => `    ${line}`),
    "  Type what you hear, or scan what they show; this pin lets nobody in before:",
    `    pinrelay partner confirm ${name} FINGERPRINT`,
    ...(signedFile === undefined
      ? []
      : [`  Send the partner ${shown(signedFile)} and ${shown(authorityFile)}: nothing in them is secret.`]),
    "",
  ].join("\n");
}

const keyDigest = "openssl pkey -pubin -outform DER | openssl dgst -sha256 -c";

function printedBy({ source, fingerprintOf }: Credential): string[] {
  switch (fingerprintOf) {
    case "certificate":
    case "CA":
      return ["openssl x509 -in CERTIFICATE -noout -fingerprint -sha256"];
    case "key":
      return source.kind === "request"
        ? [`openssl req -in REQUEST -noout -pubkey | ${keyDigest}`]
        : [`openssl x509 -in CERTIFICATE -noout -pubkey | ${keyDigest}`];
  }
}

/** The same for programs. */
export function credentialJson(credential: Credential): object {
  const { certificate, fingerprint, fingerprintOf, signedFile, how } = credential;
  return {
    fingerprint: { of: fingerprintOf, ...fingerprintForms(fingerprint) },
    how,
    signedFile,
    certificate: certificate && {
      subject: certificate.subject,
      names: certificate.subjectAltName,
      issuer: certificate.issuer,
      notBefore: certificate.validFromDate.toISOString(),
      notAfter: certificate.validToDate.toISOString(),
      spki: spkiDigest(certificate),
    },
  };
}
