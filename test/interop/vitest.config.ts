import { defineConfig } from "vitest/config";

export default defineConfig({
  test: {
    include: ["test/interop/**/*.test.ts"],
    globalSetup: ["test/interop/announce.ts"],
    testTimeout: 120_000,
    hookTimeout: 60_000,
    pool: "forks",
    // The mail servers are what keeps the machine busy; one file at a time keeps their logs apart too.
    fileParallelism: false,
    reporters: ["default"],
  },
});
