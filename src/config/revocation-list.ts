/**
 * Revocation lists beside a trust anchor: the files that a pin names, read and held against its CAs.
 *
 * Promises: a list that is taken was signed by one of the CAs in the anchor's file; one that is out of date is taken with
 * a warning, because it still tells what was revoked. What is wrong is reported where the file is named.
 */
import type { X509Certificate } from "node:crypto";
import { dirname, resolve } from "node:path";
import { parseRevocationList } from "../certs/crl.ts";
import { CertificateFault } from "../certs/fault.ts";
import type { RevocationList } from "../partner/revocation.ts";
import type { FileReport } from "./problems.ts";
import type { LoadContext } from "./route.ts";
import type { Path } from "./text.ts";

/** What the anchor of a pin is made of. */
interface Anchored {
  readonly file: string;
  readonly anchors: readonly X509Certificate[];
}

/** The lists of the files, which are named relative to the file that names them; those in error are left out. */
export async function makeRevocationLists(
  written: ReadonlyArray<string | undefined>,
  anchored: Anchored,
  path: Path,
  report: FileReport,
  context: LoadContext,
): Promise<RevocationList[]> {
  const lists: RevocationList[] = [];
  for (const [index, one] of written.entries()) {
    if (one === undefined) continue;
    const itemPath = report.isSet([...path, index]) ? [...path, index] : path; // one alone needs no list around it
    const list = await readList(resolve(dirname(report.file), one), context);
    if ("fault" in list) {
      report.error(itemPath, list.fault);
    } else if (!anchored.anchors.some((anchor) => list.isOf(anchor))) {
      report.error(
        itemPath,
        `${list.file} was signed by none of the CAs in ${anchored.file}: put the CA's own list here, or its certificate there`,
      );
    } else {
      if (list.nextUpdate < context.now) {
        const day = list.nextUpdate.toISOString().slice(0, 10);
        report.warning(
          itemPath,
          `${list.file} is out of date since ${day}: mail of its certificates waits; get the new one`,
        );
      }
      lists.push(list);
    }
  }
  return lists;
}

type Read = RevocationList | { readonly fault: string };

/** Several partners may have one CA: its list is parsed once. */
const parsed = new WeakMap<Uint8Array, Read>();

async function readList(file: string, context: LoadContext): Promise<Read> {
  const bytes = await context.pemFiles.readBytes(file);
  if ("fault" in bytes) return { fault: `${file} ${bytes.fault}` };
  const list = parsed.get(bytes) ?? parse(bytes, file);
  parsed.set(bytes, list);
  return list;
}

function parse(bytes: Uint8Array, file: string): Read {
  try {
    return parseRevocationList(bytes, file);
  } catch (error) {
    if (error instanceof CertificateFault) return { fault: `${file} ${error.message}` };
    throw error;
  }
}
