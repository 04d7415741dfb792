import { open, readdir, readFile, rm } from "node:fs/promises";
import { mkdtemp } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect } from "vitest";
import { openDirectorySpool } from "../../src/spool/directory/directory-spool.ts";
import { DirectoryDropBox } from "../../src/spool/directory/drop-box.ts";
import { QueueAdmin } from "../../src/spool/directory/queue-admin.ts";
import { describeSpool } from "./contract.ts";

describeSpool("the directory driver", async () => {
  const path = await mkdtemp(join(tmpdir(), "pinrelay-contract-"));
  const files = async () => {
    const entries = await readdir(path, { recursive: true, withFileTypes: true });
    return entries.filter((entry) => entry.isFile()).map(({ parentPath, name }) => join(parentPath, name));
  };
  return {
    async openDropBox() {
      const dropBox = new DirectoryDropBox({ directory: join(path, "incoming") });
      await dropBox.removeLeftovers();
      return dropBox;
    },
    openSpool: () => openDirectorySpool({ path, report: () => undefined }),
    openAdmin: (now) => new QueueAdmin(path, now),
    async damage(id) {
      const large = (await files()).find((file) => file.includes(`.${id}.content`));
      const inline = (await files()).filter((file) => file.endsWith(".batch"));
      for (const file of large === undefined ? inline : [large]) {
        const bytes = await readFile(file);
        const record = large === undefined ? bytes.indexOf(`"id":"${id}"`) : 0;
        if (record < 0) continue;
        const position = bytes.indexOf("\r\n\r\n", record) + 5;
        expect(position).toBeGreaterThan(5);
        const handle = await open(file, "r+");
        await handle.write(Buffer.from("#"), 0, 1, position);
        await handle.close();
      }
    },
    async isKept(octets) {
      const kept = (await files()).filter((file) => file.startsWith(join(path, "corrupt")));
      const contents = await Promise.all(kept.map((file) => readFile(file)));
      return contents.some((content) => content.includes(octets));
    },
    remove: () => rm(path, { recursive: true, force: true }),
  };
});
