/**
 * What happens when something of ours fails: never 250, never 5xx, never a hung session, never the end of the process.
 * An unhandled rejection anywhere fails the run.
 */
import { mkdtemp, readdir, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, expect, it, onTestFinished } from "vitest";
import { nodeDisk, type Disk } from "../../src/spool/directory/disk.ts";
import { DirectoryDropBox } from "../../src/spool/directory/drop-box.ts";
import { SpoolFault, type Draft, type DropBox, type MessageMeta } from "../../src/spool/spool.ts";
import { letter, until, useRelay } from "./support.ts";

const startRelay = useRelay();

const large = `Subject: large\r\n\r\n${`${"x".repeat(998)}\r\n`.repeat(300)}`;
const secret = "/var/spool/secret/path";

const systemError = (code: string) => Object.assign(new Error(`${code}: ${secret}`), { code });

/** A drop-box on a folder of its own, whose disk fails as long as it is told to. */
async function failingDisk(change: (fail: () => void) => Partial<Disk>, code: string) {
  const directory = await mkdtemp(join(tmpdir(), "pinrelay-faults-"));
  onTestFinished(() => rm(directory, { recursive: true, force: true }));
  const state = { fails: true };
  const disk = {
    ...nodeDisk,
    ...change(() => {
      if (state.fails) throw systemError(code);
    }),
  };
  return { dropBox: new DirectoryDropBox({ directory, disk }), state, files: () => readdir(directory) };
}

type FileStep = "write" | "sync";

/** Fails at one step with a file that was created. */
const atFile = (step: FileStep) => (fail: () => void) => ({
  create: async (path: string) => {
    const file = await nodeDisk.create(path);
    return {
      write: async (pieces: readonly Buffer[]) => {
        if (step === "write") fail();
        await file.write(pieces);
      },
      sync: async () => {
        if (step === "sync") fail();
        await file.sync();
      },
      close: () => file.close(),
    };
  },
});

const steps: Array<[name: string, change: (fail: () => void) => Partial<Disk>]> = [
  ["create", (fail) => ({ create: async (path) => (fail(), nodeDisk.create(path)) })],
  ["write", atFile("write")],
  ["sync", atFile("sync")],
  ["rename", (fail) => ({ rename: async (from, to) => (fail(), nodeDisk.rename(from, to)) })],
  ["sync of the folder", (fail) => ({ syncDirectory: async (path) => (fail(), nodeDisk.syncDirectory(path)) })],
];

describe.each([
  ["ENOSPC", "452 4.3.1 Insufficient storage, try again later"],
  ["EIO", "451 4.3.0 Local error, try again later"],
])("a disk that fails with %s", (code, reply) => {
  it.each(steps)(`gets ${reply} at: %s`, async (_step, change) => {
    const { dropBox, state, files } = await failingDisk(change, code);
    const relay = await startRelay({ dropBox });
    const client = await relay.partner();
    for (const content of [letter, large]) {
      const answer = await client.send(content);
      expect(answer.startsWith(reply)).toBe(true);
      expect(answer).not.toContain(secret);
    }
    expect(relay.log().filter(({ event, level }) => event === "message refused" && level === "error")).toHaveLength(2);
    await until("nothing is left", async () => (await files()).length === 0);
    state.fails = false;
    expect(await client.send(letter)).toMatch(/^250 2\.0\.0 /);
    expect(await client.send(large)).toMatch(/^250 2\.0\.0 /);
  });
});

