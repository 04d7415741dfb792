/**
 * `pinrelay policy diff`: a real receiver decides and records, the files are edited, and the command tells what would
 * fare otherwise.
 */
import { appendFile, cp, mkdir, readFile, readdir, writeFile } from "node:fs/promises";
import { X509Certificate } from "node:crypto";
import { join } from "node:path";
import { describe, expect, it, onTestFinished } from "vitest";
import { DecisionRecorder } from "../../src/audit/decision-log.ts";
import { policyCommand } from "../../src/cli/policy.ts";
import type { Change } from "../../src/cli/policy-changes.ts";
import { createLog } from "../../src/log/log.ts";
import { startReceiver } from "../../src/receiver/receiver.ts";
import {
  acmeAddress,
  globexAddress,
  makeRelayFolder,
  strangerAddress,
  type RelayFolder,
} from "../tools/relay-folder.ts";
import { SmtpDialogue, type ClientCertificate } from "../tools/smtp-dialogue.ts";
import { run, type Ran } from "./support.ts";

const dayMs = 86_400_000;
const silent = createLog("receiver", { write: () => undefined });
const orders = "orders@corp.example";

interface Mail {
  readonly from: string;
  readonly to: readonly string[];
  readonly parameters?: string;
}

interface Bench {
  readonly folder: RelayFolder;
  readonly clock: { now: Date };
  /** One session of a peer that says this; the receiver's life is as long as the session. */
  readonly session: (
    address: string,
    certificate: ClientCertificate | undefined,
    mails: readonly Mail[],
  ) => Promise<void>;
  /** Replaces text in a partner's file, or in relay.yaml. */
  readonly edit: (file: string, from: string | RegExp, to: string) => Promise<void>;
  readonly diff: (...args: readonly string[]) => Promise<Ran>;
  /** The changes, and the summary. */
  readonly changes: (...args: readonly string[]) => Promise<{ changes: Change[]; summary: Record<string, number> }>;
  readonly logFile: () => Promise<string>;
}

async function bench(): Promise<Bench> {
  const folder = await makeRelayFolder();
  onTestFinished(() => folder.remove());
  const clock = { now: new Date() };
  const diff = (...args: readonly string[]) =>
    run(
      policyCommand,
      ["diff", ...(args.includes("--config") ? [] : ["--config", folder.configFile]), ...args],
      clock.now,
    );
  return {
    folder,
    clock,
    async session(address, certificate, mails) {
      const receiver = await startReceiver(await folder.load(), silent, { now: () => clock.now });
      const [listener] = receiver.addresses;
      if (listener === undefined) throw new Error("it listens nowhere");
      const client = await SmtpDialogue.open(listener, address);
      const greeting = await client.reply();
      if (greeting.startsWith("220")) {
        await client.say("EHLO mx.acme.example");
        await client.say("STARTTLS");
        await client.secure(certificate);
        await client.say("EHLO mx.acme.example");
        for (const { from, to, parameters = "" } of mails) {
          await client.say(`MAIL FROM:<${from}>${parameters}`);
          for (const path of to) await client.say(`RCPT TO:<${path}>`);
          await client.say("RSET");
        }
      }
      client.close();
      await receiver.stop();
    },
    async edit(file, from, to) {
      const path = join(folder.path, "config", file);
      const text = await readFile(path, "utf8");
      expect(text).toMatch(from);
      await writeFile(path, text.replace(from, to));
    },
    diff,
    async changes(...args) {
      const { out } = await diff("--json", ...args);
      const records = out
        .trimEnd()
        .split("\n")
        .map((line) => JSON.parse(line) as Change & { summary?: Record<string, number> });
      return { changes: records.slice(0, -1), summary: records.at(-1)?.summary ?? {} };
    },
    async logFile() {
      const decisions = join(folder.path, "var", "audit", "decisions");
      return join(decisions, (await readdir(decisions)).toSorted().at(-1) ?? "");
    },
  };
}

const usual: Mail = { from: "a@acme.example", to: [orders] };

