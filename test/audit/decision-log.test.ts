/** The decision log: what is kept of decisions, how it is bounded, and that it never gets in anybody's way. */
import { X509Certificate } from "node:crypto";
import { appendFile, mkdir, readFile, readdir, rm, stat, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { DecisionRecorder, decisionsMax, retentionDays } from "../../src/audit/decision-log.ts";
import { readDecisions, type DecisionDay } from "../../src/audit/decision-reader.ts";
import type { Decision } from "../../src/audit/decision-record.ts";
import { createLog } from "../../src/log/log.ts";
import { certificateDigest } from "../../src/partner/pin.ts";
import { fixture, temporaryFolder } from "../certs/support.ts";
import { until } from "../receiver/support.ts";

const noon = new Date("2026-11-24T12:00:00Z");
const dayMs = 86_400_000;
const certificate = new X509Certificate(fixture("self-signed.pem"));
const chain = [certificate];

const accepted: Decision = {
  stage: "recipient",
  address: "203.0.113.5",
  chain,
  group: "X25519MLKEM768",
  helo: "mx.acme.example",
  from: "a@acme.example",
  to: "orders@corp.example",
  reply: "recipientAccepted",
  partner: "acme",
  rule: () => "orders@corp.example (acme.yaml:5)",
};
const stranger: Decision = { stage: "greeting", address: "192.0.2.1", chain: [], reply: "addressUnknown" };

interface Bench {
  readonly audit: string;
  readonly clock: { now: Date };
  readonly file: (day?: string) => string;
  readonly lines: () => string;
  readonly open: () => Promise<DecisionRecorder>;
  readonly days: (since?: Date) => Promise<DecisionDay[]>;
}

/** @param writeMs never, unless told otherwise: only what close() writes. */
async function bench(options: { readonly writeMs?: number; readonly countMs?: number } = {}): Promise<Bench> {
  const audit = join(await temporaryFolder(), "audit");
  const clock = { now: noon };
  const logged: string[] = [];
  const log = createLog("receiver", { write: (line) => void logged.push(line) });
  return {
    audit,
    clock,
    file: (day = "2026-11-24") => join(audit, "decisions", `${day}.jsonl`),
    lines: () => logged.join(""),
    open: () => DecisionRecorder.open(audit, log, { now: () => clock.now, writeMs: 3_600_000, ...options }),
    async days(since = new Date(0)) {
      const days: DecisionDay[] = [];
      for await (const day of readDecisions(audit, since)) days.push(day);
      return days;
    },
  };
}

describe("a decision", () => {
  it("is read back with its certificate and how often it was taken", async () => {
    const { open, days } = await bench();
    const recorder = await open();
    for (let count = 0; count < 3; count++) recorder.note(accepted);
    recorder.note({ ...accepted, to: "ceo@corp.example", reply: "recipientNotAllowed" });
    recorder.note(stranger);
    await recorder.close();
    const [day, ...others] = await days();
    expect(others).toEqual([]);
    expect(day).toMatchObject({ day: "2026-11-24", unreadableLines: 0, unrecorded: 0 });
    const digest = certificateDigest(certificate);
    expect([...(day?.certificates ?? [])]).toEqual([[digest, certificate.toString()]]);
    expect(day?.decisions).toMatchObject([
      { ...accepted, chain: [digest], at: noon, count: 3, rule: "orders@corp.example (acme.yaml:5)" },
      { to: "ceo@corp.example", reply: "recipientNotAllowed", count: 1 },
      { stage: "greeting", address: "192.0.2.1", chain: [], reply: "addressUnknown", count: 1 },
    ]);
  });

  it("is another one with another address, certificate, key exchange, sender, recipient, reply or partner", async () => {
    const { open, days } = await bench();
    const recorder = await open();
    const changes: Array<Partial<Decision>> = [
      {},
      { address: "203.0.113.6" },
      { chain: [] },
      { group: undefined },
      { from: "" },
      { from: undefined },
      { to: undefined },
      { smtpUtf8: true },
      { reply: "relayingDenied" },
      { partner: "globex" },
    ];
    for (const change of changes) recorder.note({ ...accepted, ...change });
    await recorder.close();
    expect((await days())[0]?.decisions).toHaveLength(changes.length);
  });

  it("keeps the largest size that was declared", async () => {
    const { open, days } = await bench();
    const recorder = await open();
    for (const declaredBytes of [100, 5000, 300]) {
      recorder.note({ ...accepted, stage: "mail", to: undefined, declaredBytes });
    }
    await recorder.close();
    expect((await days())[0]?.decisions).toMatchObject([{ declaredBytes: 5000, count: 3 }]);
  });

  it("is on disk soon, and so are its repetitions, while the receiver goes on", async () => {
    const { open, days, clock } = await bench({ writeMs: 5, countMs: 60_000 });
    const recorder = await open();
    recorder.note(accepted);
    await until("the decision is on disk", async () => (await days())[0]?.decisions.length === 1);
    recorder.note(accepted);
    clock.now = new Date(noon.getTime() + 61_000);
    await until("the repetition is on disk", async () => (await days())[0]?.decisions[0]?.count === 2);
    await recorder.close();
    expect((await days())[0]?.decisions[0]?.count).toBe(2);
  });

  it("goes into the file of its day, and is new on each day", async () => {
    const { open, days, clock } = await bench();
    const recorder = await open();
    recorder.note(accepted);
    recorder.note(accepted);
    clock.now = new Date(noon.getTime() + dayMs);
    recorder.note(accepted);
    await recorder.close();
    expect((await days()).map(({ day, decisions }) => [day, decisions[0]?.count])).toEqual([
      ["2026-11-24", 2],
      ["2026-11-25", 1],
    ]);
    expect((await days(clock.now)).map(({ day }) => day)).toEqual(["2026-11-25"]);
  });

  it("of a receiver that starts again on the same day is counted on", async () => {
    const { open, days, file } = await bench();
    for (let life = 0; life < 2; life++) {
      const recorder = await open();
      recorder.note(accepted);
      await recorder.close();
    }
    const [day] = await days();
    expect(day?.decisions.map(({ count }) => count)).toEqual([2]);
    expect((await readFile(file(), "utf8")).match(/"kind":"certificate"/g)).toHaveLength(1);
  });
});

describe("the files", () => {
  it("are the relay's alone", async () => {
    const { open, file, audit } = await bench();
    const recorder = await open();
    recorder.note(accepted);
    await recorder.close();
    expect((await stat(file())).mode & 0o777).toBe(0o600);
    expect((await stat(join(audit, "decisions"))).mode & 0o777).toBe(0o700);
  });

  it("are removed when they are older than the retention, and nothing else is", async () => {
    const { open, audit, clock } = await bench();
    const folder = join(audit, "decisions");
    await mkdir(folder, { recursive: true });
    const dayBefore = (days: number) => new Date(noon.getTime() - days * dayMs).toISOString().slice(0, 10);
    const kept = [`${dayBefore(retentionDays)}.jsonl`, "notes.txt", "2020-01-01.jsonl.gz"];
    for (const name of [...kept, `${dayBefore(retentionDays + 1)}.jsonl`]) await writeFile(join(folder, name), "");
    const recorder = await open();
    expect(new Set(await readdir(folder))).toEqual(new Set(kept));
    clock.now = new Date(noon.getTime() + dayMs);
    recorder.note(accepted);
    await until("the next old one is gone", async () => !(await readdir(folder)).includes(kept[0] ?? ""));
    await recorder.close();
  });

  it("tolerate a last line that was torn, and what is no line of theirs", async () => {
    const { open, days, file } = await bench();
    const first = await open();
    first.note(accepted);
    await first.close();
    const foreign = ["[]", '{"kind":"other"}', '{"kind":"decision","id":1}', '{"kind":"repeated","counts":{"x":"y"}}'];
    await appendFile(file(), `${foreign.join("\n")}\n${"x".repeat(200_000)}\n{"kind":"decision","id":"torn`);
    expect((await days())[0]).toMatchObject({ unreadableLines: 6, decisions: [{ count: 1 }] });
    const second = await open();
    second.note(stranger);
    await second.close();
    expect((await days())[0]).toMatchObject({ unreadableLines: 6, decisions: [{ count: 1 }, { count: 1 }] });
  });

  it("of which there are none hold no days", async () => {
    const { days } = await bench();
    expect(await days()).toEqual([]);
  });

  it("show no control character that a peer wrote", async () => {
    const { open, file } = await bench();
    const recorder = await open();
    recorder.note({ ...accepted, helo: "\u001b[2J\u202e\n", from: `${"x".repeat(5000)}@acme.example` });
    await recorder.close();
    const text = await readFile(file(), "utf8");
    // eslint-disable-next-line no-control-regex -- it is about control characters
    expect(text).not.toMatch(/[\u0000-\u0009\u000b-\u001f\u202e]/);
    expect(text.split("\n").filter((line) => line.includes("xxx"))[0]?.length).toBeLessThan(2000);
  });
});

describe("what a peer can make the log keep", () => {
  it("is limited for strangers, who take no place from partners", async () => {
    const { open, days } = await bench();
    const recorder = await open();
    for (let number = 0; number < decisionsMax.strangers + 7; number++) {
      recorder.note({ ...stranger, address: `10.0.${number >> 8}.${number & 255}` });
    }
    recorder.note(accepted);
    await recorder.close();
    const [day] = await days();
    expect(day?.unrecorded).toBe(7);
    expect(day?.decisions).toHaveLength(decisionsMax.strangers + 1);
  });

  it("is limited for those whom no pin knows, and in all", async () => {
    const { open, days } = await bench();
    const recorder = await open();
    for (let number = 0; number < decisionsMax.unknown + 5; number++) {
      recorder.note({ ...accepted, partner: undefined, from: `${number}@x.example`, reply: "certificateUnknown" });
    }
    for (let number = 0; number < decisionsMax.all; number++) {
      recorder.note({ ...accepted, from: `${number}@acme.example` });
    }
    recorder.note({ ...accepted, from: "0@acme.example" }); // known already
    await recorder.close();
    const [day] = await days();
    expect(day?.decisions).toHaveLength(decisionsMax.all);
    expect(day?.unrecorded).toBe(5 + decisionsMax.unknown);
  });

  it("is counted on by the next receiver of the day", async () => {
    const { open, days } = await bench();
    for (let life = 0; life < 2; life++) {
      const recorder = await open();
      for (let number = 0; number < decisionsMax.strangers; number++) {
        recorder.note({ ...stranger, address: `10.${life}.${number >> 8}.${number & 255}` });
      }
      await recorder.close();
    }
    expect((await days())[0]).toMatchObject({ unrecorded: decisionsMax.strangers });
  });
});

describe("a disk that takes nothing", () => {
  it("costs no decision: it is logged once, and written when the disk is back", async () => {
    const { open, days, audit, lines } = await bench({ writeMs: 5 });
    await writeFile(audit, "in the place of the folder");
    const recorder = await open();
    recorder.note(accepted);
    await until("the fault is logged", () => lines().includes("recording decisions"));
    recorder.note(accepted);
    recorder.note(stranger);
    await new Promise((resolve) => setTimeout(resolve, 50)); // some more attempts
    expect(lines().match(/recording decisions/g)).toHaveLength(1);
    await rm(audit);
    await until("all is on disk", async () => (await days())[0]?.decisions.length === 2);
    await recorder.close();
    expect((await days())[0]?.decisions.map(({ count }) => count)).toEqual([2, 1]);
  });

  it("does not keep the receiver from stopping", async () => {
    const { open, audit, lines } = await bench();
    const recorder = await open();
    await writeFile(audit, "in the place of the folder");
    recorder.note(accepted);
    await recorder.close();
    expect(lines()).toContain("recording decisions");
    recorder.note(accepted); // too late, and no fault
  });
});
