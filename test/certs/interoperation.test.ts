/** What others make of our certificates: openssl at its strictest, and the TLS of node in both directions. */
import { X509Certificate, type KeyObject } from "node:crypto";
import { once } from "node:events";
import { readFile, writeFile } from "node:fs/promises";
import type { AddressInfo } from "node:net";
import { join } from "node:path";
import { connect, createServer, type SecureVersion, type TLSSocket } from "node:tls";
import { beforeAll, describe, expect, it, onTestFinished } from "vitest";
import { certify, createAuthority, openAuthority, type Authority, type KeyPair } from "../../src/certs/authority.ts";
import type { Usages } from "../../src/certs/certificate.ts";
import { CertificateFault } from "../../src/certs/fault.ts";
import { keyPem, keyTypes, type KeyType } from "../../src/certs/key.ts";
import { hasOpenssl, openssl } from "./openssl.ts";
import { authoritiesOfEveryType, keysOfEveryType, leafPlan, required, temporaryFolder } from "./support.ts";

const today = new Date(); // openssl and TLS look at the real clock
let authorities: Map<KeyType, Authority>;
let keys: Map<KeyType, { key: KeyObject; publicKey: KeyObject }>;

beforeAll(async () => {
  [authorities, keys] = await Promise.all([authoritiesOfEveryType(today), keysOfEveryType()]);
});

const everyPair = keyTypes.flatMap((ca) => keyTypes.map((leaf) => ({ ca, leaf })));

function leafPem(ca: KeyType, leaf: KeyType, usages: Usages): string {
  const plan = leafPlan({ now: today, usages, ipAddresses: ["127.0.0.1"] });
  return certify(required(authorities.get(ca)), plan, required(keys.get(leaf)).publicKey);
}

describe.skipIf(!hasOpenssl)("openssl verify -x509_strict", () => {
  it.each(everyPair)(
    "takes a $leaf certificate of a $ca authority for its purposes, and no others",
    async ({ ca, leaf }) => {
      const folder = await temporaryFolder();
      const [anchor, file] = [join(folder, "ca.pem"), join(folder, "leaf.pem")];
      await writeFile(anchor, required(authorities.get(ca)).certificate.toString());
      const verify = (purpose: string, ...more: string[]): string =>
        openssl("verify", "-x509_strict", "-purpose", purpose, ...more, "-CAfile", anchor, file);

      await writeFile(file, leafPem(ca, leaf, "both"));
      expect(verify("sslserver", "-verify_hostname", "mx.corp.example")).toContain("OK");
      expect(verify("sslclient", "-verify_ip", "127.0.0.1")).toContain("OK");
      expect(() => verify("sslserver", "-verify_hostname", "other.example")).toThrow("hostname mismatch");

      await writeFile(file, leafPem(ca, leaf, "server"));
      expect(verify("sslserver")).toContain("OK");
      expect(() => verify("sslclient")).toThrow("unsuitable certificate purpose");

      await writeFile(file, leafPem(ca, leaf, "client"));
      expect(verify("sslclient")).toContain("OK");
      expect(() => verify("sslserver")).toThrow("unsuitable certificate purpose");
    },
  );

  it("takes certificates whose dates lie beyond 2050", async () => {
    const folder = await temporaryFolder();
    const at = new Date("2051-06-01T00:00:00Z");
    const issuer = openAuthority(
      await createAuthority({ commonName: "Late CA", keyType: "ec-p256", days: 400, now: at }),
      at,
    );
    await writeFile(join(folder, "ca.pem"), issuer.certificate.toString());
    await writeFile(
      join(folder, "leaf.pem"),
      certify(issuer, leafPlan({ now: at }), required(keys.get("ec-p256")).publicKey),
    );
    const seconds = String(Math.floor(at.getTime() / 1000));
    expect(
      openssl(
        "verify",
        "-x509_strict",
        "-attime",
        seconds,
        "-CAfile",
        join(folder, "ca.pem"),
        join(folder, "leaf.pem"),
      ),
    ).toContain("OK");
  });
});