describe("policy diff", () => {
  it("says that nothing changes where nothing was edited, refusals and all", async () => {
    const { folder, session, diff } = await bench();
    const { acme, globex, outsider } = folder.certificates;
    const mails = [usual, { from: "", to: ["postmaster", "ceo@corp.example", "a@elsewhere.example"] }];
    await session(acmeAddress, acme, [
      ...mails,
      { from: "x@evil.example", to: [] },
      { ...usual, parameters: " SIZE=99999999" },
    ]);
    for (const certificate of [globex, outsider, undefined]) await session(acmeAddress, certificate, mails);
    await session(globexAddress, globex, [{ from: "a@globex.example", to: [orders] }]);
    await session(strangerAddress, undefined, []);
    const ran = await diff();
    expect(ran).toEqual({ exitCode: 0, err: "", out: "17 decisions of 1 day replayed, 0 would change\n" });
    expect((await diff("--against", folder.configFile)).out).toBe("17 decisions of 1 day replayed, 0 would change\n");
  });

  it("lists what would change, most frequent first, with certificate and rules", async () => {
    const { folder, session, edit, diff, changes } = await bench();
    await session(acmeAddress, folder.certificates.acme, [
      usual,
      usual,
      { ...usual, to: [orders, "a@edi.corp.example"] },
    ]);
    await edit("partners/acme.yaml", 'to: [orders@corp.example, "@edi.corp.example"]', "to: [sales@corp.example]");
    const ran = await diff();
    expect(ran.exitCode).toBe(1);
    const file = join(folder.path, "config", "partners", "acme.yaml");
    const told = await changes();
    expect(told.summary).toMatchObject({ days: 1, replayed: 7, changed: 4 });
    expect(told.changes).toMatchObject([
      {
        count: 3,
        stage: "recipient",
        address: acmeAddress,
        subject: "CN=mx.acme.example",
        from: "a@acme.example",
        to: orders,
        before: {
          name: "recipientAccepted",
          reply: "250 2.1.5 Recipient OK",
          partner: "acme",
          rule: { text: `allow.to ${orders} (${file}:5)` },
        },
        after: {
          name: "recipientNotAllowed",
          reply: "550 5.7.1 Recipient is not one that you may write to",
          partner: "acme",
          rule: { text: "no entry of allow.to covers it", file, line: 5 },
        },
      },
      { count: 1, to: "a@edi.corp.example" },
    ]);
    const [head, first] = ran.out.split("\n");
    expect(head).toMatch(/^count +partner +address +from +to +was +would be$/);
    expect(first).toMatch(/^3 +acme +127\.0\.0\.11 +a@acme\.example +orders@corp\.example +250 2\.1\.5 +550 5\.7\.1$/);
    expect(ran.out).toContain("\n  certificate: CN=mx.acme.example\n");
    expect(ran.out).toContain(`no entry of allow.to covers it (${file}:5)\n`);
    expect(ran.out).toMatch(/7 decisions of 1 day replayed, 4 would change \(2 distinct\)\n$/);
  });

  it("compares with the old configuration in place of what was decided", async () => {
    const { folder, session, edit, changes, diff } = await bench();
    await session(acmeAddress, folder.certificates.acme, [{ ...usual, to: [orders, "ceo@corp.example"] }]);
    const draft = join(folder.path, "draft");
    await cp(join(folder.path, "config"), draft, { recursive: true });
    await edit("partners/acme.yaml", "orders@corp.example", "ceo@corp.example"); // since it was decided
    const args = ["--against", folder.configFile, "--config", join(draft, "relay.yaml")];
    const told = await changes(...args);
    expect(told.changes.map(({ to, before, after }) => [to, before.name, after.name])).toEqual([
      [orders, "recipientNotAllowed", "recipientAccepted"],
      ["ceo@corp.example", "recipientAccepted", "recipientNotAllowed"],
    ]);
    expect(told.changes[0]?.before.rule).toMatchObject({
      file: join(folder.path, "config", "partners", "acme.yaml"),
      line: 5,
    });
    expect((await diff(...args)).exitCode).toBe(1);
  });

  it("tells what is refused at MAIL from now on, of the recipients, too", async () => {
    const { folder, session, edit, changes } = await bench();
    await session(acmeAddress, folder.certificates.acme, [usual]);
    await edit(
      "partners/acme.yaml",
      /pins: .*/,
      (await readFile(join(folder.path, "config", "partners", "acme.yaml"), "utf8"))
        .match(/pins: .*/)?.[0]
        .replace(" }]", ", state: revoked }]") ?? "",
    );
    expect((await changes()).changes.map(({ stage, after }) => [stage, after.name])).toEqual([
      ["mail", "certificateRevoked"],
      ["recipient", "certificateRevoked"],
    ]);
  });

  it("tells whom a new partner's file would let in, and whom a smaller network would turn away", async () => {
    const { folder, session, edit, changes } = await bench();
    await session(strangerAddress, undefined, []);
    await session(acmeAddress, folder.certificates.globex, [{ from: "a@globex.example", to: [] }]);
    await session(globexAddress, folder.certificates.globex, [{ from: "a@globex.example", to: [] }]);
    await edit("partners/globex.yaml", globexAddress, `${acmeAddress}, ${strangerAddress}`);
    expect((await changes()).changes.map(({ address, before, after }) => [address, before.name, after.name])).toEqual([
      [strangerAddress, "addressUnknown", "greeted"],
      [acmeAddress, "addressNotOfPartner", "senderAccepted"],
      [globexAddress, "senderAccepted", "addressUnknown"],
    ]);
  });

  it("tells that mail would be another partner's", async () => {
    const { folder, session, edit, changes, diff } = await bench();
    await session(acmeAddress, folder.certificates.acme, [{ from: "", to: ["postmaster"] }]);
    const file = (name: string) => join(folder.path, "config", "partners", name);
    const [, pinOfAcme = ""] = /"(sha256[^"]*)"/.exec(await readFile(file("acme.yaml"), "utf8")) ?? [];
    await edit("partners/acme.yaml", pinOfAcme, `sha256/${Buffer.alloc(32).toString("base64")}`);
    await edit("partners/globex.yaml", /"sha256[^"]*"/, `"${pinOfAcme}"`);
    await edit("partners/globex.yaml", globexAddress, acmeAddress);
    const told = await changes();
    expect(told.changes.map(({ before, after }) => [before.partner, after.partner, after.name])).toEqual([
      ["acme", "globex", "senderAccepted"],
      ["acme", "globex", "recipientAccepted"],
    ]);
    expect((await diff()).out).toContain("acme → globex");
  });

  it("judges certificates and pins at the time of the decision", async () => {
    const { folder, session, clock, diff, edit, changes } = await bench();
    await session(acmeAddress, folder.certificates.acme, [usual]);
    const decidedAt = clock.now;
    clock.now = new Date(decidedAt.getTime() + 25 * dayMs); // the certificate has expired since
    expect((await diff("--since", "30d")).exitCode).toBe(0);
    const dayBefore = new Date(decidedAt.getTime() - 2 * dayMs).toISOString().slice(0, 10);
    await edit("partners/acme.yaml", '" }]', `", not-after: ${dayBefore} }]`);
    expect((await changes("--since", "30d")).changes.map(({ after }) => after.name)).toEqual([
      "certificateExpired",
      "certificateExpired",
    ]);
  });

  it("looks at the days that are asked for", async () => {
    const { folder, session, clock, diff } = await bench();
    await session(acmeAddress, folder.certificates.acme, [usual]);
    clock.now = new Date(clock.now.getTime() + dayMs);
    await session(acmeAddress, folder.certificates.acme, [usual]);
    expect((await diff()).out).toMatch(/^4 decisions of 2 days /);
    expect((await diff("--since", "1d")).out).toMatch(/^2 decisions of 1 day /);
    expect((await diff("--since", "1h")).out).toMatch(/^2 decisions of 1 day /);
  });

  it("tells of a partner's limit for the size of messages by the largest that was declared", async () => {
    const { folder, session, edit, changes } = await bench();
    await session(
      acmeAddress,
      folder.certificates.acme,
      [10, 9000, 20].map((size) => ({ ...usual, parameters: ` SIZE=${size}` })),
    );
    await edit("partners/acme.yaml", "hosts:", "limits: { message-size: 5KiB }\nhosts:");
    expect((await changes()).changes.map(({ stage, after }) => [stage, after.name])).toEqual([
      ["mail", "tooLargeDeclared"],
    ]);
  });

  it("leaves out what limits refused, and says so", async () => {
    const { folder, session, edit, diff } = await bench();
    await edit("partners/acme.yaml", "hosts:", "limits: { recipients: 1 }\nhosts:");
    await session(acmeAddress, folder.certificates.acme, [{ ...usual, to: [orders, "a@edi.corp.example"] }]);
    expect(await diff()).toMatchObject({
      exitCode: 0,
      out: "2 decisions of 1 day replayed, 0 would change\n1 more were refused by limits and quotas, which are not part of this\n",
    });
  });

  it("counts what it cannot read, and goes on", async () => {
    const { folder, session, diff, logFile } = await bench();
    await session(acmeAddress, folder.certificates.acme, [usual]);
    const file = await logFile();
    const text = await readFile(file, "utf8");
    const decision = JSON.parse(text.split("\n").find((line) => line.includes('"decision"')) ?? "") as Record<
      string,
      unknown
    >;
    const lines = [
      { ...decision, id: "a", reply: "aReplyOfAnotherVersion" },
      { ...decision, id: "b", chain: ["sha256/gone"], count: 3 },
      { kind: "unrecorded", count: 4 },
    ];
    await appendFile(file, `garbage\n${lines.map((line) => `${JSON.stringify(line)}\n`).join("")}{"torn`);
    expect((await diff()).out).toBe(
      "2 decisions of 1 day replayed, 0 would change\n" +
        "3 more cannot be replayed: their certificate is not in the log\n" +
        "4 more found no place in the log\n" +
        "3 lines of the log cannot be read\n",
    );
  });

  it.each([
    ["where nothing has been recorded", [], "no decisions are recorded in "],
    ["a period that is none", ["--since", "yesterday"], "It is a number with a unit, as 12h or 7d."],
    ["an old configuration that is not there", ["--against", "/nowhere/relay.yaml"], "/nowhere/relay.yaml"],
  ])("cannot tell %s", async (_what, args, message) => {
    const { diff } = await bench();
    const ran = await diff(...args);
    expect({ exitCode: ran.exitCode, out: ran.out }).toEqual({ exitCode: 2, out: "" });
    expect(ran.err).toContain(message);
  });

  it("refuses a new configuration that is invalid", async () => {
    const { session, folder, edit, diff } = await bench();
    await session(acmeAddress, folder.certificates.acme, [usual]);
    await edit("partners/acme.yaml", "hosts:", "host:");
    expect(await diff()).toMatchObject({ exitCode: 2, out: "" });
  });

  it("replays a hundred thousand decisions in seconds", async () => {
    const { folder, clock, diff } = await bench();
    const chain = [new X509Certificate(folder.certificates.acme.cert)];
    const config = await folder.load();
    await mkdir(config.audit.path, { recursive: true });
    for (const day of [0, 1]) {
      const at = new Date(clock.now.getTime() + day * dayMs);
      const recorder = await DecisionRecorder.open(config.audit.path, silent, { now: () => at });
      for (let number = 0; number < 50_000; number++) {
        recorder.note({
          stage: "recipient",
          address: acmeAddress,
          chain,
          from: "a@acme.example",
          to: number % 100 === 0 ? `${number}@corp.example` : `${number}@edi.corp.example`,
          reply: "recipientAccepted",
          partner: "acme",
        });
      }
      await recorder.close();
    }
    clock.now = new Date(clock.now.getTime() + dayMs);
    const begun = process.cpuUsage();
    const ran = await diff();
    expect(process.cpuUsage(begun).user / 1e6).toBeLessThan(15); // some four, in seconds
    expect(ran.out).toMatch(/100000 decisions of 2 days replayed, 1000 would change/);
  }, 60_000);
});
