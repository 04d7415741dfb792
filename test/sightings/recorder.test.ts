/** What the receiver remembers of certificates: the recorder beside its files, read back as an operator reads them. */
import { fork } from "node:child_process";
import { once } from "node:events";
import { lstat, mkdir, mkdtemp, readdir, readFile, rm, symlink, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, expect, it, onTestFinished } from "vitest";
import { writeFileDurably } from "../../src/files/durable.ts";
import { createLog } from "../../src/log/log.ts";
import type { Partner } from "../../src/partner/partner.ts";
import { pinKey } from "../../src/partner/pin.ts";
import { retiresAt } from "../../src/partner/rollover.ts";
import { historyOf, readPinSightings, readQuarantine } from "../../src/sightings/reader.ts";
import type { RecordWriterOptions, WriteFile } from "../../src/sightings/record-writer.ts";
import { SightingsRecorder } from "../../src/sightings/recorder.ts";
import { quarantineId } from "../../src/sightings/sightings.ts";
import { partner } from "../partner/partners.ts";
import { anchorPin, spkiPin } from "../partner/pins.ts";
import { makeCertificate, type Made } from "../receiver/certificates.ts";
import { until } from "../receiver/support.ts";

const dayMs = 86_400_000;
const start = new Date("2027-01-01T00:00:00Z");
const after = (ms: number): Date => new Date(start.getTime() + ms);
const address = "203.0.113.5";
const acme = partner("acme");
const globex = partner("globex");

async function makeSpool(): Promise<string> {
  const path = await mkdtemp(join(tmpdir(), "pinrelay-sightings-"));
  onTestFinished(() => rm(path, { recursive: true, force: true }));
  return path;
}

interface Recording {
  readonly recorder: SightingsRecorder;
  readonly log: () => ReadonlyArray<Readonly<Record<string, unknown>>>;
}

async function record(spool: string, options: RecordWriterOptions = {}, now = start): Promise<Recording> {
  const lines: string[] = [];
  const log = createLog("receiver", { write: (line) => void lines.push(line) });
  const recorder = await SightingsRecorder.open(spool, log, now, options);
  onTestFinished(() => recorder.close());
  return { recorder, log: () => lines.map((line) => JSON.parse(line) as Record<string, unknown>) };
}

function filesOf(spool: string, folder: "pins" | "quarantine"): Promise<string[]> {
  return readdir(join(spool, "sightings", folder));
}

function faulty(code: string): { readonly write: WriteFile; mend(): void; attempts(): number } {
  let isFaulty = true;
  let attempts = 0;
  return {
    write: (...parameters) => {
      attempts += 1;
      if (!isFaulty) return writeFileDurably(...parameters);
      return Promise.reject(Object.assign(new Error(`${code}: no space left on device`), { code }));
    },
    mend: () => (isFaulty = false),
    attempts: () => attempts,
  };
}

async function certificates(count: number): Promise<Made[]> {
  const made: Made[] = [];
  for (let index = 0; index < count; index += 1) made.push(await makeCertificate());
  return made;
}

