/**
 * A receiver that has been taken over can write whatever it likes into the drop-box. It must gain nothing by it but to bring
 * in mail: no file of the deliverer's is touched, nobody else's message is lost, delayed or sent twice, and nothing costs
 * more than the octets that were written.
 */
import { execFileSync } from "node:child_process";
import { copyFile, lstat, mkdir, open, readdir, readFile, rename, stat, symlink, writeFile } from "node:fs/promises";
import { createServer } from "node:net";
import { join } from "node:path";
import { crc32 } from "node:zlib";
import { describe, expect, it, onTestFinished } from "vitest";
import { encodeTable } from "../../src/spool/directory/batch.ts";
import { openDirectorySpool, type SpoolProblem } from "../../src/spool/directory/directory-spool.ts";
import { DirectoryDropBox } from "../../src/spool/directory/drop-box.ts";
import { readMessage, readQueue } from "../../src/spool/directory/queue-reader.ts";
import {
  claimDue,
  claimNew,
  collect,
  contentOf,
  defer,
  deliver,
  envelope,
  idsOf,
  large,
  only,
  receive,
  temporaryFolder,
} from "./tools.ts";

async function spoolWith() {
  const path = await temporaryFolder();
  const problems: SpoolProblem[] = [];
  const options = { path, report: (problem: SpoolProblem) => problems.push(problem) };
  let spool = await openDirectorySpool(options);
  const incoming = join(path, "incoming");
  const dropBox = new DirectoryDropBox({ directory: incoming });
  onTestFinished(async () => {
    await dropBox.close();
    await spool.close();
  });
  return {
    path,
    incoming,
    queue: join(path, "queue"),
    corrupt: join(path, "corrupt"),
    problems,
    dropBox,
    get spool() {
      return spool;
    },
    reopen: async () => {
      await spool.close();
      spool = await openDirectorySpool(options);
      return spool;
    },
  };
}

/** An id that is older than any that is given now. */
const oldId = (n: number) => `000000000${String(n).padStart(9, "0")}`;

/** A record as an attacker would write it: right in form, with whatever meta-data. */
function forge(meta: object | string, content = Buffer.alloc(0), recipients = 1, storage: "I" | "F" = "I"): Buffer {
  const json = Buffer.from(typeof meta === "string" ? meta : JSON.stringify(meta));
  const hex = (value: number, digits: number) => value.toString(16).padStart(digits, "0");
  const head = `PINRELAY1 ${hex(json.length, 8)} ${hex(content.length, 8)} ${hex(recipients, 5)} ${storage} `;
  const line = `${head}${hex(crc32(json, crc32(head)), 8)}\n${".".repeat(recipients)}\n`;
  return Buffer.concat([Buffer.from(line), json, Buffer.from("\n"), content, Buffer.from("\n")]);
}

function batchOf(...records: readonly Buffer[]): Buffer {
  return Buffer.concat([...records, encodeTable(records.map(({ length }) => length))]);
}

function metaOf(id: string, more: object = {}): object {
  return {
    id,
    receivedAtMs: 1,
    partner: "acme",
    toPartner: null,
    envelope: envelope(),
    sizeBytes: 0,
    wireBytes: 0,
    headerBytes: 0,
    sha256: "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    session: null,
    eightBit: false,
    ...more,
  };
}

