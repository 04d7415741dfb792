/** The CA in a folder: what is written, how it is guarded, and that nothing is ever overwritten. */
import { chmod, mkdir, readdir, readFile, rm, stat, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { describe, expect, it, onTestFinished } from "vitest";
import { initCa, issue, loadCa, signRequest, writeCertificate, writeKeyPair } from "../../src/certs/ca.ts";
import { readRequestFile } from "../../src/certs/certificate-file.ts";
import { CertificateFault } from "../../src/certs/fault.ts";
import { fixturePath, leafPlan, now, temporaryFolder, x509 } from "./support.ts";

const caPlan = { commonName: "Test CA", days: 365, now } as const;

async function caFolder(): Promise<string> {
  const directory = await temporaryFolder();
  await initCa({ ...caPlan, directory });
  return directory;
}

async function modeOf(file: string): Promise<string> {
  return ((await stat(file)).mode & 0o777).toString(8);
}

describe("initCa", () => {
  it("writes a certificate and a key that belong together, creating the folder", async () => {
    const directory = join(await temporaryFolder(), "deep", "certs");
    const { certificate, certificateFile, keyFile } = await initCa({ ...caPlan, directory });
    expect(await readdir(directory)).toEqual(["ca.key", "ca.pem"]);
    expect(x509(await readFile(certificateFile, "utf8")).fingerprint256).toBe(certificate.fingerprint256);
    expect(keyFile).toBe(join(directory, "ca.key"));
    expect((await loadCa(directory, now)).certificate.subject).toBe("CN=Test CA");
  });

  it("lets nobody but the owner read keys, whatever the umask", async () => {
    const before = process.umask(0);
    onTestFinished(() => void process.umask(before));
    const directory = await caFolder();
    await writeKeyPair(join(directory, "server"), await issue({ ...leafPlan(), directory }));
    expect(await modeOf(join(directory, "ca.key"))).toBe("600");
    expect(await modeOf(join(directory, "server.key"))).toBe("600");
    expect(await modeOf(join(directory, "server.pem"))).toBe("644");
  });

  it.each(["ca.pem", "ca.key"])("refuses where %s exists, and leaves everything as it is", async (name) => {
    const directory = await temporaryFolder();
    await writeFile(join(directory, name), "precious");
    await expect(initCa({ ...caPlan, directory })).rejects.toThrow(CertificateFault);
    await expect(initCa({ ...caPlan, directory })).rejects.toThrow(`${name}: exists and is left as it is`);
    expect(await readdir(directory)).toEqual([name]);
    expect(await readFile(join(directory, name), "utf8")).toBe("precious");
  });

  it("run many times at once makes one CA, and the others say that it exists", async () => {
    const directory = await temporaryFolder();
    const results = await Promise.allSettled(Array.from({ length: 8 }, () => initCa({ ...caPlan, directory })));
    expect(results.filter(({ status }) => status === "fulfilled")).toHaveLength(1);
    for (const result of results) {
      if (result.status === "rejected") expect(result.reason).toBeInstanceOf(CertificateFault);
    }
    await loadCa(directory, now); // the pair fits together
    expect(await readdir(directory)).toEqual(["ca.key", "ca.pem"]);
  });

  it("writes nothing for a plan that is refused", async () => {
    const directory = await temporaryFolder();
    await expect(initCa({ ...caPlan, days: 0, directory })).rejects.toThrow("whole days");
    expect(await readdir(directory)).toEqual([]);
  });
});

describe("loadCa", () => {
  it.each(["ca.pem", "ca.key"])("says how to make a CA where %s is missing", async (name) => {
    const directory = await caFolder();
    await rm(join(directory, name));
    await expect(loadCa(directory, now)).rejects.toThrow(`${join(directory, name)}: no such file: make a CA with`);
  });

  it.each([0o640, 0o604, 0o666])("refuses a key that others may read (mode %i)", async (mode) => {
    const directory = await caFolder();
    await chmod(join(directory, "ca.key"), mode);
    await expect(loadCa(directory, now)).rejects.toThrow("run chmod 600 on it");
  });

  it("names the folder of a CA that has expired", async () => {
    const directory = await caFolder();
    await expect(loadCa(directory, new Date("2030-01-01"))).rejects.toThrow(`${directory}: the CA expired on`);
  });

  it("passes on the system's error for what is no file", async () => {
    const directory = await temporaryFolder();
    await mkdir(join(directory, "ca.pem"));
    await expect(loadCa(directory, now)).rejects.toMatchObject({ code: "EISDIR" });
  });
});

describe("issue", () => {
  it("makes a pair under the CA, in memory alone", async () => {
    const directory = await caFolder();
    const pair = await issue({ ...leafPlan(), directory, keyType: "ed25519" });
    const certificate = x509(pair.certificatePem);
    expect(certificate.verify((await loadCa(directory, now)).certificate.publicKey)).toBe(true);
    expect(certificate.publicKey.asymmetricKeyType).toBe("ed25519");
    expect(await readdir(directory)).toEqual(["ca.key", "ca.pem"]);
  });
});

describe("writeKeyPair", () => {
  it.each(["server.pem", "server.key"])("refuses where %s exists, and leaves no half behind", async (name) => {
    const directory = await caFolder();
    await writeFile(join(directory, name), "precious");
    const pair = await issue({ ...leafPlan(), directory });
    await expect(writeKeyPair(join(directory, "server"), pair)).rejects.toThrow(`${name}: exists`);
    expect(await readdir(directory)).toEqual(["ca.key", "ca.pem", name]);
    expect(await readFile(join(directory, name), "utf8")).toBe("precious");
  });
});

describe("writeCertificate", () => {
  it("creates the folder and refuses to overwrite", async () => {
    const file = join(await temporaryFolder(), "partners", "acme.pem");
    await writeCertificate(file, "first");
    await expect(writeCertificate(file, "second")).rejects.toThrow("exists and is left as it is");
    expect(await readFile(file, "utf8")).toBe("first");
  });
});

describe("signRequest", () => {
  it("certifies the key of the request under the names of the plan, not those of the request", async () => {
    const directory = await caFolder();
    const request = await readRequestFile(fixturePath("asks-for-ca.csr.pem"));
    const plan = { ...leafPlan({ commonName: "acme", dnsNames: ["only.acme.example"], usages: "client" }), directory };
    const { certificate, certificatePem } = await signRequest({ ...plan, request });
    expect(certificate.publicKey.equals(request.publicKey)).toBe(true);
    expect(certificate.subject).toBe("CN=acme");
    expect(certificate.subjectAltName).toBe("DNS:only.acme.example");
    expect(certificate.keyUsage).toEqual(["1.3.6.1.5.5.7.3.2"]);
    expect(certificate.ca).toBe(false); // though the request asked for it
    expect(x509(certificatePem).verify((await loadCa(directory, now)).certificate.publicKey)).toBe(true);
  });
});
