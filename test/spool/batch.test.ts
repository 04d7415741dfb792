import { createHash } from "node:crypto";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import {
  batchBytesMax,
  batchRecordsMax,
  decodeBatch,
  encodeRecord,
  encodeTable,
  recordBytesMax,
} from "../../src/spool/directory/batch.ts";
import { newQueueId, isQueueId } from "../../src/spool/queue-id.ts";
import { SpoolFault, type MessageMeta } from "../../src/spool/spool.ts";
import { envelope } from "./tools.ts";

function metaOf(content: Buffer, to: readonly string[] = ["orders@corp.example"]): MessageMeta {
  return {
    id: newQueueId(Date.now()),
    receivedAtMs: 1,
    partner: "acme",
    toPartner: null,
    envelope: envelope(to),
    sizeBytes: content.length,
    wireBytes: content.length,
    headerBytes: 0,
    sha256: createHash("sha256").update(content).digest("hex"),
    session: null,
    eightBit: false,
  };
}

function batchOf(contents: readonly Buffer[]): { file: Buffer; metas: MessageMeta[] } {
  const metas = contents.map((content) => metaOf(content));
  const records = metas.map((meta, at) => Buffer.concat(encodeRecord(meta, [contents[at] ?? Buffer.alloc(0)])));
  return { file: Buffer.concat([...records, encodeTable(records.map(({ length }) => length))]), metas };
}

describe("decodeBatch", () => {
  it("gives what encodeRecord was given, whatever the content is", () => {
    const tricky = Buffer.from("PINRELAY1 00000000 00000000 00000 I 00000000\nPINRELAY1-END 00000000 00000000\n");
    fc.assert(
      fc.property(
        fc.array(fc.oneof(fc.uint8Array({ maxLength: 300 }), fc.constant(tricky)), { maxLength: 8 }),
        (arrays) => {
          const contents = arrays.map((array) => Buffer.from(array));
          const { file, metas } = batchOf(contents);
          const records = decodeBatch(file) ?? [];
          expect(records).toHaveLength(contents.length);
          for (const [at, record] of records.entries()) {
            if (record.kind === "damaged") throw new Error(record.reason);
            const { contentAt, contentBytes } = record.place;
            expect(record.meta).toEqual(metas[at]);
            expect(file.subarray(contentAt, contentAt + contentBytes)).toEqual(contents[at]);
          }
        },
      ),
    );
  });

  it("never throws, and never gives meta-data that nobody wrote, when octets are changed, lost or added", () => {
    const { file, metas } = batchOf([Buffer.from("one"), Buffer.from("two"), Buffer.alloc(0)]);
    const known = new Set(metas.map((meta) => JSON.stringify(meta)));
    const change = fc.record({ at: fc.nat(file.length), octet: fc.nat(255), length: fc.nat(file.length + 100) });
    fc.assert(
      fc.property(fc.array(change, { minLength: 1, maxLength: 4 }), (changes) => {
        const altered = Buffer.alloc(file.length + 100);
        file.copy(altered);
        for (const { at, octet } of changes) altered[at] = octet;
        for (const record of decodeBatch(altered.subarray(0, changes[0]?.length)) ?? []) {
          if (record.kind === "record") expect(known.has(JSON.stringify(record.meta))).toBe(true);
        }
      }),
      { numRuns: 2_000 },
    );
  });

  it("keeps damage to the record that has it", () => {
    const { file } = batchOf(["one", "two", "three"].map((text) => Buffer.from(text)));
    const at = file.indexOf('"partner"', file.indexOf("PINRELAY1", 20));
    file.write("#", at);
    expect(decodeBatch(file)?.map(({ kind }) => kind)).toEqual(["record", "damaged", "record"]);
  });

  it("reads marks that have been set, and no others", () => {
    const meta = metaOf(Buffer.alloc(0), ["a@corp.example", "b@corp.example", "c@corp.example"]);
    const record = Buffer.concat(encodeRecord(meta, []));
    const file = Buffer.concat([record, encodeTable([record.length])]);
    const marksAt = file.indexOf("...");
    for (const [marks, kind] of [
      ["DF.", "record"],
      ["X.D", "record"],
      ["d..", "damaged"],
      ["\0..", "damaged"],
    ] as const) {
      file.write(marks, marksAt);
      const [found] = decodeBatch(file) ?? [];
      expect(found?.kind).toBe(kind);
      if (found?.kind === "record") expect(found.marks.join("")).toBe(marks);
    }
  });

  it.each([
    ["nothing", Buffer.alloc(0)],
    ["a table of more records than a batch may have", Buffer.concat([encodeTable(Array(batchRecordsMax + 1).fill(0))])],
    ["a file that is larger than any batch", Buffer.alloc(batchBytesMax + 1)],
    ["a table without records", Buffer.concat([encodeTable([100]), Buffer.alloc(0)])],
  ])("takes %s for no batch", (_, file) => {
    expect(decodeBatch(file)?.filter(({ kind }) => kind === "record") ?? []).toEqual([]);
  });
});

describe("encodeRecord", () => {
  it("refuses what it could not read again", () => {
    const meta = metaOf(Buffer.alloc(0));
    for (const wrong of [{ id: "x" }, { wireBytes: -1 }, { receivedAtMs: 1.5 }, { partner: "x".repeat(3000) }]) {
      expect(() => encodeRecord({ ...meta, ...wrong }, [])).toThrow(SpoolFault);
    }
  });

  it("writes no record that would not fit into a batch", () => {
    const content = Buffer.alloc(recordBytesMax);
    expect(() => encodeRecord(metaOf(content), [content])).toThrow(SpoolFault);
  });
});

describe("newQueueId", () => {
  it("sorts by time, also across a thousand years, and is never given twice", () => {
    const ids = Array.from({ length: 1_000 }, (_, n) => newQueueId(n * 31_557_600_000));
    expect(ids).toEqual(ids.toSorted());
    expect(ids.every(isQueueId)).toBe(true);
    expect(new Set(Array.from({ length: 10_000 }, () => newQueueId(1))).size).toBe(10_000);
  });

  it("is valid for a clock that is not", () => {
    for (const nowMs of [-1, 0, 0.5, Number.MAX_SAFE_INTEGER]) expect(isQueueId(newQueueId(nowMs))).toBe(true);
  });
});
