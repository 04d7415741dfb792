import { readdirSync, readFileSync } from "node:fs";
import { dirname, join, relative, resolve } from "node:path";
import { describe, expect, it } from "vitest";

const source = resolve(import.meta.dirname, "../../src");

/** Folders from the top down: a file may import from its own folder and from those below it. */
const layers = [
  ["cli"],
  ["supervisor", "receiver", "deliverer", "console"],
  ["spool", "config", "audit", "certs", "sightings"],
  ["partner"],
  ["mail"],
  ["log", "files"],
] as const;

/** Who alone may import a package. */
const soleImporters: Record<string, string> = {
  "smtp-server": "receiver/server.ts",
  nodemailer: "deliverer/nodemailer-seams.ts",
  "node-forge": "certs/",
  convict: "config/",
  yaml: "config/",
  pino: "log/log.ts",
  commander: "cli/",
  "ipaddr.js": "partner/address-range.ts",
  tr46: "mail/domain.ts",
  "@scure": "partner/fingerprint.ts",
  uqr: "cli/",
};

interface Import {
  readonly file: string;
  readonly target: string;
}

const files = readdirSync(source, { recursive: true, encoding: "utf8" }).filter((file) => file.endsWith(".ts"));
const imports: Import[] = files.flatMap((file) =>
  [...readFileSync(join(source, file), "utf8").matchAll(/^(?:import .*|export .*|\}) from "([^"]+)";$/gm)].map(
    (match) => ({
      file,
      target: match[1] ?? "",
    }),
  ),
);

function layerOf(path: string): number {
  const folder = path.split("/")[0];
  return layers.findIndex((layer) => layer.some((name) => name === folder));
}

describe("imports", () => {
  const local = imports
    .filter(({ target }) => target.startsWith("."))
    .map(({ file, target }) => ({ file, target: relative(source, resolve(source, dirname(file), target)) }));

  it("are found at all", () => {
    expect(local.length).toBeGreaterThan(100);
  });

  it("go down only", () => {
    const upward = local.filter(({ file, target }) => {
      const [from, to] = [layerOf(file), layerOf(target)];
      return from < 0 || to < 0 || from > to;
    });
    expect(upward).toEqual([]);
  });

  it("never lead from one compartment to another", () => {
    const compartments = ["receiver", "deliverer", "console", "supervisor"];
    const crossing = local.filter(({ file, target }) => {
      const [from, to] = [file.split("/")[0] ?? "", target.split("/")[0] ?? ""];
      return from !== to && compartments.includes(from) && compartments.includes(to);
    });
    expect(crossing).toEqual([]);
  });

  it("leave mail and partner without input and output", () => {
    const pure = new Set([
      "node:crypto",
      "node:net",
      "node:buffer",
      "node:util",
      "ipaddr.js",
      "tr46",
      "@scure/bip39",
      "@scure/bip39/wordlists/english.js",
    ]);
    const impure = imports.filter(
      ({ file, target }) => /^(?:mail|partner)\//.test(file) && !target.startsWith(".") && !pure.has(target),
    );
    expect(impure).toEqual([]);
  });

  it.each(Object.entries(soleImporters))("of %s stand in %s alone", (name, place) => {
    const importers = imports
      .filter(({ target }) => target === name || target.startsWith(`${name}/`))
      .map(({ file }) => file);
    expect(importers.length).toBeGreaterThan(0);
    expect(importers.filter((file) => !file.startsWith(place))).toEqual([]);
  });

  it("use no package but those listed here", () => {
    const packages = imports
      .map(({ target }) => target)
      .filter((target) => !target.startsWith(".") && !target.startsWith("node:"))
      .map((target) => target.split("/")[0] ?? "");
    expect(new Set(packages).difference(new Set(Object.keys(soleImporters)))).toEqual(new Set());
  });
});

describe("the source", () => {
  it("never asks the TLS library whether a peer is authorized", () => {
    const asking = files.filter((file) =>
      /\.authorized\b|authorizationError/.test(readFileSync(join(source, file), "utf8")),
    );
    expect(asking).toEqual([]);
  });

  it("asks no DNS", () => {
    const asking = imports.filter(({ target }) => target === "node:dns" || target === "node:dns/promises");
    expect(asking).toEqual([]);
  });
});
