/** Files that SQLite would make, made before it: it gives them to the group and to others. What it adds gets their mode. */
import { closeSync, constants, existsSync, openSync } from "node:fs";

/**
 * Makes an empty file, mode 0600, if there is none. One that is there is not touched: to open and close it would take this
 * process's locks from it.
 */
export function makePrivate(file: string): void {
  if (existsSync(file)) return;
  closeSync(openSync(file, constants.O_WRONLY | constants.O_CREAT | constants.O_NOFOLLOW, 0o600));
}