describe("the quarantine", () => {
  it("is empty where nothing has been seen", async () => {
    const spool = await makeSpool();
    expect(await readQuarantine(spool)).toEqual([]);
    expect(await readPinSightings(spool)).toEqual([]);
    expect(historyOf([]).firstSeen(acme, spkiPin((await makeCertificate()).certificate))).toBeUndefined();
  });

  it("keeps certificate, partners, addresses, first and last time and the count, and tells the reference", async () => {
    const spool = await makeSpool();
    const { recorder } = await record(spool);
    const { certificate } = await makeCertificate();
    const id = recorder.noteUnknown([certificate], [acme, globex], address, start);
    expect(id).toMatch(/^[0-9a-f]{12}$/);
    expect(recorder.noteUnknown([certificate], [acme], "203.0.113.6", after(1000))).toBe(id);
    await recorder.close();
    expect(await readQuarantine(spool)).toEqual([
      {
        id,
        certificate: expect.objectContaining({ fingerprint256: certificate.fingerprint256 }) as unknown,
        partners: ["acme"],
        addresses: ["203.0.113.6", address],
        firstSeenMs: start.getTime(),
        lastSeenMs: start.getTime() + 1000,
        count: 2,
      },
    ]);
  });

  it("alerts once for each certificate, also after a restart", async () => {
    const spool = await makeSpool();
    const { certificate } = await makeCertificate();
    const first = await record(spool);
    for (let index = 0; index < 3; index += 1) first.recorder.noteUnknown([certificate], [acme], address, start);
    await first.recorder.close();
    const alerts = first.log().filter(({ event }) => event === "quarantined");
    expect(alerts).toEqual([
      expect.objectContaining({ level: "warn", reference: quarantineId(certificate), address, addressOf: ["acme"] }),
    ]);
    const second = await record(spool);
    second.recorder.noteUnknown([certificate], [acme], address, start);
    expect(second.log().filter(({ event }) => event === "quarantined")).toEqual([]);
  });

  it("writes a new certificate at once, and what follows later, in one go", async () => {
    const spool = await makeSpool();
    const written: string[] = [];
    const write: WriteFile = async (file, ...rest) => {
      await writeFileDurably(file, ...rest);
      written.push(file);
    };
    const { recorder } = await record(spool, { write });
    const { certificate } = await makeCertificate();
    recorder.noteUnknown([certificate], [acme], address, start);
    await until("the file is written", () => written.length === 1);
    for (let index = 0; index < 100; index += 1) recorder.noteUnknown([certificate], [acme], address, start);
    expect((await readQuarantine(spool))[0]?.count).toBe(1);
    await recorder.close();
    expect(written).toHaveLength(2);
    expect((await readQuarantine(spool))[0]?.count).toBe(101);
  });

  it("writes what has changed when the time has come, without being closed", async () => {
    const spool = await makeSpool();
    const { recorder } = await record(spool, { intervalMs: 20 });
    const { certificate } = await makeCertificate();
    for (let index = 0; index < 5; index += 1) {
      recorder.noteUnknown([certificate], [acme], address, start);
      await until("it is written", async () => (await readQuarantine(spool))[0]?.count === index + 1);
    }
  });

  it("keeps twenty of an address that shows two thousand, the latest, on disk and in memory", async () => {
    const spool = await makeSpool();
    const { recorder } = await record(spool);
    const others = await certificates(3);
    for (const { certificate } of others) recorder.noteUnknown([certificate], [globex], "203.0.113.9", start);
    const many = await certificates(2000);
    let filesMax = 0;
    for (const [index, { certificate }] of many.entries()) {
      recorder.noteUnknown([certificate], [acme], address, after(index + 1));
      if (index % 100 === 99) {
        await new Promise((resolve) => setTimeout(resolve, 20));
        filesMax = Math.max(filesMax, (await filesOf(spool, "quarantine")).length);
      }
    }
    await recorder.close();
    expect(filesMax).toBeLessThanOrEqual(20 + 3 + 2); // and one that is being written
    expect(await filesOf(spool, "quarantine")).toHaveLength(23);
    const kept = new Set((await readQuarantine(spool)).map(({ id }) => id));
    expect(kept).toEqual(new Set([...others, ...many.slice(-20)].map(({ certificate }) => quarantineId(certificate))));
  });

  it("keeps a thousand in all, and makes room at the cost of the partner who has most", async () => {
    const spool = await makeSpool();
    const { recorder } = await record(spool, { write: (file, data) => writeFile(file, data) }); // without the syncs
    const [others, many] = [await certificates(5), await certificates(1200)];
    for (const { certificate } of others) recorder.noteUnknown([certificate], [globex], address, start);
    for (const [index, { certificate }] of many.entries()) {
      recorder.noteUnknown([certificate], [acme], `2001:db8::${index.toString(16)}`, after(index + 1));
    }
    await recorder.close();
    expect(await filesOf(spool, "quarantine")).toHaveLength(1000);
    const kept = new Set((await readQuarantine(spool)).map(({ id }) => id));
    expect(kept).toEqual(new Set([...others, ...many.slice(-995)].map(({ certificate }) => quarantineId(certificate))));
  });

  it("forgets what was not seen for thirty days, and nothing younger", async () => {
    const spool = await makeSpool();
    const [old, young] = await certificates(2);
    if (old === undefined || young === undefined) throw new Error("two were asked for");
    const first = await record(spool);
    first.recorder.noteUnknown([old.certificate], [acme], address, start);
    first.recorder.noteUnknown([young.certificate], [acme], address, after(dayMs));
    await first.recorder.close();
    const second = await record(spool, {}, after(30 * dayMs + 1));
    await second.recorder.close();
    expect((await readQuarantine(spool)).map(({ id }) => id)).toEqual([quarantineId(young.certificate)]);
    expect(await filesOf(spool, "quarantine")).toHaveLength(1);
  });

  it("keeps nothing of a certificate larger than 16 KiB, and still alerts and gives a reference", async () => {
    const spool = await makeSpool();
    const { recorder, log } = await record(spool);
    const names = Array.from({ length: 700 }, (_, index) => `host-${index}.padding.acme.example`);
    const { certificate } = await makeCertificate({ dnsNames: names });
    expect(certificate.raw.length).toBeGreaterThan(16 * 1024);
    expect(recorder.noteUnknown([certificate], [acme], address, start)).toBe(quarantineId(certificate));
    await recorder.close();
    expect(await readQuarantine(spool)).toEqual([]);
    expect(log()).toContainEqual(expect.objectContaining({ event: "quarantined" }));
  });

  it("keeps the latest eight addresses of a certificate", async () => {
    const spool = await makeSpool();
    const { recorder } = await record(spool);
    const { certificate } = await makeCertificate();
    for (let host = 1; host <= 20; host += 1) recorder.noteUnknown([certificate], [acme], `203.0.113.${host}`, start);
    await recorder.close();
    const [kept] = await readQuarantine(spool);
    expect(kept?.addresses).toEqual([20, 19, 18, 17, 16, 15, 14, 13].map((host) => `203.0.113.${host}`));
    expect(kept?.count).toBe(20);
  });

  it("lets a certificate go as soon as it identifies a partner", async () => {
    const spool = await makeSpool();
    const { recorder } = await record(spool);
    const { certificate } = await makeCertificate();
    recorder.noteUnknown([certificate], [acme], address, start);
    recorder.noteIdentified({ partner: acme, pin: spkiPin(certificate) }, [certificate], address, after(1));
    await recorder.close();
    expect(await readQuarantine(spool)).toEqual([]);
    expect(await readPinSightings(spool)).toHaveLength(1);
  });
});