describe("what is planted in the drop-box", () => {
  const things: Array<[string, (path: string, outside: string) => Promise<unknown>]> = [
    ["an empty file", (path) => writeFile(path, "")],
    ["a file of rubbish", (path) => writeFile(path, Buffer.alloc(100_000, "PINRELAY1-END "))],
    ["a directory", (path) => mkdir(path)],
    [
      "a directory with something in it",
      async (path) => {
        await mkdir(path);
        await writeFile(join(path, "x"), "");
      },
    ],
    ["a link to a file outside", (path, outside) => symlink(outside, path)],
    ["a link to nothing", (path) => symlink("/nowhere/at/all", path)],
    ["a link to a device", (path) => symlink("/dev/zero", path)],
    ["a FIFO", async (path) => void execFileSync("mkfifo", [path])],
    [
      "a socket",
      (path) =>
        new Promise((resolve) => {
          const server = createServer();
          onTestFinished(() => void server.close());
          // A socket's path must be short; it is moved to its place.
          server.listen(`/tmp/p-${process.pid}-${Date.now()}`, () => {
            const address = server.address();
            resolve(rename(typeof address === "string" ? address : "", path));
          });
        }),
    ],
    [
      "a sparse file of 10 GB",
      async (path) => {
        const file = await open(path, "w");
        await file.truncate(10_000_000_000);
        await file.close();
      },
    ],
  ];

  it.each(things)("as a batch, %s, is set aside and holds up nothing", async (_, plant) => {
    const { incoming, corrupt, dropBox, spool, problems, path } = await spoolWith();
    const outside = join(await temporaryFolder(), "secret");
    await writeFile(outside, "secret");
    await plant(join(incoming, `${oldId(1)}.batch`), outside);
    const { id } = await receive(dropBox);
    expect(idsOf(await collect(readQueue(path)))).toEqual([id]);
    expect(await readMessage(path, id)).toBeDefined();
    expect(idsOf(await claimNew(spool))).toEqual([id]);
    expect(await claimNew(spool)).toEqual([]);
    expect((await readdir(incoming)).filter((name) => name.endsWith(".batch"))).toEqual([]);
    await lstat(join(corrupt, `${oldId(1)}.batch`));
    expect(problems.map(({ kind }) => kind)).toEqual(["damaged"]);
    expect(await readFile(outside, "utf8")).toBe("secret");
  });

  it.each(things)("as a content, %s, is never sent and is set aside", async (_, plant) => {
    const { incoming, dropBox, spool, corrupt } = await spoolWith();
    const outside = join(await temporaryFolder(), "secret");
    await writeFile(outside, large("secret"));
    const { id } = await receive(dropBox, { content: large() });
    const content = join(incoming, `${id}.${id}.content`);
    await rename(content, `${content}.away`);
    await plant(content, outside);
    const message = only(await claimNew(spool));
    await expect(contentOf(message)).rejects.toMatchObject({ name: "SpoolFault", kind: "damaged" });
    await spool.setAside(message, "damaged");
    expect((await readdir(corrupt)).filter((name) => name.startsWith(`${id}.${id}.content`)).length).toBeGreaterThan(0);
    expect(await readFile(outside)).toEqual(large("secret"));
    expect(await claimNew(spool)).toEqual([]);
  });

  it("without its content, is set aside", async () => {
    const { spool, incoming, corrupt } = await spoolWith();
    const record = forge(metaOf(oldId(1), { wireBytes: 5 }), Buffer.alloc(0), 1, "F");
    await writeFile(join(incoming, `${oldId(1)}.batch`), batchOf(record));
    const message = only(await claimNew(spool));
    await expect(contentOf(message)).rejects.toMatchObject({ kind: "damaged" });
    await spool.setAside(message, "damaged");
    expect(await readdir(corrupt)).toContain(`${oldId(1)}.0.record`);
  });

  it("under any other name stays where it is", async () => {
    const { incoming, dropBox, spool, problems } = await spoolWith();
    const names = [
      "x",
      "../x.batch".replaceAll("/", "_"),
      `${oldId(1)}-own.batch`,
      `${oldId(1)}.batch.`,
      "index.sqlite",
    ];
    for (const name of names) await writeFile(join(incoming, name), batchOf(forge(metaOf(oldId(1)))));
    await receive(dropBox);
    expect(await claimNew(spool)).toHaveLength(1);
    expect((await readdir(incoming)).toSorted()).toEqual(names.toSorted());
    expect(problems).toEqual([]);
  });

  it("and cannot be moved away is reported, and holds up nothing", async () => {
    const { incoming, dropBox, spool, corrupt } = await spoolWith();
    await writeFile(join(incoming, `${oldId(1)}.batch`), "");
    // A name that is taken by something that cannot be replaced.
    await mkdir(join(corrupt, `${oldId(1)}.batch`));
    const { id } = await receive(dropBox);
    expect(idsOf(await claimNew(spool))).toEqual([id]);
    expect(await readdir(corrupt)).toContain(`${oldId(1)}.batch.2`);
  });
});

