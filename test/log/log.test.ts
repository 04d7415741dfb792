import { describe, expect, it } from "vitest";
import { createLog } from "../../src/log/log.ts";

function capture() {
  const lines: string[] = [];
  return { lines, log: createLog("receiver", { write: (line) => void lines.push(line) }) };
}

// eslint-disable-next-line no-control-regex -- it is about control characters
const unseen = /[\u0000-\u001f\u007f-\u009f\u2028\u2029\u202a-\u202e\u2066-\u2069\u200b\ufeff]/;

const hostile = [
  "a\nb",
  "a\r\nb",
  '","level":"fatal","x":"',
  "\u001b[2J\u001b]0;title\u0007",
  "\u009b2J",
  "\u0085next line",
  "\u2028line\u2029paragraph",
  "\u202eright to left\u2066isolated",
  "zero\u200bwidth\ufeff",
  "\u0000\u0008\u007f",
  "\\",
  "x".repeat(300) + "\u001b\u009b\n",
];

describe("the log", () => {
  it("is one JSON line an event, with time, level, process and process id", () => {
    const { lines, log } = capture();
    log.info({ event: "listening", port: 25 });
    expect(lines).toHaveLength(1);
    expect(lines[0]?.endsWith("\n")).toBe(true);
    expect(JSON.parse(lines[0] ?? "")).toEqual({
      level: "info",
      time: expect.stringMatching(/^\d{4}-\d\d-\d\dT[\d:.]+Z$/) as unknown,
      process: "receiver",
      pid: process.pid,
      event: "listening",
      port: 25,
    });
  });

  it.each(hostile)("keeps what a peer sent in its place and reads it back unchanged: %j", (text) => {
    const { lines, log } = capture();
    log.child({ session: "s1" }).info({ event: "refused", client: { helo: text, [text]: 1 } });
    expect(lines).toHaveLength(1);
    const [line = ""] = lines;
    expect(line.trimEnd()).not.toMatch(unseen);
    const read = JSON.parse(line) as Record<string, unknown>;
    expect(read["client"]).toEqual({ helo: text, [text]: 1 });
    expect(Object.keys(read)).toEqual(["level", "time", "process", "pid", "session", "event", "client"]);
    expect(read["level"]).toBe("info");
  });

  it("lets nothing that is nested replace what stands above it", () => {
    const { lines, log } = capture();
    log.child({ session: "s1" }).warn({ client: { level: "fatal", time: 0, session: "s2", pid: 1 } });
    expect(JSON.parse(lines[0] ?? "")).toMatchObject({ level: "warn", session: "s1", pid: process.pid });
  });
});