describe("a spool whose folder has been removed", () => {
  it("gets 451 4.3.0, and the session goes on", async () => {
    const relay = await startRelay();
    const client = await relay.partner();
    await rm(join(relay.config.spool.path, "incoming"), { recursive: true });
    expect(await client.send(letter)).toMatch(/^451 4\.3\.0 Local error, try again later \[/);
    expect(await client.send(large)).toMatch(/^451 4\.3\.0 /);
    expect(await client.say("NOOP")).toMatch(/^250 /);
  });
});

/** A drop-box in memory, that misbehaves in one way. */
function misbehaving(changes: Partial<Draft>, receive?: () => Draft): DropBox {
  return {
    receive:
      receive ??
      (() => ({
        id: "0mwu62vcbeujfwm1ta",
        write: () => undefined,
        commit: () => Promise.reject(new Error("not to be reached")),
        discard: () => Promise.resolve(),
        ...changes,
      })),
    close: () => Promise.resolve(),
  };
}

const boom = (): never => {
  throw new TypeError(`boom in ${secret}`);
};

describe("a drop-box that is broken", () => {
  const atData: Array<[name: string, receive: () => Draft, reply: RegExp]> = [
    ["with a programming error", boom, /^451 4\.3\.0 /],
    [
      "because it is full",
      () => {
        throw new SpoolFault("full", secret);
      },
      /^452 4\.3\.1 /,
    ],
  ];
  it.each(atData)("at DATA gets a temporary reply, and the session goes on: %s", async (_name, receive, reply) => {
    const relay = await startRelay({ dropBox: misbehaving({}, receive) });
    const client = await relay.partner();
    for (let round = 0; round < 3; round += 1) {
      const answer = await client.send(letter);
      expect(answer).toMatch(reply);
      expect(answer).not.toContain(secret);
      expect(await client.say("RSET")).toMatch(/^250 /);
    }
    expect(relay.log()).toContainEqual(expect.objectContaining({ level: "error", event: "fault", during: "DATA" }));
  });

  const rows: Array<[name: string, draft: Partial<Draft>]> = [
    ["write throws", { write: boom }],
    ["write rejects", { write: () => Promise.reject(new TypeError(secret)) }],
    ["commit throws", { commit: boom }],
    ["commit rejects", { commit: () => Promise.reject(new TypeError(secret)) }],
    ["write rejects, and discard too", { write: () => Promise.reject(new TypeError(secret)), discard: boom }],
    [
      "write rejects after another write threw",
      {
        write: (wire) => (wire.length > 9000 ? boom() : Promise.reject(new TypeError(secret))),
        discard: () => Promise.reject(new TypeError(secret)),
      },
    ],
  ];
  it.each(rows)("gets 451 4.3.0 at the end of data, and the session goes on: %s", async (_name, draft) => {
    const relay = await startRelay({ dropBox: misbehaving(draft) });
    const client = await relay.partner();
    for (const content of [letter, large]) {
      const answer = await client.send(content);
      expect(answer).toMatch(/^451 4\.3\.0 Local error, try again later \[\w+\]$/);
    }
    expect(await client.say("NOOP")).toMatch(/^250 /);
    expect(relay.log().filter(({ event, level }) => event === "message refused" && level === "error")).toHaveLength(2);
  });

  it("does not end the process when it cannot forget a message whose sender has gone", async () => {
    const relay = await startRelay({ dropBox: misbehaving({ discard: () => Promise.reject(new TypeError(secret)) }) });
    const client = await relay.partner();
    await client.say("MAIL FROM:<a@acme.example>");
    await client.say("RCPT TO:<orders@corp.example>");
    await client.say("DATA");
    client.close();
    await until("it is logged", () =>
      relay.log().some(({ event, during }) => event === "fault" && during === "discard"),
    );
    expect(relay.receiver.connections()).toBe(0);
  });

  it("keeps its refusals when it cannot forget a message that was refused", async () => {
    const relay = await startRelay({ dropBox: misbehaving({ discard: () => Promise.reject(new TypeError(secret)) }) });
    const client = await relay.partner();
    expect(await client.send("Subject: x\r\n\r\nbare \n lf\r\n")).toMatch(/^550 5\.6\.0 /);
    expect(await client.say("NOOP")).toMatch(/^250 /);
  });

  it("that never answers gets 451 4.3.0 for its clients in time, which are not taken for idle before", async () => {
    const never = () => new Promise<never>(() => undefined);
    const relay = await startRelay({
      dropBox: misbehaving({ commit: never }),
      timeouts: { idleMs: 50, commitMs: 300 },
    });
    const client = await relay.partner();
    expect(await client.send(letter)).toMatch(/^451 4\.3\.0 /);
  });
});

describe("a commit that is under way", () => {
  function slow() {
    let release: () => void = () => undefined;
    const released = new Promise<void>((resolve) => (release = resolve));
    let committing = false;
    let closed: "early" | "in time" | undefined;
    const dropBox: DropBox = {
      receive: () => ({
        id: "0mwu62vcbeujfwm1ta",
        write: () => undefined,
        commit: async (message): Promise<MessageMeta> => {
          committing = true;
          await released;
          committing = false;
          return { ...message, id: "0mwu62vcbeujfwm1ta", wireBytes: 1, sha256: "00" };
        },
        discard: () => Promise.resolve(),
      }),
      close: () => {
        closed = committing ? "early" : "in time";
        return Promise.resolve();
      },
    };
    return { dropBox, release, isCommitting: () => committing, closed: () => closed };
  }

  async function untilCommitting() {
    const spool = slow();
    const relay = await startRelay({ dropBox: spool.dropBox });
    const client = await relay.partner();
    await client.say("MAIL FROM:<a@acme.example>");
    await client.say("RCPT TO:<orders@corp.example>");
    await client.say("DATA");
    client.write(`${letter}.\r\n`);
    await until("it is being committed", spool.isCommitting);
    return { spool, relay, client };
  }

  it("is waited for by stop, its client gets 250 and then 421", async () => {
    const { spool, relay, client } = await untilCommitting();
    const stopped = relay.receiver.stop();
    spool.release();
    expect(await client.reply()).toMatch(/^250 2\.0\.0 /);
    expect(await client.reply()).toMatch(/^421 4\.3\.2 /);
    await stopped;
    expect(spool.closed()).toBe("in time");
  });

  it("is waited for by stop even if its client has gone", async () => {
    const { spool, relay, client } = await untilCommitting();
    client.close();
    await until("it has gone", () => relay.receiver.connections() === 0);
    const stopped = relay.receiver.stop();
    await new Promise((resolve) => setTimeout(resolve, 50));
    spool.release();
    await stopped;
    expect(spool.closed()).toBe("in time");
    expect(relay.log()).toContainEqual(expect.objectContaining({ event: "message accepted" }));
    expect(relay.log().filter(({ event }) => event === "message abandoned")).toEqual([]);
  });

  it("keeps what is pipelined behind it waiting, and answers it in order", async () => {
    const { spool, client } = await untilCommitting();
    client.write("NOOP\r\nRCPT TO:<orders@corp.example>\r\n");
    spool.release();
    expect(await client.reply()).toMatch(/^250 2\.0\.0 Queued/);
    expect(await client.reply()).toMatch(/^250 2\.0\.0 OK/);
    expect(await client.reply()).toMatch(/^503 /);
  });
});