describe("a forged batch", () => {
  const isDamaged: Array<[string, Buffer]> = [
    ["meta-data that is no JSON", forge("{")],
    ["meta-data that is no object", forge("[1]")],
    ["an id that leads out of the folder", forge(metaOf("../../../../tmp/victim"))],
    ["an id that is too short", forge(metaOf("abc"))],
    ["no recipient", forge(metaOf(oldId(2), { envelope: { ...envelope(), recipients: [] } }), Buffer.alloc(0), 0)],
    ["fewer recipients than marks", forge(metaOf(oldId(2)), Buffer.alloc(0), 2)],
    ["a recipient that is none", forge(metaOf(oldId(2), { envelope: { ...envelope(), recipients: [null] } }))],
    [
      "an address with a line of SMTP in it",
      forge(
        metaOf(oldId(2), {
          envelope: {
            ...envelope(),
            recipients: [
              {
                path: {
                  kind: "mailbox",
                  mailbox: {
                    address: "a@corp.example>\r\nRCPT TO:<b@other.example",
                    localPart: "a",
                    domain: "corp.example",
                    internationalized: false,
                  },
                },
              },
            ],
          },
        }),
      ),
    ],
    [
      "an address that is not of the domain it says",
      forge(
        metaOf(oldId(2), {
          envelope: {
            ...envelope(),
            recipients: [
              {
                path: {
                  kind: "mailbox",
                  mailbox: {
                    address: "a@other.example",
                    localPart: "a",
                    domain: "corp.example",
                    internationalized: false,
                  },
                },
              },
            ],
          },
        }),
      ),
    ],
    [
      "a parameter with a line of SMTP in it",
      forge(metaOf(oldId(2), { envelope: { ...envelope(), envelopeId: "a\r\nRSET" } })),
    ],
    ["a partner that is none", forge(metaOf(oldId(2), { partner: {} }))],
    ["a size that is none", forge(metaOf(oldId(2), { wireBytes: -1 }))],
    ["a time that is none", forge(metaOf(oldId(2), { receivedAtMs: "now" }))],
    ["a report of ours to another partner", forge(metaOf(oldId(2), { partner: null, toPartner: "globex" }))],
  ];
  it.each(isDamaged)("with %s is set aside, and the other messages of the batch are given out", async (_, record) => {
    const { incoming, spool, problems, corrupt } = await spoolWith();
    const others = [oldId(1), oldId(3)];
    const batch = batchOf(forge(metaOf(oldId(1))), record, forge(metaOf(oldId(3))));
    await writeFile(join(incoming, `${oldId(1)}.batch`), batch);
    const messages = await claimNew(spool);
    expect(idsOf(messages)).toEqual(others);
    expect(problems.map(({ kind }) => kind)).toEqual(["damaged"]);
    expect(only((await readdir(corrupt)).filter((name) => name.endsWith(".record")))).toMatch(/^0{17}1\.\d+\.record$/);
    for (const message of messages) await deliver(spool, message);
    expect(await readdir(join(corrupt, "../queue"))).not.toContain(`${oldId(1)}.batch`);
  });

  it("cannot take the place of one that is taken", async () => {
    const all = await spoolWith();
    const { id } = await receive(all.dropBox);
    await defer(all.spool, only(await claimNew(all.spool)), 20_000);
    const active = await receive(all.dropBox);
    await claimNew(all.spool);
    for (const name of [id, active.id]) {
      await writeFile(join(all.incoming, `${name}.batch`), batchOf(forge(metaOf(oldId(1)))));
      await writeFile(join(all.incoming, `${name}.${oldId(1)}.content`), "x");
    }
    expect(await claimNew(all.spool)).toEqual([]);
    const next = await all.reopen();
    expect(idsOf(await claimDue(next, 20_000))).toEqual([id]);
    expect(idsOf(await claimNew(next))).toEqual([active.id]);
    expect((await readdir(all.incoming)).filter((name) => !name.startsWith("lock."))).toEqual([]);
  });

  it("cannot take the place of a content", async () => {
    const { incoming, dropBox, spool } = await spoolWith();
    const content = large();
    const { id } = await receive(dropBox, { content });
    const message = only(await claimNew(spool));
    const own = oldId(1);
    await writeFile(
      join(incoming, `${own}.batch`),
      batchOf(forge(metaOf(id, { wireBytes: 3 }), Buffer.alloc(0), 1, "F")),
    );
    await writeFile(join(incoming, `${own}.${id}.content`), "bad");
    await writeFile(join(incoming, `${id}.${id}.content`), "bad");
    expect(await claimNew(spool)).toEqual([]);
    expect(await contentOf(message)).toEqual(content);
  });

  it.each(["in the deliverer's hand", "deferred", "taken and not read yet"])(
    "with the id of a message that is %s, changes nothing about that message",
    async (where) => {
      const all = await spoolWith();
      const content = large();
      const { id } = await receive(all.dropBox, { content });
      const message = only(await claimNew(all.spool));
      if (where === "deferred") await defer(all.spool, message, 20_000);
      const forged = batchOf(forge(metaOf(id)), forge(metaOf(id)), forge(metaOf(oldId(9))));
      await writeFile(join(all.incoming, `${oldId(1)}.batch`), forged);
      if (where === "taken and not read yet") await all.reopen();
      const claimed = await claimNew(all.spool);
      const [given] = where === "taken and not read yet" ? claimed.splice(0, 1) : [message];
      expect(idsOf(claimed)).toEqual([oldId(9)]);
      for (const other of claimed) await deliver(all.spool, other);
      const held = where === "deferred" ? only(await claimDue(all.spool, 20_000)) : given;
      if (held === undefined) throw new Error("the message is gone");
      expect(held.meta.id).toBe(id);
      expect(await contentOf(held)).toEqual(content);
      if (held !== message || where !== "deferred") await deliver(all.spool, held);
      expect(await claimNew(await all.reopen())).toEqual([]);
      expect((await readdir(all.corrupt)).filter((name) => name.endsWith(".record"))).toHaveLength(2);
    },
  );

  it("of a million records costs no more than its octets", async () => {
    const { incoming, spool, corrupt, dropBox } = await spoolWith();
    const count = 1_000_000;
    const offsets = "0000000000\n".repeat(count);
    const hex = (value: number) => value.toString(16).padStart(8, "0");
    await writeFile(
      join(incoming, `${oldId(1)}.batch`),
      `${offsets}PINRELAY1-END ${hex(count)} ${hex(crc32(offsets))}\n`,
    );
    const { id } = await receive(dropBox);
    expect(idsOf(await claimNew(spool))).toEqual([id]);
    expect(await readdir(corrupt)).toHaveLength(2);
  });

  it("that names one record again and again is set aside as a whole", async () => {
    const { incoming, spool, corrupt } = await spoolWith();
    const record = forge(metaOf(oldId(1)));
    const end = record.length.toString(16).padStart(10, "0");
    const table = `0000000000\n${end}\n0000000000\n${end}\n`;
    const hex = (value: number) => value.toString(16).padStart(8, "0");
    const tail = `${table}PINRELAY1-END ${hex(4)} ${hex(crc32(table))}\n`;
    await writeFile(join(incoming, `${oldId(1)}.batch`), Buffer.concat([record, Buffer.from(tail)]));
    expect(await claimNew(spool)).toEqual([]);
    expect(await readdir(corrupt)).toContain(`${oldId(1)}.batch`);
  });

  it("that claims to be a report, after it has been taken, is not believed at the next start either", async () => {
    const all = await spoolWith();
    const { id } = await receive(all.dropBox);
    await claimNew(all.spool);
    // The receiver still has the file open, and writes into it.
    const forged = batchOf(forge(metaOf(id, { partner: null, toPartner: "globex" })));
    await writeFile(join(all.queue, `${id}.batch`), forged);
    expect(await claimNew(await all.reopen())).toEqual([]);
    expect(await readdir(all.corrupt)).toContain(`${id}.0.record`);
  });

  it("keeps only what it needs in memory: not a whole batch for one of its messages", async () => {
    const { dropBox, spool } = await spoolWith();
    await Promise.all(Array.from({ length: 50 }, () => receive(dropBox, { content: large("x", 60_000) })));
    for (const message of await claimNew(spool)) {
      expect(message.content?.buffer.byteLength).toBeLessThan(70_000);
    }
  });
});

