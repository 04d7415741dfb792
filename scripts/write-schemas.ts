/**
 * Writes config/schema/*.schema.json from the descriptions in src/config (`npm run schema`). A test fails while the files
 * are not up to date.
 */
import { mkdir, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { schemaFiles } from "../src/config/json-schema.ts";

const folder = join(import.meta.dirname, "../config/schema");
await mkdir(folder, { recursive: true });
for (const { name, text } of schemaFiles()) await writeFile(join(folder, name), text);