describe("the pins in use", () => {
  it("are kept with the certificates that matched them, and survive a restart", async () => {
    const spool = await makeSpool();
    const { certificate } = await makeCertificate();
    const pin = spkiPin(certificate);
    for (const days of [0, 3]) {
      const { recorder } = await record(spool, {}, after(days * dayMs));
      recorder.noteIdentified({ partner: acme, pin }, [certificate], address, after(days * dayMs));
      await recorder.close();
      expect(recorder.firstSeen(acme, pin)).toEqual(start);
      expect(recorder.firstSeen(globex, pin)).toBeUndefined();
    }
    const sightings = await readPinSightings(spool);
    expect(sightings).toEqual([
      expect.objectContaining({
        partner: "acme",
        pin: pinKey(pin),
        id: quarantineId(certificate),
        firstSeenMs: start.getTime(),
        lastSeenMs: start.getTime() + 3 * dayMs,
        count: 2,
        addresses: [address],
        pinNextSinceMs: undefined,
        refused: undefined,
      }),
    ]);
    expect(historyOf(sightings).firstSeen(acme, pin)).toEqual(start);
  });

  it("keep the latest twenty certificates under a trust anchor, and the time of the first", async () => {
    const spool = await makeSpool();
    const { recorder } = await record(spool);
    const anchor = await makeCertificate({ ca: true });
    const pin = anchorPin([anchor.certificate]);
    const made = await certificates(50);
    for (const [index, { certificate }] of made.entries()) {
      recorder.noteIdentified({ partner: acme, pin }, [certificate], address, after(index));
    }
    await recorder.close();
    const sightings = await readPinSightings(spool);
    expect(sightings.map(({ id }) => id)).toEqual(
      made
        .slice(-20)
        .toReversed()
        .map(({ certificate }) => quarantineId(certificate)),
    );
    expect(new Set(sightings.map(({ pinFirstSeenMs }) => pinFirstSeenMs))).toEqual(new Set([start.getTime()]));
  });

  it("count uses that were refused, apart from those that were let in", async () => {
    const spool = await makeSpool();
    const { recorder } = await record(spool);
    const { certificate } = await makeCertificate();
    const pin = spkiPin(certificate);
    recorder.noteIdentified({ partner: acme, pin }, [certificate], address, start);
    recorder.noteRefused({ partner: acme, pin: { ...pin, state: "revoked" } }, [certificate], after(dayMs));
    await recorder.close();
    expect(await readPinSightings(spool)).toEqual([
      expect.objectContaining({
        count: 1,
        lastSeenMs: start.getTime(),
        refused: { count: 1, lastMs: start.getTime() + dayMs },
      }),
    ]);
  });

  describe("of a rollover", async () => {
    const [old, next] = [await makeCertificate(), await makeCertificate()];
    const oldPin = spkiPin(old.certificate);
    const nextPin = spkiPin(next.certificate, { state: "next" });
    const rolling: Partner = partner("acme", { pins: [oldPin, nextPin] });

    it("begin the retirement of the old one with the first use of the next, which is written at once", async () => {
      const spool = await makeSpool();
      const { recorder } = await record(spool);
      recorder.noteIdentified({ partner: rolling, pin: oldPin }, [old.certificate], address, start);
      expect(retiresAt(rolling, oldPin, recorder)).toBeUndefined();
      recorder.noteIdentified({ partner: rolling, pin: nextPin }, [next.certificate], address, after(dayMs));
      expect(retiresAt(rolling, oldPin, recorder)).toEqual(after(15 * dayMs));
      recorder.noteIdentified({ partner: rolling, pin: nextPin }, [next.certificate], address, after(5 * dayMs));
      expect(retiresAt(rolling, oldPin, recorder)).toEqual(after(15 * dayMs));
      await until("both are written", async () => (await readPinSightings(spool)).length === 2);
      expect(retiresAt(rolling, oldPin, historyOf(await readPinSightings(spool)))).toEqual(after(15 * dayMs));
    });

    it("count from the first use as the next one, not from a use in former times", async () => {
      const spool = await makeSpool();
      const { recorder } = await record(spool);
      const before = { ...nextPin, state: "active" as const };
      recorder.noteIdentified({ partner: rolling, pin: before }, [next.certificate], address, start);
      expect(retiresAt(rolling, oldPin, recorder)).toBeUndefined();
      recorder.noteIdentified({ partner: rolling, pin: nextPin }, [next.certificate], address, after(100 * dayMs));
      expect(retiresAt(rolling, oldPin, recorder)).toEqual(after(114 * dayMs));
      // The rollover is finished, and much later the same key is to be the next one again.
      recorder.noteIdentified({ partner: rolling, pin: before }, [next.certificate], address, after(200 * dayMs));
      expect(retiresAt(rolling, oldPin, recorder)).toBeUndefined();
      await recorder.close();
      expect(retiresAt(rolling, oldPin, historyOf(await readPinSightings(spool)))).toBeUndefined();
    });

    it("of a partner that was removed and enrolled anew do not count as the first use of its next pin", async () => {
      const spool = await makeSpool();
      const { recorder } = await record(spool);
      recorder.noteIdentified({ partner: rolling, pin: nextPin }, [next.certificate], address, start);
      // Removed, and perhaps only by mistake: nothing is forgotten of the file that comes back.
      recorder.retain([globex]);
      expect(retiresAt(rolling, oldPin, recorder)).toEqual(after(14 * dayMs));
      recorder.retain([partner("acme", { pins: [oldPin, { ...nextPin, state: "pending" }] })]);
      expect(retiresAt(rolling, oldPin, recorder)).toBeUndefined();
      await recorder.close();
      expect(retiresAt(rolling, oldPin, historyOf(await readPinSightings(spool)))).toBeUndefined();
    });
  });
});