describe("what is set aside", () => {
  it("is kept, every copy of it, also under the same name", async () => {
    const { incoming, spool, corrupt } = await spoolWith();
    for (const text of ["one", "two", "three"]) {
      await writeFile(join(incoming, `${oldId(1)}.batch`), text);
      await claimNew(spool);
    }
    const names = [1, 2, 3].map((n) => `${oldId(1)}.batch${n === 1 ? "" : `.${n}`}`);
    expect((await readdir(corrupt)).toSorted()).toEqual(names.flatMap((name) => [name, `${name}.reason`]).toSorted());
    const texts = await Promise.all(names.map((name) => readFile(join(corrupt, name), "utf8")));
    expect(texts).toEqual(["one", "two", "three"]);
    for (const name of names) expect((await stat(join(corrupt, `${name}.reason`))).mode & 0o777).toBe(0o600);
  });

  it("is not kept again when the same batch is read again", async () => {
    const all = await spoolWith();
    const batch = batchOf(forge("{"), forge(metaOf(oldId(2))));
    await writeFile(join(all.incoming, `${oldId(1)}.batch`), batch);
    expect(await claimNew(all.spool)).toHaveLength(1);
    for (let n = 0; n < 3; n += 1) expect(await claimNew(await all.reopen())).toHaveLength(1);
    expect(await readdir(all.corrupt)).toHaveLength(2);
  });

  it("is accepted again when a person puts it back", async () => {
    const { dropBox, spool, incoming, corrupt } = await spoolWith();
    const { id } = await receive(dropBox);
    const path = join(incoming, `${id}.batch`);
    const good = await readFile(path);
    await writeFile(path, good.subarray(0, -1));
    expect(await claimNew(spool)).toEqual([]);
    await writeFile(join(corrupt, `${id}.batch`), good);
    await copyFile(join(corrupt, `${id}.batch`), path);
    expect(idsOf(await claimNew(spool))).toEqual([id]);
  });
});
