/** A recorder that is told of more and more certificates, until it is killed. Its parent hears of the first file. */
import { createLog } from "../../src/log/log.ts";
import { readQuarantine } from "../../src/sightings/reader.ts";
import { SightingsRecorder } from "../../src/sightings/recorder.ts";
import { partner } from "../partner/partners.ts";
import { makeCertificate } from "../receiver/certificates.ts";

const spool = process.argv[2] ?? "";
const recorder = await SightingsRecorder.open(spool, createLog("receiver"), new Date(), { intervalMs: 5 });
let isTold = false;
for (let host = 1; ; host = (host % 200) + 1) {
  const { certificate } = await makeCertificate();
  for (let times = 0; times < 3; times += 1) {
    recorder.noteUnknown([certificate], [partner("acme")], `203.0.113.${host}`, new Date());
    await new Promise((resolve) => setTimeout(resolve, 2));
  }
  if (isTold || (await readQuarantine(spool)).length === 0) continue;
  isTold = true;
  process.send?.("written");
}