/** A CA of openssl's making, which may sign what `keyUsage` allows. */
async function opensslCa(curve: string, keyUsage: string): Promise<{ anchor: string; pair: KeyPair }> {
  const folder = await temporaryFolder();
  const [anchor, key] = [join(folder, "ca.pem"), join(folder, "ca.key")];
  openssl("genpkey", "-algorithm", "EC", "-pkeyopt", `ec_paramgen_curve:${curve}`, "-out", key);
  const subject = "/C=DE/O=Corp/OU=Post/CN=Corp CA";
  const usage = `keyUsage=critical,${keyUsage}`;
  openssl("req", "-x509", "-new", "-key", key, "-days", "30", "-out", anchor, "-subj", subject, "-addext", usage);
  return { anchor, pair: { certificatePem: await readFile(anchor, "utf8"), keyPem: await readFile(key, "utf8") } };
}

describe.skipIf(!hasOpenssl)("a CA that openssl made", () => {
  const later = new Date(Date.now() + 60_000); // openssl dates from the second on in which it is called
  const plan = leafPlan({ now: later, days: 10 });

  it("signs here, under its own long name and key identifier", async () => {
    const { anchor, pair } = await opensslCa("P-384", "keyCertSign,cRLSign");
    const pem = certify(openAuthority(pair, later), plan, required(keys.get("ec-p256")).publicKey);
    await writeFile(`${anchor}.leaf`, pem);
    expect(openssl("verify", "-x509_strict", "-purpose", "sslclient", "-CAfile", anchor, `${anchor}.leaf`)).toContain(
      "OK",
    );
    expect(new X509Certificate(pem).issuer).toBe("C=DE\nO=Corp\nOU=Post\nCN=Corp CA");
  });

  it("is refused where its key usage forbids it", async () => {
    const { pair } = await opensslCa("P-256", "digitalSignature");
    expect(() => certify(openAuthority(pair, later), plan, required(keys.get("ec-p256")).publicKey)).toThrow(
      CertificateFault,
    );
  });
});

describe("TLS", () => {
  const rows = everyPair.flatMap((pair) => (["TLSv1.2", "TLSv1.3"] as const).map((version) => ({ ...pair, version })));
  it.each(rows)("$version: both ends verify $leaf certificates of a $ca authority", async ({ ca, leaf, version }) => {
    const key = keyPem(required(keys.get(leaf)).key);
    const anchor = required(authorities.get(ca)).certificate.toString();
    const seen = await handshake(
      version,
      anchor,
      { key, cert: leafPem(ca, leaf, "server") },
      { key, cert: leafPem(ca, leaf, "client") },
    );
    expect(seen).toEqual({ server: true, client: true, protocol: version });
  });

  it("refuses a certificate for servers from a client", async () => {
    const key = keyPem(required(keys.get("ec-p256")).key);
    const anchor = required(authorities.get("ec-p256")).certificate.toString();
    const server = { key, cert: leafPem("ec-p256", "ec-p256", "server") };
    const seen = await handshake("TLSv1.3", anchor, server, server);
    expect(seen).toMatchObject({ client: false, server: true });
  });
});

interface Credentials {
  readonly key: string;
  readonly cert: string;
}

/** What each end says of the other's certificate. */
async function handshake(
  version: SecureVersion,
  anchor: string,
  server: Credentials,
  client: Credentials,
): Promise<{ server: boolean; client: boolean; protocol: string | null }> {
  const common = { ca: anchor, minVersion: version, maxVersion: version };
  const listener = createServer({ ...common, ...server, requestCert: true, rejectUnauthorized: false });
  listener.listen(0, "127.0.0.1");
  onTestFinished(() => void listener.close());
  await once(listener, "listening");
  const accepted = once(listener, "secureConnection");
  const { port } = addressOf(listener.address());
  const socket = connect({
    ...common,
    ...client,
    host: "127.0.0.1",
    port,
    servername: "mx.corp.example",
    rejectUnauthorized: false,
  });
  onTestFinished(() => void socket.destroy());
  await once(socket, "secureConnect");
  const peer: TLSSocket = (await accepted)[0];
  onTestFinished(() => void peer.destroy());
  return { server: socket.authorized, client: peer.authorized, protocol: socket.getProtocol() };
}

function addressOf(address: AddressInfo | string | null): AddressInfo {
  if (address === null || typeof address === "string") throw new Error("the server does not listen");
  return address;
}
