/**
 * QR codes for terminals: for a camera that reads what nobody wants to type. The one importer of `uqr`.
 *
 * Promises: two rows of modules in one row of characters, a quiet zone around it as ISO/IEC 18004 wants (4 modules), and
 * black on white by escape sequences, whatever the colours of the terminal: many cameras do not read it inverted.
 */
import { encode } from "uqr";

const quietModules = 4;

/** The lines of a QR code, each ended by a line feed. Throws for text that is too long for one (about 2300 bytes). */
export function qrText(text: string): string {
  const modules = qrModules(text);
  const rows: string[] = [];
  for (let y = 0; y < modules.length; y += 2) {
    const [upper = [], lower = []] = [modules[y], modules[y + 1]];
    const cells = upper.map((dark, x) => halfBlock(dark, lower[x] ?? false)).join("");
    rows.push(`\u001b[30;107m${cells}\u001b[0m\n`);
  }
  return rows.join("");
}

/** Rows of modules, the quiet zone included; true is dark. */
export function qrModules(text: string): readonly (readonly boolean[])[] {
  return encode(text, { ecc: "M", border: quietModules }).data;
}

function halfBlock(upper: boolean, lower: boolean): string {
  if (upper) return lower ? "█" : "▀";
  return lower ? "▄" : " ";
}
