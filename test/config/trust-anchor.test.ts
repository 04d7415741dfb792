/** What an operator may have been sent in place of a CA's certificate, made by openssl: one line that names the file. */
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { hasOpenssl, openssl } from "../certs/openssl.ts";
import { authority, folderWith, loaded, partnerYaml, problemsOf } from "./support.ts";

const pin = "pins: [{ trust-anchor: ../ca.pem, name: mx.acme.example }]";
const partner = partnerYaml().replace(/pins:.*/, pin);

/** A self-signed CA by openssl, with its key; the folder keeps what else is made of it. */
async function opensslCa(...key: readonly string[]): Promise<{ at: (name: string) => string }> {
  const folder = await folderWith({ ".keep": "" });
  const at = (name: string): string => join(folder, name);
  openssl("req", "-x509", "-nodes", "-newkey", ...key, "-keyout", at("key"), "-out", at("pem"), "-subj", "/CN=CA");
  return { at };
}
const p256 = ["ec", "-pkeyopt", "ec_paramgen_curve:P-256"];

describe.skipIf(!hasOpenssl)("in place of a trust anchor is refused", () => {
  it.each<{ what: string; key?: string[]; make: (at: (name: string) => string) => string; says: string }>([
    { what: "its key", make: (at) => at("key"), says: "is a private key: name the certificate here" },
    {
      what: "its certificate in DER",
      make: (at) => {
        openssl("x509", "-in", at("pem"), "-outform", "DER", "-out", at("der"));
        return at("der");
      },
      says: "is DER, not PEM: convert it with `openssl x509 -inform DER",
    },
    {
      what: "PKCS #12",
      make: (at) => {
        openssl("pkcs12", "-export", "-in", at("pem"), "-inkey", at("key"), "-passout", "pass:x", "-out", at("p12"));
        return at("p12");
      },
      says: "is PKCS #12: convert it with `openssl pkcs12 -in FILE -nokeys -out FILE.pem`",
    },
    {
      what: "PKCS #7",
      make: (at) => {
        openssl("crl2pkcs7", "-nocrl", "-certfile", at("pem"), "-outform", "DER", "-out", at("p7b"));
        return at("p7b");
      },
      says: "is PKCS #7: convert it with `openssl pkcs7 -inform DER",
    },
    {
      what: "a request",
      make: (at) => {
        openssl("req", "-new", "-key", at("key"), "-subj", "/CN=CA", "-out", at("csr"));
        return at("csr");
      },
      says: "is a certificate request: have it signed",
    },
    {
      what: "a CA with an RSA key of 1024 bits",
      key: ["rsa:1024"],
      make: (at) => at("pem"),
      says: "holds a CA that must not be trusted: its RSA key has only 1024 bits, 2048 are needed",
    },
    {
      what: "a CA with a curve that TLS does not use",
      key: ["ec", "-pkeyopt", "ec_paramgen_curve:secp256k1"],
      make: (at) => at("pem"),
      says: "holds a CA that must not be trusted: its key is on the curve secp256k1",
    },
  ])("$what", async ({ key = p256, make, says }) => {
    const { at } = await opensslCa(...key);
    const files = { "partners/acme.yaml": partner, "ca.pem": await readFile(make(at)) };
    expect(await problemsOf(files)).toEqual([
      expect.stringContaining(`partners/acme.yaml:2: error: pins[0].trust-anchor: ca.pem ${says}`),
    ]);
  });
});

it("a trust anchor is read with the line ends of Windows, and with text around it", async () => {
  const pem = `The CA of ACME\r\n${authority.pem.replaceAll("\n", "\r\n")}`;
  const { config } = await loaded({ "partners/acme.yaml": partner, "ca.pem": pem });
  expect(config.partners[0]?.pins[0]).toMatchObject({ kind: "trustAnchor", revocationLists: [] });
});