describe("the files", () => {
  it("are 0600 in folders of 0700, and their names tell nothing that a peer has sent", async () => {
    const spool = await makeSpool();
    const { recorder } = await record(spool);
    const { certificate } = await makeCertificate();
    recorder.noteUnknown([certificate], [acme], address, start);
    recorder.noteIdentified({ partner: globex, pin: spkiPin(certificate) }, [certificate], "203.0.113.7", start);
    const other = await makeCertificate();
    recorder.noteUnknown([other.certificate], [acme], address, start);
    await recorder.close();
    for (const folder of ["", "pins", "quarantine"]) {
      expect((await lstat(join(spool, "sightings", folder))).mode & 0o777).toBe(0o700);
    }
    for (const folder of ["pins", "quarantine"] as const) {
      const names = await filesOf(spool, folder);
      expect(names).toHaveLength(1);
      for (const name of names) {
        expect(name).toMatch(/^[0-9a-f]{64}\.json$/);
        expect((await lstat(join(spool, "sightings", folder, name))).mode & 0o777).toBe(0o600);
      }
    }
  });

  it.each([
    ["is empty", ""],
    ["is torn", '{"partners": ["acme"], "certif'],
    ["holds something else", "[1, 2]"],
    [
      "holds no certificate",
      '{"partners":[],"firstSeen":"2027-01-01T00:00:00Z","lastSeen":"2027-01-01T00:00:00Z","count":1,"addresses":[],"certificate":"x"}',
    ],
    [
      "has a count that is none",
      '{"partners":[],"firstSeen":"2027-01-01T00:00:00Z","lastSeen":"2027-01-01T00:00:00Z","count":-1,"addresses":[],"certificate":""}',
    ],
    ["is larger than any of ours", " ".repeat(2 * 1024 * 1024)],
  ])("that %s is skipped, logged, and written anew when the certificate is seen again", async (_, text) => {
    const spool = await makeSpool();
    const [one, two] = await certificates(2);
    if (one === undefined || two === undefined) throw new Error("two were asked for");
    const first = await record(spool);
    first.recorder.noteUnknown([one.certificate], [acme], address, start);
    await first.recorder.close();
    const [name = ""] = await filesOf(spool, "quarantine");
    const file = join(spool, "sightings", "quarantine", name);
    const whole = await readFile(file, "utf8");
    await writeFile(file, text);
    await writeFile(join(file, "..", `.${name}.abc.tmp`), "a draft");
    expect(await readQuarantine(spool)).toEqual([]);
    const second = await record(spool);
    expect(second.log()).toEqual([expect.objectContaining({ event: "sighting skipped", level: "error", file })]);
    second.recorder.noteUnknown([one.certificate], [acme], address, start);
    second.recorder.noteUnknown([two.certificate], [acme], address, start);
    await second.recorder.close();
    expect(await readFile(file, "utf8")).toBe(whole);
    expect(await filesOf(spool, "quarantine")).toHaveLength(2); // the draft has gone
  });

  it("under another's name are not believed, nor those behind a link, and a folder in a file's place is passed over", async () => {
    const spool = await makeSpool();
    const first = await record(spool);
    const { certificate } = await makeCertificate();
    first.recorder.noteUnknown([certificate], [acme], address, start);
    await first.recorder.close();
    const folder = join(spool, "sightings", "quarantine");
    const [name = ""] = await readdir(folder);
    await writeFile(join(folder, `${"0".repeat(64)}.json`), await readFile(join(folder, name)));
    await symlink(join(folder, name), join(folder, `${"1".repeat(64)}.json`));
    await mkdir(join(folder, `${"2".repeat(64)}.json`));
    expect(await readQuarantine(spool)).toHaveLength(1);
    const second = await record(spool);
    expect(second.log()).toHaveLength(3);
  });

  it("that cannot be written are kept in memory, logged once, and written when the disk takes them", async () => {
    const spool = await makeSpool();
    const disk = faulty("ENOSPC");
    const { recorder, log } = await record(spool, { write: disk.write, intervalMs: 50 });
    const made = await certificates(10);
    for (const { certificate } of made) recorder.noteUnknown([certificate], [acme], address, start);
    await until("it was tried", () => disk.attempts() >= 2);
    const faults = log().filter(({ event }) => event === "fault");
    expect(faults.length).toBeGreaterThan(0);
    expect(faults.length).toBeLessThanOrEqual(disk.attempts());
    expect(await readQuarantine(spool)).toEqual([]);
    disk.mend();
    await until("all are written", async () => (await readQuarantine(spool)).length === 10);
  });

  it("that cannot be written one by one do not keep the others from being written", async () => {
    const spool = await makeSpool();
    const { recorder } = await record(spool, { intervalMs: 20 });
    const [bad, ...good] = await certificates(4);
    if (bad === undefined) throw new Error("four were asked for");
    const probe = await makeSpool();
    const other = await record(probe);
    other.recorder.noteUnknown([bad.certificate], [acme], address, start);
    await other.recorder.close();
    const [name = ""] = await filesOf(probe, "quarantine");
    await mkdir(join(spool, "sightings", "quarantine", name), { recursive: true });
    for (const { certificate } of [bad, ...good]) recorder.noteUnknown([certificate], [acme], address, start);
    await until("the others are written", async () => (await readQuarantine(spool)).length === 3);
  });

  it("are whole, each of them, after a kill -9 in the midst of writing", async () => {
    const spool = await makeSpool();
    for (let round = 0; round < 3; round += 1) {
      const child = fork(join(import.meta.dirname, "recorder-process.ts"), [spool], { stdio: "ignore" });
      const ended = once(child, "exit");
      await once(child, "message");
      await new Promise((resolve) => setTimeout(resolve, 30 + 40 * round));
      child.kill("SIGKILL");
      await ended;
      const { log } = await record(spool);
      expect(log()).toEqual([]);
      const names = await filesOf(spool, "quarantine");
      expect(names.filter((name) => name.startsWith("."))).toEqual([]);
      const quarantine = await readQuarantine(spool);
      expect(quarantine.length).toBeGreaterThan(0);
      expect(quarantine).toHaveLength(names.length);
    }
  });
});
