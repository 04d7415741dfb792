/** Tables, text that is safe to show, and how commands end. */
import { describe, expect, it } from "vitest";
import { CertificateFault } from "../../src/certs/fault.ts";
import { examples, newCommand } from "../../src/cli/command.ts";
import { CliError, formatTable, printable, type Output } from "../../src/cli/output.ts";
import { run } from "./support.ts";

describe("formatTable", () => {
  it("puts columns under each other and leaves no blanks at the end of lines", () => {
    const table = formatTable(
      [
        ["acme", "203.0.113.0/28", ""],
        ["a-longer-name", "any", "x"],
      ],
      ["NAME", "HOSTS", "N"],
    );
    expect(table).toBe(
      "NAME           HOSTS           N\nacme           203.0.113.0/28\na-longer-name  any             x\n",
    );
  });

  it("fits its width by cutting the widest columns", () => {
    const table = formatTable([["acme", "x".repeat(150), "y".repeat(90)]], ["NAME", "HOSTS", "PINS"]);
    const [, row = ""] = table.split("\n");
    expect(row).toHaveLength(100);
    expect(row).toMatch(/^acme {2}x+… {2}y+…$/);
  });

  it("keeps one line a row, whatever the cells hold", () => {
    const table = formatTable([["acme\nroot", "\u001b[31mred\u001b[0m", "abc\u202edef"]], ["A", "B", "C"]);
    expect(table.split("\n")).toHaveLength(3);
    expect(table).not.toContain("\u001b");
    expect(table).toContain(String.raw`acme\u{a}root`);
  });

  it("counts characters that are two columns wide as two, and never cuts through one", () => {
    const [, first = "", second = ""] = formatTable(
      [
        ["株式会社", "x"],
        ["acme", "x"],
      ],
      ["NAME", "N"],
    ).split("\n");
    expect(first).toBe("株式会社  x");
    expect(second).toBe("acme      x");
    const [, cut = ""] = formatTable([["👩‍👩‍👧".repeat(80)]], ["NAME"], 20).split("\n");
    expect(cut).toMatch(/…$/);
    expect(cut.isWellFormed()).toBe(true);
  });

  it("of no rows is its header, and missing cells are empty", () => {
    expect(formatTable([], ["NAME", "N"])).toBe("NAME  N\n");
    expect(formatTable([["acme"]], ["NAME", "N"])).toBe("NAME  N\nacme\n");
  });
});

describe("printable", () => {
  it.each([
    { text: "plain – ünïcode", shown: "plain – ünïcode" },
    { text: "a\tb\r\n", shown: String.raw`a\u{9}b\u{d}\u{a}` },
    { text: "\u001b]0;title\u0007", shown: String.raw`\u{1b}]0;title\u{7}` },
    { text: "\u009b31m", shown: String.raw`\u{9b}31m` },
    { text: "moc.\u202eexample", shown: String.raw`moc.\u{202e}example` },
    { text: "\ud800", shown: "\ufffd" },
  ])("shows $shown", ({ text, shown }) => {
    expect(printable(text)).toBe(shown);
  });
});

describe("a command", () => {
  function failing(error: unknown): (output: Output) => ReturnType<typeof newCommand> {
    return (output) =>
      newCommand("test", output)
        .option("--number <n>")
        .addHelpText("after", examples("test --number 1 \\", "    --other"))
        .action(() => {
          // oxlint-disable-next-line typescript/only-throw-error -- also what is no Error
          if (error !== undefined) throw error;
        });
  }
  const systemError = Object.assign(new Error("EACCES: permission denied, open 'x'"), {
    code: "EACCES",
    syscall: "open",
  });

  it.each([
    { when: "it is done", error: undefined, exitCode: 0, err: "" },
    {
      when: "the answer is no",
      error: new CliError(1, "no such partner"),
      exitCode: 1,
      err: "pinrelay: no such partner\n",
    },
    { when: "it is used wrongly", error: new CliError(2, "give --cert"), exitCode: 2, err: "pinrelay: give --cert\n" },
    {
      when: "a certificate is refused",
      error: new CertificateFault("acme.pem: is empty"),
      exitCode: 1,
      err: "pinrelay: acme.pem: is empty\n",
    },
    {
      when: "the system would not",
      error: systemError,
      exitCode: 1,
      err: "pinrelay: EACCES: permission denied, open 'x'\n",
    },
    {
      when: "the reason has two lines",
      error: new CliError(1, "a\nb\u001b"),
      exitCode: 1,
      err: `pinrelay: a\npinrelay: b${String.raw`\u{1b}`}\n`,
    },
  ])("ends with $exitCode when $when", async ({ error, exitCode, err }) => {
    expect(await run(failing(error), [])).toEqual({ exitCode, out: "", err });
  });

  it("ends with 2 for an option that is unknown or lacks its value", async () => {
    expect(await run(failing(undefined), ["--nmber", "1"])).toMatchObject({
      exitCode: 2,
      err: expect.stringContaining("Did you mean --number"),
    });
    expect(await run(failing(undefined), ["--number"])).toMatchObject({ exitCode: 2 });
    expect(await run(failing(undefined), ["surplus"])).toMatchObject({ exitCode: 2 });
  });

  it("ends with 0 after its help, which has its examples", async () => {
    const { exitCode, out, err } = await run(failing(undefined), ["--help"]);
    expect({ exitCode, err }).toEqual({ exitCode: 0, err: "" });
    expect(out).toContain("Examples:\n  $ test --number 1 \\\n        --other\n");
  });

  it.each([new TypeError("bug"), new RangeError("bug")])("lets a fault of the program through (%s)", async (error) => {
    await expect(run(failing(error), [])).rejects.toBe(error);
  });
});
